"""TLS in both directions: tls.conf beside tenant.conf."""

import asyncio
import logging
import os
import ssl
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from atto.broker.connection import connected
from atto.broker.server import EmbeddedBroker
from atto_client import BrokerUnavailable, Client
from atto_workers import Worker
from tests.permissions.certificates import Authority, Signed
from tests.permissions.deployment import declare, echo, login, serving

# nats-py leaves a connection whose handshake failed to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def secured(authority: Authority, tmp_path: Path) -> AsyncGenerator[EmbeddedBroker]:
    server = authority.sign("server")
    paths = {
        "ATTO_TLS_CERT": str(server.certificate),
        "ATTO_TLS_KEY": str(server.key),
        "ATTO_TLS_CA": str(authority.ca),
    }
    config = "include tenant.conf\ninclude tls.conf\n"
    async with serving(tmp_path, config, **paths) as broker:
        yield broker


def context(authority: Authority, *, name: str | None = "client") -> ssl.SSLContext:
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    if name is not None:
        own = authority.sign(name)
        trusting.load_cert_chain(own.certificate, own.key)
    return trusting


async def test_all_roles_over_tls(secured: EmbeddedBroker, authority: Authority):
    tls = context(authority)
    await declare(secured.url, tls=tls, **login("atto-admin"))
    async with (
        Worker(echo(), nats=secured.url, tls=tls, **login("atto-worker")),
        Client(secured.url, tls=tls, **login("atto-client")) as client,
    ):
        assert (await client.run("user-123", "hi").result()).text == "hi"


async def test_the_command_that_declares_speaks_tls(secured: EmbeddedBroker, authority: Authority):
    own = authority.sign("admin")
    admin = login("atto-admin")
    environment = {
        "ATTO_NATS": secured.url,
        "ATTO_USER": admin["user"],
        "ATTO_PASSWORD": admin["password"],
        "ATTO_INBOX_PREFIX": admin["inbox_prefix"],
        "ATTO_TLS_CA": str(authority.ca),
        "ATTO_TLS_CERT": str(own.certificate),
        "ATTO_TLS_KEY": str(own.key),
    }
    job = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("atto")), "declare"),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **environment},
    )
    output = (await job.communicate())[0].decode()
    assert (job.returncode, output) == (
        0,
        "namespace atto: 64 partitions, backlog 32, replicas 1\n",
    )


async def test_a_server_of_another_authority_is_not_trusted(secured: EmbeddedBroker, tmp_path: Path):
    other = Authority(tmp_path, "another-authority")
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
        async with Client(secured.url, tls=context(other), connect_timeout=0.5, **login("atto-client")):
            pass


@pytest.mark.parametrize("who", ["nobody", "a stranger"])
async def test_a_client_without_a_certificate_of_the_authority_is_refused(
    secured: EmbeddedBroker, authority: Authority, tmp_path: Path, who: str
):
    tls = context(authority, name=None)
    if who == "a stranger":
        stranger = Authority(tmp_path, "another-authority").sign("stranger")
        tls.load_cert_chain(stranger.certificate, stranger.key)
    with pytest.raises(BrokerUnavailable):
        async with Client(secured.url, tls=tls, connect_timeout=0.5, **login("atto-client")):
            pass


async def test_nothing_travels_in_the_clear(secured: EmbeddedBroker):
    with pytest.raises(BrokerUnavailable):
        async with Client(secured.url, connect_timeout=0.5, **login("atto-client")):
            pass


async def test_a_certificate_that_is_refused_on_a_reconnect_is_told_and_does_not_hold_up_the_end(
    authority: Authority, tmp_path: Path
):
    """The broker is not away then, and will not come back by itself."""

    def config(certificate: Signed) -> str:
        return f'tls {{ cert_file: "{certificate.certificate}", key_file: "{certificate.key}" }}'

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "certificate verify failed" in record.getMessage():
                told.set()

    told = asyncio.Event()
    handler = Told(logging.WARNING)
    log = logging.getLogger("atto.broker")
    stranger = Authority(tmp_path, "stranger")
    async with EmbeddedBroker(config=config(authority.sign("server"))) as broker:
        options: dict[str, Any] = {"tls": context(authority, name=None), "reconnect_time_wait": 0.05}
        port = int(broker.url.rpartition(":")[2])
        log.addHandler(handler)
        try:
            async with asyncio.timeout(20):
                async with connected(broker.url, name="test", on_reconnect=lambda: None, **options):
                    await broker.kill()
                    async with EmbeddedBroker(config=config(stranger.sign("other")), port=port):
                        await told.wait()
        finally:
            log.removeHandler(handler)
