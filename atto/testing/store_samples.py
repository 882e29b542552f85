"""Values that stores have been seen to lose: of every kind, of every odd character, empty ones."""

from datetime import UTC, datetime
from typing import Any

from atto.protocol.events import StateChange
from atto.protocol.ids import MAX_ID_BYTES
from atto.protocol.messages import (
    FilePart,
    ImagePart,
    Message,
    Origin,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from atto.protocol.sessions import Commit, Compaction, Continuation, Record
from atto.protocol.waits import Wait, WaitingCall

ODD_TEXT = "".join(
    (
        *map(chr, range(256)),
        "\u2028\u200b\ufeff\uffff\U0001d54f",
        "ü 你好 عربي",
        "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}",
        r"\u0000 \\ \" } ]",
    )
)

ODD_STATE: dict[str, Any] = {
    ODD_TEXT: ODD_TEXT,
    "a.b/c$d": {"$e": [{"f'g": '"h"'}]},
    "numbers": [0, -1, 2**53 + 1, -(2**63), 2**64 - 1, 1.5, 1e-300, 1e300, 0.1, -0.0],
    "constants": [None, True, False],
    "order": {"b": 1, "a": 2},
}

SESSION_IDS = (
    "user-123",
    "USER-123",  # no two of these are the same session
    "user_123",
    "ann@example.com",
    "a.b",
    "a",
    "a ",
    " a",
    "a=2Eb",
    "=",
    "%",
    "*",
    ">",
    "$KV",
    ".",
    "..",
    "/etc/passwd",
    "a\\b",
    "'; DROP TABLE sessions; --",
    '"',
    "\0",
    "\t\r\n",
    "ü",
    "u\u0308",
    "你好",
    "👩‍👩‍👧",
    "x" * MAX_ID_BYTES,
    "." * MAX_ID_BYTES,
)

EVERY_MESSAGE = (
    Message.user("hi"),
    Message(
        "user",
        (
            TextPart("what is this?", native={"provider": ["json", None]}),
            ImagePart(url="https://example.com/a.png"),
            ImagePart(data=bytes(range(256)), media_type="image/png"),
            FilePart(url="https://example.com/a.pdf", media_type="application/pdf", name="ä.pdf"),
            FilePart(data=b"", media_type="text/plain"),
        ),
    ),
    Message(
        "assistant",
        (
            ReasoningPart("thinking", native={"signature": "c2lnbmF0dXJl"}),
            ReasoningPart(native={"redacted": True}),
            TextPart("let me see"),
            ToolCallPart(id="call-1", name="look", arguments={"where": {"x": [1, 2.5, None]}}),
            ToolCallPart(id="call-2", name="look", malformed="{not json"),
        ),
        origin=Origin(provider="openai", model="gpt", account="acme"),
    ),
    Message(
        "tool",
        (
            ToolResultPart(call_id="call-1", name="look", content="a cat"),
            ToolResultPart(
                call_id="call-2", name="look", content=(TextPart("no"), ImagePart(url="u")), is_error=True
            ),
        ),
    ),
    Message.assistant("a cat"),
    Message("assistant", ()),
)

ODD_RECORD: dict[str, Any] = {
    "ended": "failed",
    "code": "model_error",
    "reason": ODD_TEXT,
    "input": ODD_TEXT,
    "usage": Usage(3, 2),
    "agent": "support",
    "absorbed": ("r-8", ODD_TEXT[:40]),
    "root": "r-1",
}
"""What a run's record may say beside its place in the history."""

JOURNAL: tuple[Record, ...] = (
    {"type": "model_completed", "seq": 3, "message": {"role": "assistant", "content": [None, 1.5, ODD_TEXT]}},
    {"blob": "x", "chunks": 1, "messages": 1},
    {},
    ODD_STATE,
)

LARGE_JOURNAL: tuple[Record, ...] = ({"text": "x" * 700_000}, {"text": "y"}, {"text": "z" * 200_000})

CONTINUATION = Continuation(
    agent="billing",
    root="r-1",
    waits=(
        Wait(id="w-1", kind="approval", ask=ODD_TEXT, call=WaitingCall("call-1", "pay", {"amount": 80})),
        Wait(
            id="w-2",
            kind="question",
            path="intake",
            schema={"type": "string"},
            until=datetime(2030, 1, 1, tzinfo=UTC),
        ),
    ),
    compaction=Compaction(upto=4, cleared=2, summary=ODD_TEXT),
)


def commit(run_id: str, question: str = "hi", answer: str = "hello", **state: Any) -> Commit:
    """A turn of plain text that sets `state`."""
    return Commit(
        run_id=run_id,
        messages=(Message.user(question), Message.assistant(answer)),
        change=StateChange(set=state),
    )
