"""What a log line holds, and what it must not."""

import json
import logging

import pytest

from atto.protocol.errors import StoreUnavailable
from atto_workers.logs import configure_logs
from atto_workers.turn_context import TurnContext


@pytest.fixture(autouse=True)
def logging_as_it_was():
    root, atto = logging.getLogger(), logging.getLogger("atto")
    before = (root.handlers[:], root.level, atto.level)
    yield
    root.handlers[:], level, atto_level = before
    root.setLevel(level)
    atto.setLevel(atto_level)


def test_a_line_names_its_turn(capsys: pytest.CaptureFixture[str]):
    configure_logs(as_json=True)
    with TurnContext(session="ann", run="r", partition=3), TurnContext(attempt=2):
        logging.getLogger("atto.worker").info("said")
    line = json.loads(capsys.readouterr().err)
    assert {k: line[k] for k in ("event", "session", "run", "partition", "attempt")} == {
        "event": "said", "session": "ann", "run": "r", "partition": 3, "attempt": 2,
    }  # fmt: skip


def _raised(said: str) -> Exception:
    """A group and a cause: whatever a traceback can hold."""
    try:
        raise KeyError(f"error {said}") from TypeError(f"cause {said}")  # noqa: TRY301
    except KeyError as error:
        return ExceptionGroup(f"group {said}", [error, StoreUnavailable("the disk is full")])


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_does_not_say_what_exceptions_say(as_json: bool, capsys: pytest.CaptureFixture[str]):
    configure_logs(level="debug", as_json=as_json)
    said = f"{'PROMPT'}-{'CANARY'}"
    logging.getLogger("atto.worker").error("failed", exc_info=_raised(said))
    text = capsys.readouterr().err
    assert said not in text
    for name in ("TypeError", "KeyError", "ExceptionGroup", "_raised", "StoreUnavailable: the disk is full"):
        assert name in text


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variable(as_json: bool, capsys: pytest.CaptureFixture[str]):
    configure_logs(level="debug", as_json=as_json)
    prompt = f"{'PROMPT'}-{'CANARY'}{as_json}"

    def fail(said: str) -> None:
        raise RuntimeError(len(said))

    try:
        fail(prompt)
    except RuntimeError:
        logging.getLogger("atto.worker").exception("failed")
    assert prompt not in capsys.readouterr().err
