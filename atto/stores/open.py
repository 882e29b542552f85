"""A store by its URL, for configurations: `async with open_store("sqlite:///sessions.db") as store: ...`."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from atto.protocol.errors import UnknownStore
from atto.stores.base import SessionStore
from atto.stores.memory import MemoryStore
from atto.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from atto.broker.jetstream import JetStream
    from atto.stores.postgres import PostgresStore

_FORMS = (
    "nats-kv (in the broker that is there anyway), postgres://user:password@host/db, sqlite:///relative.db "
    "or sqlite:////absolute.db (one file on one machine), memory: (for tests: gone with the process)"
)

_SQLITE = "sqlite:///"
_POSTGRES = ("postgres://", "postgresql://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")


@asynccontextmanager
async def open_store(
    url: str, *, jetstream: "JetStream | None" = None, namespace: str = "atto", replicas: int = 1
) -> AsyncGenerator[SessionStore]:
    """The store at `url`, ready for use, and closed in the end. Its file, bucket or tables are created
    unless they are there.

    `memory:`; `sqlite:///relative.db` and `sqlite:////absolute.db`, with the path as it is, nothing escaped;
    `nats-kv`, which needs `jetstream`, and which alone heeds `namespace` and `replicas`; `postgres://…` and
    `postgresql://…`, as asyncpg reads them.

    Raises `UnknownStore` for any other, without quoting it, since there may be a password in it;
    `MissingExtra` if a package is not installed; and what the store itself raises when it is opened.
    """
    if url == "memory:":
        yield MemoryStore()
    elif url.startswith(_SQLITE) and (path := url.removeprefix(_SQLITE)) not in {"", ":memory:"}:
        async with SqliteStore(path) as store:
            yield store
    elif url == "nats-kv":
        yield await _nats_kv(jetstream, namespace, replicas)
    elif url.startswith(_POSTGRES):
        async with _postgres(url) as store:
            yield store
    else:
        scheme = _SCHEME.match(url)
        found = f"a URL with the scheme {scheme[0]!r}" if scheme else "a URL without a scheme"
        raise UnknownStore(f"there is no store for {found} in this form; the forms are: {_FORMS}")


async def _nats_kv(jetstream: "JetStream | None", namespace: str, replicas: int) -> SessionStore:
    from atto.stores import NatsKvStore  # noqa: PLC0415 - loads nats-py, which the other stores do without

    if jetstream is None:
        raise UnknownStore(
            "the store 'nats-kv' lies in the broker: pass a `jetstream` that is connected to it"
        )
    store = NatsKvStore(jetstream, namespace, replicas=replicas)
    await store.declare()
    return store


def _postgres(dsn: str) -> "PostgresStore":
    from atto.stores import PostgresStore  # noqa: PLC0415 - loads asyncpg, as above

    return PostgresStore(dsn)
