"""What the log says of tools that raise."""

import asyncio
import logging

import pytest

from atto import ToolContext, ToolError, tool
from atto.agents import State
from atto_workers.run.tool_failures import _chain, log_failure

CONTEXT = ToolContext(session="s", run_id="r", step=1, call_id="c", metadata={}, state=State({}))


async def failed(broken, caplog) -> logging.LogRecord:
    with pytest.raises(ToolError) as caught:
        await broken.call({}, CONTEXT)
    log_failure(broken, "r", caught.value, caught.value.__cause__)
    return caplog.records[-1]


def raising(*, threaded: bool):
    def deeper() -> None:
        raise KeyError("Oslo")

    def broken() -> None:
        """Breaks."""
        deeper()

    async def broken_too() -> None:
        """Breaks."""
        deeper()

    return tool(broken if threaded else broken_too)


@pytest.mark.parametrize("threaded", [True, False])
async def test_the_traceback_is_the_authors_and_comes_once(threaded, caplog):
    broken = raising(threaded=threaded)
    first, second = await failed(broken, caplog), await failed(broken, caplog)
    assert first.getMessage() == second.getMessage()
    assert "failed: KeyError at test_tool_failures.py:" in first.getMessage()
    assert "Oslo" not in first.getMessage()
    shown = logging.Formatter().format(first)
    assert ("in deeper" in shown, "in _in_t" in shown, "beside.py" in shown) == (True, False, False)
    assert second.exc_info is None
    assert (await failed(raising(threaded=threaded), caplog)).exc_info is not None  # another tool


async def test_at_level_debug_each_has_its_traceback(caplog):
    caplog.set_level(logging.DEBUG, logger="atto.worker")
    broken = raising(threaded=True)
    assert all([(await failed(broken, caplog)).exc_info for _ in range(2)])


async def test_a_timeout_is_called_one(caplog):
    @tool(timeout=0.01)
    async def slow() -> None:
        """Hangs."""
        await asyncio.Event().wait()

    record = await failed(slow, caplog)
    assert "failed: ToolTimeout at test_tool_failures.py:" in record.getMessage()


async def test_a_cause_that_counts_as_false_is_one():
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    @tool
    async def broken() -> None:
        """Breaks."""
        raise KeyError("Oslo") from Empty()

    with pytest.raises(ToolError) as caught:
        await broken.call({}, CONTEXT)
    chain = list(_chain(caught.value.__cause__))
    assert [type(error) for error in chain] == [KeyError, Empty]
