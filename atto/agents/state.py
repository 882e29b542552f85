"""One tool call's view of a session's state."""

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from atto.agents.plain import encode
from atto.protocol.errors import ToolFailed
from atto.protocol.events import StateChange

_DELETED: Final = object()


class State(MutableMapping[str, Any]):
    """A dict of JSON values that keeps its changes to itself until they are asked for.

    `base` is never written to, and nothing that is read out of the view aliases it: a key's value is copied
    when it is first read, so `state["cart"].append(x)` is a change of this view alone. Dropping the view
    drops its changes. Keys are strings; a value is anything that has a JSON form, and reads as what was
    written until the call ends, as plain JSON in later calls. Keys of `base` keep their place in the order.

    The cost is that of the keys touched, whatever the size of `base`.
    """

    __slots__ = ("_base", "_touched")

    def __init__(self, base: Mapping[str, Any]) -> None:
        self._base = base
        self._touched: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._touched:
            self._touched[key] = copy.deepcopy(self._base[key])
        value = self._touched[key]
        if value is _DELETED:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a key of the session state is a string, not {key!r}: use str(...)")
        self._touched[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        if key in self._base:
            self._touched[key] = _DELETED
        else:
            del self._touched[key]

    def __contains__(self, key: object) -> bool:
        if key in self._touched:
            return self._touched[key] is not _DELETED  # pyright: ignore[reportArgumentType]
        return key in self._base

    def __iter__(self) -> Iterator[str]:
        kept = [key for key in self._base if self._touched.get(key) is not _DELETED]
        added = [key for key in self._touched if key not in self._base]
        return iter(kept + added)

    def __len__(self) -> int:
        added = sum(key not in self._base for key in self._touched)
        deleted = sum(value is _DELETED for value in self._touched.values())
        return len(self._base) + added - deleted

    def __repr__(self) -> str:
        values = {**self._base, **self._touched}
        return f"State({ {key: values[key] for key in self} })"

    def clear(self) -> None:
        """Deletes every key."""
        for key in self:
            del self[key]

    def changes(self) -> StateChange:
        """What differs from `base`, by the keys' JSON; equal values, however often written, are no change.

        The change holds plain JSON values that alias nothing. Raises `ToolFailed`, naming the key, for a
        value without a JSON form.
        """
        written: dict[str, Any] = {}
        unset: list[str] = []
        for key, value in self._touched.items():
            if value is _DELETED:
                unset.append(key)
                continue
            data = _encode(key, value)
            if key not in self._base or data != _encode(key, self._base[key]):
                written[key] = msgspec.json.decode(data)
        return StateChange(set=written, unset=tuple(unset))


def _encode(key: str, value: Any) -> bytes:
    try:
        key.encode()
        return encode(value)
    except Exception as error:
        raise ToolFailed(
            f"the session state cannot keep {key!r}, a {type(value).__name__}, as JSON: {error}"
        ) from error
