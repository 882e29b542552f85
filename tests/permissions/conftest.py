"""Brokers as deploy/nats configures them; each starts once, when the first test asks for it."""

from collections.abc import AsyncGenerator

import pytest

from atto.broker.server import EmbeddedBroker
from tests.permissions.deployment import declare, login, serving


@pytest.fixture(scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[EmbeddedBroker]:
    """users.conf: one account, one user a role; declared by the admin."""
    async with serving(tmp_path_factory.mktemp("users"), "users.conf") as broker:
        await declare(broker.url, **login("atto-admin"))
        yield broker


@pytest.fixture(scope="session")
async def tenants(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[EmbeddedBroker]:
    """accounts.conf: acme, with clients and producers in accounts of their own, and globex; both declared."""
    async with serving(tmp_path_factory.mktemp("accounts"), "accounts.conf") as broker:
        for tenant in ("acme", "globex"):
            await declare(broker.url, **login(f"{tenant}-admin"))
        yield broker
