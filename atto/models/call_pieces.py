"""Which tool call a piece of one belongs to, when servers disagree about ids and indexes."""

import re
from dataclasses import dataclass, field

from atto.models.surrogates import SurrogateJoiner

_STRUCTURE = re.compile(r'[\\"{}\[\]]')


_UNREAD = 64 << 10
"""Characters that are kept to be read, should anybody ask."""


class _Extent:
    """Whether pieces of JSON text make whole objects. Each character is read once, most only if asked."""

    def __init__(self) -> None:
        self._unread: list[str] = []
        self._length = 0
        self._depth = 0
        self._quoted = False
        self._skip = 0
        self._ended = False

    def add(self, text: str) -> None:
        self._unread.append(text)
        self._length += len(text)
        if self._length > _UNREAD:
            self._read()

    def is_open(self) -> bool:
        """In the middle of an object."""
        self._read()
        return self._depth > 0

    def is_complete(self) -> bool:
        """An object ended, and none is open."""
        self._read()
        return self._ended and self._depth <= 0

    def _read(self) -> None:
        text = "".join(self._unread)
        self._unread.clear()
        self._length = 0
        for match in _STRUCTURE.finditer(text, self._skip):
            if match.start() >= self._skip:
                self._step(match[0], match.end())
        self._skip = max(0, self._skip - len(text))

    def _step(self, char: str, end: int) -> None:
        if char == "\\":
            self._skip = end + 1
        elif char == '"':
            self._quoted = not self._quoted
        elif not self._quoted:
            self._depth += 1 if char in "{[" else -1
            self._ended = self._ended or self._depth == 0


@dataclass(slots=True)
class Call:
    """A call being built: `slot` is its place among the calls of the message."""

    slot: int
    id: str = ""
    name: str = ""
    joiner: SurrogateJoiner = field(default_factory=SurrogateJoiner)
    extent: _Extent = field(default_factory=_Extent)


class CallPieces:
    """Places pieces in calls.

    A new call begins where a non-empty id differs from its slot's, or where a name arrives on a slot whose
    arguments are complete (or that had none, under another name). Else a piece belongs to the call of its
    index, else to the last. So servers may send index 0 for every call, the first index as 1, no index, no
    id, or the id only once or with every piece.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._by_index: dict[int, Call] = {}
        self._by_id: dict[str, Call] = {}

    def place(self, *, index: int | None, call_id: str, name: str, arguments: str) -> Call:
        """The call to which the piece belongs, begun if it is new."""
        call = self._find(index, call_id, name, arguments) or self._begin()
        call.id = call.id or call_id
        call.name = call.name or name
        call.extent.add(arguments)
        if index is not None:
            self._by_index[index] = call
        if call_id:
            self._by_id[call_id] = call
        return call

    def _begin(self) -> Call:
        call = Call(len(self.calls))
        self.calls.append(call)
        return call

    def _find(self, index: int | None, call_id: str, name: str, arguments: str) -> Call | None:
        last = self.calls[-1] if self.calls else None
        if index is not None and index not in self._by_index:
            return None if name or last is None else self._by_id.get(call_id, last)
        call = last if index is None else self._by_index[index]
        if call is None:
            return None
        if call_id and call.id and call_id != call.id:
            return self._by_id.get(call_id)
        return None if _is_another(call, name, arguments) else call


def _is_another(call: Call, name: str, arguments: str) -> bool:
    """Whether a name that arrives on the slot of `call` begins another one.

    Servers that repeat the name with every piece, or once more at the end, do not mean another.
    """
    if not (name and call.name) or call.extent.is_open():
        return False
    return name != call.name or (bool(arguments) and call.extent.is_complete())
