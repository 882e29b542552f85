"""The lines and header blocks of the NATS protocol, read from whatever bytes a producer may have sent.

The broker passes on subjects, reply subjects and header blocks as they came. It separates the parts of a
line by spaces only, so they may hold any other byte: bad UTF-8, a vertical tab, a lone carriage return.
"""

import functools
import re
from collections.abc import Mapping

_M = ord("M")
_STATUS_LINE = b"NATS/1.0 "
_STATUS_LENGTH = 3
_FIELD = re.compile(r"[!#-9;-~]+: [^\r\n]*\r\n", re.ASCII)
_SHORT = 32  # characters of a value that may well come again, as sequences do


class StatusHeaders(dict[str, str]):
    """Headers of a reply whose first line holds a status, such as `NATS/1.0 404 Message Not Found`.

    That line is the broker's own; a header that happens to be called `Status` comes from a producer.
    """

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code


def read_arrival(line: bytes) -> tuple[int, bytes, bytes, int, int]:
    """Takes a line that begins with `MSG ` or `HMSG ` apart. Raises ValueError.

    The subscription's number, the subject, the reply subject, the bytes of the header block that follows, and
    those of it and the body together.
    """
    parts = line.split(b" ")
    if line[0] == _M:
        if len(parts) == 4:
            _, subject, sid, size = parts
            reply = b""
        else:
            _, subject, sid, reply, size = parts
        split, length = 0, int(size)
    else:
        if len(parts) == 5:
            _, subject, sid, header_size, size = parts
            reply = b""
        else:
            _, subject, sid, reply, header_size, size = parts
        split, length = int(header_size), int(size)
    if not 0 <= split <= length:
        raise ValueError(f"{split} bytes of headers in {length}")
    return int(sid), subject, reply, split, length


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


def header_block(headers: Mapping[str, str]) -> bytes | None:
    """The headers as they travel; None for those that cannot as they are."""
    block = "NATS/1.0\r\n"
    for name, value in headers.items():
        field = _known_field(name, value) if len(value) <= _SHORT else _field(name, value)
        if field is None:
            return None
        block += field
    return f"{block}\r\n".encode()


def _field(name: str, value: str) -> str | None:
    field = f"{name}: {value}\r\n"
    return field if _FIELD.fullmatch(field) else None


_known_field = functools.lru_cache(1024, typed=True)(_field)


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
