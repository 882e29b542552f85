import asyncio
import contextvars
import functools
import inspect
import json
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.agents import State, Tool, ToolContext, ToolError, tool
from atto.agents.results import to_result
from atto.models.base import ToolSpec
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid, ToolFailed, ToolTimeout
from atto.protocol.messages import FilePart, ImagePart, TextPart


def context(**state: Any) -> ToolContext:
    return ToolContext(
        session="ann", run_id="r1", step=1, call_id="c1", metadata={"tenant": "x"}, state=State(state)
    )


async def call(made: Tool[..., Any], **arguments: Any) -> Any:
    return await made.call(arguments, context())


async def failure(made: Tool[..., Any], **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await call(made, **arguments)
    return caught.value


def test_a_tool_stays_the_function_that_it_was_made_from():
    def add(x: int, y: int = 1) -> int:
        """Adds."""
        return x + y

    made = tool(add)
    assert made(1, y=2) == 3
    assert made.spec.name == made.name == made.__name__ == "add"
    assert made.spec.description == made.__doc__ == "Adds."
    assert inspect.signature(made) == inspect.signature(add)
    assert (made.timeout, made.parallel, made.at_most_once, made.read_only) == (60.0, True, False, False)
    assert repr(made) == "Tool('add')"


def test_the_decorator_takes_options():
    @tool(name="sum-up", description="Sums up.", timeout=None, parallel=False, at_most_once=True)
    def add(x: int) -> int:
        """Adds."""
        return x

    assert add.spec == ToolSpec("sum-up", "Sums up.", add.spec.parameters)
    assert (add.timeout, add.parallel, add.at_most_once) == (None, False, True)


def test_a_tool_that_changes_nothing_needs_no_protection_from_a_repetition():
    assert tool(read_only=True)(sum_up).read_only
    with pytest.raises(InvalidTool, match=r"tool .*sum_up: `at_most_once` is for effects, and `read_only`"):
        tool(at_most_once=True, read_only=True)(sum_up)


def sum_up(x: int) -> int:
    """Sums up."""
    return x


async def test_an_async_tool_runs_on_the_loop_in_a_task_of_its_own_with_the_callers_context_variables():
    variable = contextvars.ContextVar("variable", default="unset")

    @tool
    async def where() -> list[Any]:
        is_callers = asyncio.current_task() is task
        return [is_callers, threading.current_thread() is threading.main_thread(), variable.get()]

    task = asyncio.current_task()
    variable.set("set by the caller")
    assert await call(where) == '[false,true,"set by the caller"]'


async def test_a_sync_tool_runs_in_a_thread_with_the_callers_context_variables():
    variable = contextvars.ContextVar("variable", default="unset")

    @tool
    def where() -> list[Any]:
        inherited = variable.get()
        variable.set("changed by the tool")
        return [inherited, threading.current_thread() is threading.main_thread()]

    variable.set("set by the caller")
    assert await call(where) == '["set by the caller",false]'
    assert variable.get() == "set by the caller"


async def test_a_tool_that_asks_for_no_context_needs_none():
    @tool
    def double(number: int) -> int:
        return 2 * number

    @tool
    async def triple(number: int) -> int:
        return 3 * number

    @tool
    def who(context: ToolContext) -> str:
        return context.session

    assert await double.call({"number": 2}) == "4"
    assert await triple.call({"number": 2}, None) == "6"
    with pytest.raises(InvalidTool, match="asks for a ToolContext"):
        await who.call({})


async def test_sync_tools_do_not_wait_for_one_another():
    together = threading.Barrier(64, timeout=30)

    @tool
    def meet() -> None:
        together.wait()

    assert await asyncio.gather(*(call(meet) for _ in range(64))) == [""] * 64


async def test_a_method_of_an_object_is_a_tool():
    @dataclass
    class Shop:
        stock: int

        def sell(self, amount: int) -> int:
            self.stock -= amount
            return self.stock

        async def count(self) -> int:
            return self.stock

    shop = Shop(5)
    assert await call(tool(shop.sell), amount=2) == "3"
    assert await call(tool(shop.count)) == "3"


async def test_a_wrapped_function_keeps_the_signature_and_may_return_an_awaitable():
    async def add(x: int) -> int:
        return x + 1

    @functools.wraps(add)
    def wrapper(*args: Any, **kwargs: Any) -> Awaitable[int]:
        return add(*args, **kwargs)

    made = tool(wrapper)
    assert list(made.spec.parameters["properties"]) == ["x"]
    assert await call(made, x=1) == "2"


async def test_arguments_are_checked_before_the_function_is_called():
    called: list[int] = []

    @tool
    def note(n: int) -> None:
        called.append(n)

    error = await failure(note, n="1")
    assert isinstance(error, ToolArgumentsInvalid)
    assert str(error) == "the arguments are not valid: Expected `int`, got `str` - at `$.n`"
    assert called == []
    assert await call(note, n=1) == ""
    assert called == [1]


async def test_what_the_model_leaves_out_takes_the_functions_default():
    @tool
    def hello(name: str = "you", times: int = 2) -> str:
        return name * times

    assert await call(hello) == "youyou"
    assert await call(hello, times=1) == "you"


async def test_what_the_tool_does_to_its_arguments_stays_there():
    @tool
    def pop(items: list[int], anything: Any) -> int:
        anything["items"].pop()
        return items.pop()

    arguments = {"items": [1], "anything": {"items": [1]}}
    assert await pop.call(arguments, context()) == "1"
    assert arguments == {"items": [1], "anything": {"items": [1]}}


async def test_the_context_tells_the_call_and_holds_the_state():
    @tool
    async def look(word: str, about: ToolContext) -> str:
        about.state["seen"] = [*about.state.get("seen", []), word]
        ids = f"{about.session} {about.run_id} {about.call_id}"
        return f"{ids} {about.metadata['tenant']}"

    given = context(seen=["a"])
    assert await look.call({"word": "b"}, given) == "ann r1 c1 x"
    assert given.state.changes().set == {"seen": ["a", "b"]}
    with pytest.raises(AttributeError):
        given.session = "bob"  # type: ignore[misc]


def test_a_call_has_the_same_key_each_time_and_no_other_call_has_it():
    about: dict[str, Any] = {
        "session": "s",
        "run_id": "r",
        "step": 1,
        "call_id": "c",
        "path": "",
        "metadata": {},
        "state": State({}),
    }
    others = [
        {"session": "s2"},
        {"run_id": "r2"},
        {"step": 2},
        {"call_id": "c2"},
        {"path": "1:c"},
        {"session": "s:r", "run_id": ""},  # however they are put together
        {"session": "", "run_id": "sr"},
    ]
    keys = {ToolContext(**{**about, **other}).idempotency_key for other in others}
    assert len(keys) == len(others)
    again = {"metadata": {"attempt": "2"}, "headers": {"traceparent": "x"}, "state": State({"a": 1})}
    key = ToolContext(**about).idempotency_key
    assert key == ToolContext(**{**about, **again}).idempotency_key
    assert key not in keys
    assert re.fullmatch("[0-9a-f]{32}", key)


async def test_a_tool_error_reaches_the_model_in_its_own_words():
    @tool
    async def ask() -> None:
        raise ToolError("No such order.\nAsk for the number again.")

    @tool
    def ask_in_thread() -> None:
        raise ToolError("No such order.\nAsk for the number again.")

    for made in (ask, ask_in_thread):
        error = await failure(made)
        assert type(error) is ToolError
        assert str(error) == "No such order.\nAsk for the number again."


class OddError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OddError("went wrong"), "OddError: went wrong"),
        (OddError(), "OddError"),
        (TimeoutError("slow peer"), "TimeoutError: slow peer"),
        (StopIteration(), "StopIteration"),
        (OddError("\ud800"), "OddError: ?"),
        (
            ExceptionGroup("several", [OddError("a"), ExceptionGroup("more", [ValueError("b")])]),
            "OddError: a; ValueError: b",
        ),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
async def test_what_a_sync_tool_raises_becomes_an_error_for_the_model(error, message):
    @tool
    def fail() -> None:
        raise error

    raised = await failure(fail)
    assert type(raised) is ToolFailed
    assert str(raised) == message
    cause = raised.__cause__
    assert cause is error or isinstance(cause, type(error))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OddError("went wrong"), "OddError: went wrong"),
        (TimeoutError(), "TimeoutError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
async def test_what_an_async_tool_raises_becomes_an_error_for_the_model(error, message):
    @tool
    async def fail() -> None:
        raise error

    raised = await failure(fail)
    assert type(raised) is ToolFailed
    assert str(raised) == message


async def test_a_type_error_of_the_body_is_the_tools_failure_not_the_models():
    @tool
    def fail(n: int) -> Any:
        return n + "x"  # type: ignore[operator]

    assert isinstance(await failure(fail, n=1), ToolFailed)


async def test_an_async_tool_past_its_timeout_is_cancelled():
    ended: list[str] = []

    @tool(timeout=0.02)
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    error = await failure(hang)
    assert type(error) is ToolTimeout
    assert str(error) == "the tool did not end within 0.02 seconds"
    assert ended == ["cancelled"]
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_tool_that_fails_while_it_is_timed_out_timed_out():
    @tool(timeout=0.02)
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OddError("in the middle") from None

    assert type(await failure(hang)) is ToolTimeout


async def test_a_sync_tool_past_its_timeout_is_left_behind():
    release = threading.Event()
    state = context(x=1)
    finished = threading.Event()

    @tool(timeout=0.02)
    def hang() -> str:
        release.wait()
        finished.set()
        return "too late"

    with pytest.raises(ToolTimeout):
        await hang.call({}, state)
    release.set()
    assert await asyncio.to_thread(finished.wait, 10)


async def test_hung_sync_tools_take_no_threads_from_others():
    release = threading.Event()

    @tool(timeout=0.02)
    def hang() -> None:
        release.wait()

    @tool(timeout=30)
    def quick() -> str:
        return "quick"

    hung = await asyncio.gather(*(call(hang) for _ in range(64)), return_exceptions=True)
    try:
        assert {type(error) for error in hung} == {ToolTimeout}
        assert await call(quick) == "quick"
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "pool") == "pool"
    finally:
        release.set()


def test_a_hung_sync_tool_does_not_hold_up_the_exit():
    script = """
import asyncio, threading
from atto.agents import State, ToolContext, tool
@tool(timeout=0.02)
def hang() -> None:
    threading.Event().wait()
async def main():
    context = ToolContext(session="s", run_id="r", step=1, call_id="c", metadata={}, state=State({}))
    try:
        await hang.call({}, context)
    except Exception as error:
        print(error)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "the tool did not end within 0.02 seconds\n"


def test_a_thread_that_outlives_its_loop_ends_in_silence():
    release = threading.Event()
    threads: list[threading.Thread] = []

    @tool(timeout=0.02)
    def hang() -> None:
        threads.append(threading.current_thread())
        release.wait()

    async def main() -> None:
        await failure(hang)

    asyncio.run(main())
    release.set()
    threads[0].join(10)
    assert not threads[0].is_alive()
    assert threads[0].name == "atto-tool-hang"


@pytest.mark.parametrize("timeout", [None, 30])
async def test_cancelling_the_caller_cancels_an_async_tool(timeout):
    started = asyncio.Event()
    ended: list[str] = []

    @tool(timeout=timeout)
    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    task = asyncio.create_task(call(hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]
    assert task.cancelled()


async def test_cancelling_the_caller_leaves_a_sync_tool_behind_whose_outcome_is_dropped_in_silence():
    started, release = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    complaints: list[object] = []

    @tool
    def hang() -> None:
        threads.append(threading.current_thread())
        started.set()
        release.wait()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
    try:
        task = asyncio.create_task(call(hang))
        await asyncio.to_thread(started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        await asyncio.to_thread(threads[0].join)  # its outcome reaches the loop before this does
    finally:
        loop.set_exception_handler(None)
    assert complaints == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("threaded", [True, False])
def test_a_tool_does_not_end_the_process(error, threaded):
    def stop() -> None:
        raise error

    async def stop_async() -> None:
        raise error

    with pytest.raises(ToolFailed, match=type(error).__name__):
        asyncio.run(call(tool(stop if threaded else stop_async)))


class Level(str, Enum):  # noqa: UP042 - not the same: it prints as `Level.HIGH`
    HIGH = "high"


@dataclass
class Point:
    x: int
    label: str | None = None


PARTS = (
    TextPart("see"),
    ImagePart(url="https://example.com/a.png"),
    FilePart(data=b"x", media_type="text/plain"),
)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("text", "text"),
        ("", ""),
        ('"quoted"', '"quoted"'),
        (Level.HIGH, "high"),
        (None, ""),
        ("a\ud800b", "a?b"),
        (PARTS[0], PARTS[:1]),
        (PARTS, PARTS),
        (list(PARTS), PARTS),
        ([], "[]"),
        (0, "0"),
        (True, "true"),
        (1.5, "1.5"),
        ([1, "a", None], '[1,"a",null]'),
        ({"ä": Point(1)}, '{"ä":{"x":1,"label":null}}'),
        ([PARTS[0], "text"], '[{"type":"text","text":"see"},"text"]'),
    ],
)
def test_a_result_as_the_model_reads_it(value, result):
    converted = to_result(value)
    assert converted == result
    assert type(converted) is type(result)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_any_json_value_comes_back_from_its_result(value):
    if not isinstance(value, str | None):
        assert json.loads(str(to_result(value))) == value


@pytest.mark.parametrize(
    "value", [object(), [lambda: 1], {"a": "\ud800"}, TextPart("\ud800"), {1, (2, object())}]
)
def test_a_result_without_a_json_form_fails_the_tool(value):
    with pytest.raises(
        ToolFailed, match=rf"the tool returned a {type(value).__name__} that has no JSON form: "
    ):
        to_result(value)


async def test_a_result_without_a_json_form_reaches_the_model_as_an_error():
    @tool
    def handle() -> object:
        return object()

    assert type(await failure(handle)) is ToolFailed


def yields() -> Iterator[int]:
    yield 1


async def yields_async() -> AsyncIterator[int]:
    yield 1


def fine() -> None:
    pass


class Caller:
    def __call__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda: tool(yields), "yields: it yields, but a tool has one result: return a list instead"),
        (lambda: tool(yields_async), "yields_async: it yields"),
        (lambda: tool(lambda: 1), "its name '<lambda>' is not one that models take"),
        (lambda: tool(name="look up")(fine), "its name 'look up' is not"),
        (lambda: tool(name="")(fine), "its name '' is not"),
        (lambda: tool(name="x" * 65)(fine), "is not one that models take"),
        (lambda: tool(name="größe")(fine), "is not one that models take"),
        (lambda: tool(name="x\n")(fine), "is not one that models take"),
        (lambda: tool(timeout=0)(fine), "its timeout is 0: give seconds above 0, or None"),
        (lambda: tool(timeout=-1)(fine), "its timeout is -1"),
        (lambda: tool(timeout=float("nan"))(fine), "its timeout is nan"),
        (lambda: tool(timeout=float("inf"))(fine), "its timeout is inf"),
        (lambda: tool(functools.partial(fine)), "is not a function: a tool is made from a `def`"),
        (lambda: tool(Caller()), "is not a function"),
        (lambda: tool(tool(fine)), "Tool('fine') is not a function"),
        (lambda: tool(int), "is not a function"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(make: Callable[[], object], fragment):
    with pytest.raises(InvalidTool, match=re.escape(fragment)):
        make()


def test_a_name_may_have_64_characters():
    assert tool(name="x" * 64)(fine).name == "x" * 64
