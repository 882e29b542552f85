"""Session stores: the contract (`SessionStore`), what keeps it, and what is done with stores from outside."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atto.protocol.errors import MissingExtra, NotStorable
from atto.stores.base import SessionStore
from atto.stores.memory import MemoryStore

if TYPE_CHECKING:
    from atto.stores.housekeeping import (
        NoSuchSession,
        NotImportable,
        expire,
        export_session,
        import_session,
    )
    from atto.stores.nats_kv import NatsKvStore
    from atto.stores.open import open_store
    from atto.stores.postgres import PostgresStore
    from atto.stores.sqlite import SqliteStore

__all__ = [
    "MemoryStore",
    "NatsKvStore",
    "NoSuchSession",
    "NotImportable",
    "NotStorable",
    "PostgresStore",
    "SessionStore",
    "SqliteStore",
    "expire",
    "export_session",
    "import_session",
    "open_store",
]

_HOMES = {
    "NatsKvStore": "atto.stores.nats_kv",
    "PostgresStore": "atto.stores.postgres",
    "SqliteStore": "atto.stores.sqlite",
    "open_store": "atto.stores.open",
    **dict.fromkeys(
        ("NoSuchSession", "NotImportable", "expire", "export_session", "import_session"),
        "atto.stores.housekeeping",
    ),
}
_PACKAGES = {
    "nats": "nats-py: pip install 'atto-agents[nats]'",
    "asyncpg": "asyncpg: pip install 'atto-agents[postgres]'",
}


def __getattr__(name: str) -> Any:
    """Loads a store, and with it the package that it needs, only where it is used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise MissingExtra(f"{name} needs {_PACKAGES[error.name]}") from error
