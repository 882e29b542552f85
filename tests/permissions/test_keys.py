"""Users known by keys: nkeys.conf, and credentials files of a broker in operator mode."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from atto.broker.server import EmbeddedBroker
from atto_client import BrokerUnavailable, Client
from atto_workers import Worker
from tests.permissions.deployment import CONFIGURATION, declare, echo, inbox, serving, trying
from tests.permissions.keys import Key, credentials

ROLES = ("producer", "client", "worker", "admin")
LIMITS = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
    "wildcards": True,
}
JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


async def works_as_all_roles(url: str, logins: dict[str, dict[str, Any]]) -> None:
    await declare(url, **logins["admin"])
    async with (
        Worker(echo(), nats=url, **logins["worker"]),
        Client(url, **logins["client"]) as client,
        Client(url, **logins["producer"]) as producer,
    ):
        run = await producer.submit("user-123", "hi")
        assert (await client.attach("user-123", run.run_id).result()).text == "hi"
        assert (await client.snapshot("user-123")).version == 1
    async with trying(url, **logins["client"]) as tried:
        assert len(await tried.publish("atto.event.user-123.run")) == 1
    async with trying(url, **logins["worker"]) as tried:
        assert len(await tried.publish("$JS.API.STREAM.DELETE.atto-TURNS")) == 1


async def test_nkeys(tmp_path: Path):
    keys = {role: Key("user") for role in ROLES}
    logins: dict[str, dict[str, Any]] = {}
    for role, key in keys.items():
        seed = tmp_path / f"{role}.nk"
        seed.write_text(key.seed)
        logins[role] = {"nkeys_seed": str(seed), "inbox_prefix": inbox(f"atto-{role}")}
    public = {f"ATTO_{role.upper()}_NKEY": key.public for role, key in keys.items()}
    async with serving(tmp_path, "nkeys.conf", **public) as broker:
        await works_as_all_roles(broker.url, logins)
        with pytest.raises(BrokerUnavailable, match=r"(?i)authorization"):
            async with Client(broker.url, nkeys_seed_str=Key("user").seed, connect_timeout=2.0):
                pass


async def test_credentials_files(tmp_path: Path):
    operator, account, system = Key("operator"), Key("account"), Key("account")
    config = {
        "operator": operator.signs(operator),
        "system_account": system.public,
        "resolver": "MEMORY",
        "resolver_preload": {
            account.public: operator.signs(account, limits={**LIMITS, **JETSTREAM}),
            system.public: operator.signs(system, limits=LIMITS),
        },
    }
    logins: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        user = Key("user")
        file = tmp_path / f"{role}.creds"
        file.write_text(credentials(account.signs(user, **_permissions(role)), user))
        logins[role] = {"user_credentials": str(file), "inbox_prefix": inbox(f"atto-{role}")}
    async with EmbeddedBroker(config=json.dumps(config)) as broker:
        await works_as_all_roles(broker.url, logins)
        stranger = Key("user")
        forged = tmp_path / "forged.creds"
        forged.write_text(credentials(Key("account").signs(stranger), stranger))
        with pytest.raises(BrokerUnavailable, match=r"(?i)authorization"):
            async with Client(broker.url, user_credentials=str(forged), connect_timeout=2.0):
                pass


def _permissions(role: str) -> dict[str, Any]:
    """The lists of the configuration files, as the claims of a user's JWT."""
    lists = (CONFIGURATION / "permissions.conf").read_text()
    users = (CONFIGURATION / "users.conf").read_text()
    [subscribe] = re.findall(rf"user: atto-{role}.*?subscribe: \[(.*?)\]", users, re.DOTALL)
    [inline] = re.findall(rf"user: atto-{role}.*?publish: (\$\w+|\[.*?\])", users, re.DOTALL)
    if inline.startswith("$"):
        [inline] = re.findall(rf"^{inline[1:]} = \[(.*?)^\]", lists, re.DOTALL | re.MULTILINE)
    quoted = re.compile(r'"([^"]+)"')
    return {
        "pub": {"allow": quoted.findall(inline)},
        "sub": {"allow": quoted.findall(subscribe)},
        **dict.fromkeys(("subs", "data", "payload"), -1),
    }
