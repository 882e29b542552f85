"""Server-sent events: bytes in, the data of each event out."""

from atto.protocol.errors import ModelError

MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one event: room for an image in base64, and a bound on what a provider can make us hold."""

_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Parses an event stream as it arrives, split anywhere, as the HTML standard (9.2.6) says: a line ends
    with CRLF, LF or CR; several `data` lines of an event are joined by newlines; comments are skipped.

    Only the data is given: the APIs that stream JSON name the kind of an event inside it as well. It stays
    bytes, so characters split between two reads need no care. An event whose blank line never came is cut,
    and never given. The cost is linear in the bytes, whatever their split.
    """

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._held = 0
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes. Raises `ModelError` for one beyond the limit."""
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        payloads: list[bytes] = []
        for line in chunk.splitlines(keepends=True):
            self._hold(len(line))
            self._line.append(line)
            if line.endswith((b"\n", b"\r")):
                self._end_line(payloads)
        return payloads

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._limit:
            raise ModelError(f"an event of the stream is larger than {self._limit} bytes")

    def _end_line(self, payloads: list[bytes]) -> None:
        whole = b"".join(self._line)
        self._line.clear()
        self._held -= len(whole)
        line = whole.rstrip(b"\r\n")
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            self._end_event(payloads)
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._hold(len(value) + 1)
            self._data.append(value.removeprefix(b" "))

    def _end_event(self, payloads: list[bytes]) -> None:
        payload = b"\n".join(self._data)
        self._data.clear()
        self._held = 0
        if payload:
            payloads.append(payload)
