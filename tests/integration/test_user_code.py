"""Users' code dies in every way, wherever it is entered: its run ends, and nothing else does."""

import asyncio

import pytest

from atto import Agent, ScriptedModel, events, tool
from atto.models import FinishChunk, TextChunk, call
from atto.protocol.messages import Origin
from atto.stores import MemoryStore
from atto_client import RunCancelled
from atto_workers import ModelPolicy, RetryPolicy

PATIENCE = 40


class PanicException(BaseException):
    """As pyo3's."""


class Mute(Exception):
    def __str__(self):
        raise PanicException("no words")

    __repr__ = __str__


def raising(error):
    async def die():
        raise error()

    return die


async def cancels_its_own_task():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def awaits_what_is_cancelled():
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


async def fails_in_a_group():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(raising(lambda: PanicException("in a group"))())


DEATHS = {
    "panic": raising(lambda: PanicException("called `Option::unwrap()` on a `None` value")),
    "exit": raising(lambda: SystemExit(3)),
    "keyboard": raising(KeyboardInterrupt),
    "generator": raising(GeneratorExit),
    "stop": raising(lambda: StopIteration(1)),
    "async_stop": raising(StopAsyncIteration),
    "group": raising(lambda: BaseExceptionGroup("g", [PanicException("x"), Mute()])),
    "cancelled": raising(asyncio.CancelledError),
    "timeout": raising(TimeoutError),
    "mute": raising(Mute),
    "recursion": raising(RecursionError),
    "cancels_itself": cancels_its_own_task,
    "awaits_what_is_cancelled": awaits_what_is_cancelled,
    "fails_in_a_group": fails_in_a_group,
}


def dies(text):
    return text.startswith("die")


class Dying:
    """A model that dies where the user says so, before or after its first word."""

    origin = Origin("test", "dying")

    def __init__(self, death, *, spoken=False):
        self._death, self._spoken = death, spoken

    async def stream(self, request):
        last = request.messages[-1]
        if dies(last.text):
            if self._spoken:
                yield TextChunk("half")
            await self._death()
        yield TextChunk(f"answer to {last.text}")
        yield FinishChunk("stop")


def with_tool(death, *, parallel=False, threaded=False):
    @tool
    async def deadly() -> str:
        """Dies."""
        await death()
        return "alive"

    @tool(name="deadly")
    def deadly_in_a_thread() -> str:
        """Dies."""
        asyncio.run(death())
        return "alive"

    def script(request):
        last = request.messages[-1]
        if last.role == "tool":
            return "told: " + str(last.content[0].is_error)
        if dies(last.text):
            both = [call("deadly"), call("deadly"), FinishChunk("tool_calls")]
            return both if parallel else call("deadly")
        return f"answer to {last.text}"

    return Agent("a", ScriptedModel.of(script), tools=[deadly_in_a_thread if threaded else deadly])


def with_instruction(death):
    async def instruction(state):
        if state_says.pop(0, None):
            await death()
        return "x"

    state_says: dict[int, bool] = {0: True}
    return Agent("a", ScriptedModel.of(lambda request: f"answer to {request.messages[-1].text}"), instruction)


AGENTS = {
    "tool": with_tool,
    "tools side by side": lambda death: with_tool(death, parallel=True),
    "tool in a thread": lambda death: with_tool(death, threaded=True),
    "model": lambda death: Agent("a", Dying(death)),
    "model in mid-answer": lambda death: Agent("a", Dying(death, spoken=True)),
    "instruction": with_instruction,
}


class DyingStore(MemoryStore):
    """Dies once in each of its methods, in the session `dying`."""

    def __init__(self, death, method):
        super().__init__()
        self._death, self._method, self._left = death, method, 1

    async def _die(self, method, session):
        if session == "dying" and method == self._method and self._left:
            self._left -= 1
            await self._death()

    async def load(self, session):
        await self._die("load", session)
        return await super().load(session)

    async def save(self, base, commit):
        await self._die("save", base.session)
        saved = await super().save(base, commit)
        await self._die("saved", base.session)
        return saved


async def last_event(run):
    async with asyncio.timeout(PATIENCE):
        return [event async for event in run][-1]


@pytest.mark.parametrize("where", AGENTS)
@pytest.mark.parametrize("death", DEATHS)
async def test_whatever_an_agent_does_costs_its_run_and_nothing_else(worker, client, where, death):
    agent = AGENTS[where](DEATHS[death])
    policy = ModelPolicy(retries=RetryPolicy(tries=1))
    async with worker(agent, models=policy):
        dying = await client.submit("dying", "die")
        following = [await client.submit("dying", f"{n}") for n in range(3)]
        other = await client.submit("other", "hi")
        ended = await last_event(dying)
        assert (await last_event(other)).text == "answer to hi"
        assert [(await last_event(run)).text for run in following] == [f"answer to {n}" for n in range(3)]
        versions = [(await run.result()).version for run in following]
        assert versions == sorted(versions)
    if where.startswith("tool"):
        assert isinstance(ended, events.RunCompleted)
        assert ended.text == "told: True"
    else:
        assert isinstance(ended, events.RunFailed)


@pytest.mark.parametrize("method", ["load", "save", "saved"])
@pytest.mark.parametrize("death", DEATHS)
async def test_whatever_a_store_does_costs_its_run_at_the_most(worker, client, method, death):
    store = DyingStore(DEATHS[death], method)
    async with worker(lambda request: f"answer to {request.messages[-1].text}", store=store):
        dying = await client.submit("dying", "die")
        following = [await client.submit("dying", f"{n}") for n in range(3)]
        other = await client.submit("other", "hi")
        ended = await last_event(dying)
        assert (await last_event(other)).text == "answer to hi"
        assert [(await last_event(run)).text for run in following] == [f"answer to {n}" for n in range(3)]
        versions = [(await run.result()).version for run in following]
        snapshot = await client.snapshot("dying")
    assert isinstance(ended, events.RunCompleted | events.RunFailed)
    records = [record for record in snapshot.runs if record.run_id == dying.run_id]
    assert versions == [ended.version + n for n in (1, 2, 3)]
    assert [record.version for record in records] == [ended.version] * len(records)
    assert len(records) == (method != "load")  # before which nothing had begun
    if method == "saved":
        assert records[0].ended == "completed"


@pytest.mark.parametrize("how", ["swallows", "transforms", "fails in its clean-up", "answers"])
async def test_a_cancelled_run_ends_whatever_its_tool_makes_of_it(worker, client, how):
    began = asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Does not want to end."""
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "transforms":
                raise ValueError("as it was let go") from None
            if how == "answers":
                return "done in spite"
            if how == "swallows":
                await asyncio.Event().wait()
            raise
        finally:
            if how.startswith("fails"):
                raise KeyError("in the clean-up")
        return ""

    def script(request):
        return "went on" if request.messages[-1].role == "tool" else call("stubborn")

    async with worker(Agent("a", ScriptedModel.of(script), tools=[stubborn])):
        run = await client.submit("s", "go")
        await began.wait()
        await run.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await run.result()
        assert (await client.snapshot("s")).runs[-1].ended == "cancelled"


@pytest.mark.parametrize("how", ["swallows", "transforms"])
async def test_a_cancelled_run_ends_whatever_its_model_makes_of_it(worker, client, how):
    began = asyncio.Event()

    class Stubborn:
        origin = Origin("test", "stubborn")

        async def stream(self, request):
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if how == "transforms":
                    raise ValueError("as it was let go") from None
            yield TextChunk("in spite")
            yield FinishChunk("stop")

    async with worker(Agent("a", Stubborn())):
        run = await client.submit("s", "go")
        await began.wait()
        await run.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await run.result()
        assert (await client.snapshot("s")).runs[-1].ended == "cancelled"


@pytest.mark.parametrize("bound", [None, 30.0])
async def test_an_agent_that_is_asked_and_raises_a_timeout_did_not_meet_ours(worker, client, bound):
    inner = Agent("inner", Dying(raising(lambda: TimeoutError("its own"))), description="Dies.")

    def script(request):
        last = request.messages[-1]
        return str(last.content[0].content) if last.role == "tool" else call("inner", input="die")

    agent = Agent("a", ScriptedModel.of(script), tools=[inner.as_tool(timeout=bound)])
    async with worker(agent):
        text = (await client.run("s", "go").result()).text
    assert "its own" in text
    assert "did not answer within" not in text


async def test_a_model_that_cannot_be_closed_does_not_keep_the_worker(worker, client, caplog):
    class Open(Dying):
        async def aclose(self):
            raise PanicException("stays open")

    async with worker(Agent("a", Open(raising(ValueError)))):
        assert (await client.run("s", "hi").result()).text == "answer to hi"
    assert "was not closed: PanicException: stays open" in caplog.text
