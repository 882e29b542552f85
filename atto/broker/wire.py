"""The lines and header blocks of the NATS protocol, read from whatever bytes a producer may have sent.

The broker passes on subjects, reply subjects and header blocks as they came. It separates the parts of a
line by spaces only, so they may hold any other byte: bad UTF-8, a vertical tab, a lone carriage return.
"""

from typing import NamedTuple

_STATUS_LINE = b"NATS/1.0 "
_STATUS_LENGTH = 3


class Arrival(NamedTuple):
    """The line of a message; `size` bytes follow, of which the first `header_size` are its header block."""

    sid: int
    subject: bytes
    reply: bytes
    header_size: int
    size: int


class StatusHeaders(dict[str, str]):
    """Headers of a reply whose first line holds a status, such as `NATS/1.0 404 Message Not Found`.

    That line is the broker's own; a header that happens to be called `Status` comes from a producer.
    """

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code


def read_arrival(line: bytes) -> Arrival:
    """Takes a line that begins with `MSG ` or `HMSG ` apart. Raises ValueError."""
    parts = line.split(b" ")
    sizes = 1 if line[:1] == b"M" else 2
    if len(parts) == 3 + sizes:
        reply = b""
    elif len(parts) == 4 + sizes:
        reply = parts[3]
    else:
        raise ValueError(f"{len(parts)} parts in a line of the broker's")
    header_size, size = (0 if sizes == 1 else int(parts[-2])), int(parts[-1])
    if not 0 <= header_size <= size:
        raise ValueError(f"{header_size} bytes of headers in {size}")
    return Arrival(int(parts[2]), parts[1], reply, header_size, size)


def read_headers(block: bytes) -> dict[str, str] | None:
    """The headers of a block, the last one of each name; None if there are none. Never raises.

    Names that could not be looked up are left out. `StatusHeaders` where the first line holds a status.
    """
    first, _, rest = block.partition(b"\r\n")
    headers: dict[str, str] = {}
    if first.startswith(_STATUS_LINE):
        headers = _status_headers(first)
    for line in rest.split(b"\r\n"):
        raw, colon, value = line.partition(b":")
        if colon:
            name = raw.strip()
            if name.isascii() and len(name.split()) == 1:
                headers[name.decode("ascii")] = readable(value.strip())
    return headers or None


def readable(raw: bytes) -> str:
    r"""Text as it is, each byte that is no UTF-8 as `\xff`. Two of different bytes stay different."""
    return raw.decode("utf-8", "backslashreplace")


def _status_headers(line: bytes) -> dict[str, str]:
    code = line[len(_STATUS_LINE) :].strip()[:_STATUS_LENGTH]
    if not (code.isdigit() and len(code) == _STATUS_LENGTH):
        return {}
    text = code.decode("ascii")
    headers = StatusHeaders(text)
    headers["Status"] = text
    description = line[len(_STATUS_LINE) :].strip()[_STATUS_LENGTH:].strip()
    if description:
        headers["Description"] = readable(description)
    return headers
