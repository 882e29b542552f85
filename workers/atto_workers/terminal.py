r"""The one way out to terminals: text from outside is shown, and never obeyed.

Ids, reasons, answers and errors are quoted from callers, models and tools. Printed as they are, they could
move the cursor, rename the window, overwrite a line, forge another one, or turn the reading direction around.
Controls are written as escapes here: `\x1b`, `\n`, `\u202e`.
"""

import sys
from typing import Any, TextIO

import msgspec

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CONTROLS = (
    *range(0x20),  # C0
    *range(0x7F, 0xA0),  # DEL and C1: 0x9b alone begins a control sequence
    *(0x2028, 0x2029),  # line and paragraph separators
    *range(0x202A, 0x202F),  # embeddings and overrides of the reading direction
    *range(0x2066, 0x206A),  # isolates
    *range(0xD800, 0xE000),  # lone surrogates: no encoding writes them
)


def _escape(code: int) -> str:
    return _SHORT.get(chr(code)) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


_LINE = {code: _escape(code) for code in _CONTROLS}
_TEXT: dict[int, str | None] = {**_LINE, ord("\n"): "\n", ord("\t"): "\t", ord("\r"): None}
_JSON = {code: f"\\u{code:04x}" for code in _CONTROLS}  # they stand in strings only, where this is the same


def shown(text: str) -> str:
    """One line: every control is escaped, line feeds too."""
    return text if text.isascii() and text.isprintable() else text.translate(_LINE)


def shown_text(text: str) -> str:
    """Text of several lines: line feeds and tabs stay, carriage returns go, other controls are escaped."""
    return text if text.isascii() and text.isprintable() else text.translate(_TEXT)


def shown_json(line: str) -> str:
    """One line of JSON, which means the same as before."""
    return line.rstrip("\n").translate(_JSON)


def quoted(identifier: str) -> str:
    """An id on a line of its own, for people and for pipes.

    As it is where it is printable; as a JSON string where it holds a control, or begins as a JSON string
    does: so a line that begins with `"` is JSON, any other is the id.
    """
    if shown(identifier) == identifier and not identifier.startswith('"'):
        return identifier
    return shown_json(msgspec.json.encode(identifier).decode())


def say(text: str, *, file: TextIO | None = None) -> None:
    """Prints text, escaped as by `shown_text`; to stdout by default."""
    print(shown_text(text), file=file or sys.stdout, flush=True)


def say_json(value: Any, *, file: TextIO | None = None) -> None:
    """Prints a value as one line of JSON; to stdout by default."""
    print(shown_json(msgspec.json.encode(value).decode()), file=file or sys.stdout, flush=True)
