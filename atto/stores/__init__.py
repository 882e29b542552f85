"""Session stores: the contract (`SessionStore`) and what keeps it."""

from typing import TYPE_CHECKING, Any

from atto.protocol.errors import MissingExtra
from atto.stores.base import SessionStore
from atto.stores.encoding import NotStorable
from atto.stores.memory import MemoryStore

if TYPE_CHECKING:
    from atto.stores.nats_kv import NatsKvStore

__all__ = ["MemoryStore", "NatsKvStore", "NotStorable", "SessionStore"]


def __getattr__(name: str) -> Any:
    """`NatsKvStore` loads nats-py only where it is used."""
    if name != "NatsKvStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from atto.stores.nats_kv import NatsKvStore  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise MissingExtra("NatsKvStore needs nats-py: pip install 'atto-agents[nats]'") from error
    return NatsKvStore
