"""How a run's events read in a terminal."""

import io
from datetime import UTC, datetime

import pytest

from atto.protocol.events import (
    AgentStarted,
    AnyEvent,
    RunCompleted,
    RunFailed,
    StepRestarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.messages import Message
from atto_workers.cli.console import Terminal
from atto_workers.cli.transcript import Transcript

NOW = datetime.now(UTC)


def shown(*events: AnyEvent) -> list[str]:
    out = io.StringIO()
    transcript = Transcript(Terminal(file=out, soft_wrap=True))
    for event in events:
        transcript.show(event)
    return out.getvalue().splitlines()


def text(text: str) -> TextDelta:
    return TextDelta(seq=1, step=1, text=text)


DONE = RunCompleted(seq=1, time=NOW, message=Message.assistant("x"), version=1)


def test_deltas_are_joined_and_brackets_stay():
    assert shown(text("[bold]"), text(" b\nc"), DONE) == ["[bold] b", "c"]


def test_what_is_said_does_not_control_the_terminal():
    assert shown(text("a\x1b[2Jb\x07c\x9bd"), DONE) == ["a\\x1b[2Jb\\x07c\\x9bd"]


def test_a_restarted_step_is_marked():
    seen = shown(text("half"), StepRestarted(seq=2, step=1, reason="stream broke"), text("whole"), DONE)
    assert seen == ["half", "(once more: stream broke; what was said of step 1 is void)", "whole"]


def test_what_another_agent_says_stands_under_its_name():
    begins = [AgentStarted(seq=1, path=path, agent="helper") for path in ("1:c", "1:c/1:d")]
    mine, view = (TextDelta(seq=1, path="1:c", step=1, text=words) for words in ("my ", "view"))
    deep = TextDelta(seq=1, path="1:c/1:d", step=1, text="deep")
    assert shown(text("I ask"), *begins, mine, view, deep, DONE) == [
        "I ask",
        "helper> my view",
        "helper> helper> deep",
    ]


@pytest.mark.parametrize("is_error", [False, True])
def test_tool_calls_stand_on_lines_of_their_own(is_error: bool):
    begins = ToolStarted(seq=1, step=1, call_id="c", name="look", arguments={"at": "x"})
    done = ToolCompleted(seq=2, step=1, call_id="c", name="look", content="y", is_error=is_error)
    seen = shown(text("well"), begins, done)
    assert seen == ["well", "-> look({'at': 'x'})", "<- look failed: y" if is_error else "<- look"]


def test_a_failure_says_why():
    assert shown(RunFailed(seq=1, time=NOW, code="model_error", message="down")) == [
        "the run failed (model_error): down"
    ]
