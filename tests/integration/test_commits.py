"""Exactly one commit a run, whatever the store, the broker or another writer does."""

import asyncio

import pytest

from atto import Agent, ToolContext, events, tool
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk, call
from atto.protocol.errors import ConcurrentWrite, StoreCorrupt, StoreUnavailable
from atto.protocol.events import StateChange
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import MemoryStore
from atto_client import RunFailed
from atto_workers.run import commit as commits
from tests.integration.test_bad_input import dead_letters


class Faulty(MemoryStore):
    """Fails as its queues of faults say: `before` leaves nothing, `after` has saved and lost the reply."""

    def __init__(self, *, load=(), before=(), after=()) -> None:
        super().__init__()
        self.load_faults, self.before_faults, self.after_faults = list(load), list(before), list(after)
        self.saves = 0

    async def load(self, session: str) -> Snapshot | None:
        if self.load_faults:
            raise self.load_faults.pop(0)
        return await super().load(session)

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        self.saves += 1
        if self.before_faults:
            raise self.before_faults.pop(0)
        saved = await super().save(base, commit)
        if self.after_faults:
            raise self.after_faults.pop(0)
        return saved


def count(request):
    return str(sum(message.role == "user" for message in request.messages))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(commits, "_PAUSE", 0.0)


async def test_a_failed_save_rolls_back_and_the_next_turn_starts_from_what_is_committed(worker, client):
    @tool
    def remember(context: ToolContext) -> str:
        """Changes the state."""
        context.state["seen"] = context.state.get("seen", 0) + 1
        return "ok"

    def model(request):
        return call("remember") if request.messages[-1].role == "user" else count(request)

    store = Faulty(before=[StoreUnavailable("down")] * commits.STORE_TRIES)
    async with worker(Agent("counter", ScriptedModel.of(model), tools=[remember]), store=store):
        with pytest.raises(RunFailed, match="down") as failure:
            await client.run("s", "lost").result()
        result = await client.run("s", "kept").result()
        snapshot = await client.snapshot("s")
    assert failure.value.reason == "store_error"
    assert failure.value.retryable
    assert result.text == "1"
    assert (snapshot.version, snapshot.state) == (1, {"seen": 1})
    assert [message.text for message in snapshot.messages if message.role == "user"] == ["kept"]


async def test_a_save_whose_reply_was_lost_is_not_done_twice(worker, client):
    model = ScriptedModel.of(count)
    store = Faulty(after=[StoreUnavailable("the reply was lost")])
    async with worker(model, store=store):
        assert (await client.run("s", "hi").result()).version == 1
        assert (await client.run("s", "hi").result()).version == 2
    assert store.saves == 2
    assert len(model.requests) == 2


async def test_a_store_that_is_down_for_a_moment_costs_a_moment(worker, client):
    store = Faulty(load=[StoreUnavailable("down")] * 3, before=[StoreUnavailable("down")] * 3)
    model = ScriptedModel.of(count)
    async with worker(model, store=store):
        assert (await client.run("s", "hi").result()).text == "1"
    assert len(model.requests) == 1


async def test_a_session_that_cannot_be_read_fails_its_turns_and_is_left_as_it_is(
    worker, client, jetstream, namespace
):
    store = Faulty(load=[StoreCorrupt("not JSON")])
    async with worker(count, store=store):
        with pytest.raises(RunFailed, match="not JSON"):
            await client.run("s", "hi").result()
        assert (await client.run("s", "hi").result()).text == "1"
        [(where, headers, _)] = await dead_letters(jetstream, namespace)
    assert (where, headers["Atto-Code"]) == ("s", "store_error")
    assert store.saves == 1


async def test_a_turn_whose_session_another_writer_changed_runs_again_on_top_of_that(worker, client):
    gate, reached = asyncio.Event(), asyncio.Event()
    stalls = [Stall(gate, reached)]

    def model(request):
        return [TextChunk(count(request)), *stalls[:1], FinishChunk("stop")]

    store = MemoryStore()
    async with worker(model, store=store):
        run = await client.submit("s", "mine")
        await reached.wait()
        stalls.clear()
        foreign = Commit(run_id="foreign", messages=(Message.user("theirs"), Message.assistant("1")))
        await store.save(Snapshot(session="s"), foreign)
        gate.set()
        seen = [event async for event in run]
        snapshot = await client.snapshot("s")
    assert seen[-1].version == 2
    assert seen[-1].text == "2"
    restarted = [event for event in seen if isinstance(event, events.StepRestarted)]
    assert restarted[0].step == 1
    assert [message.text for message in snapshot.messages] == ["theirs", "1", "mine", "2"]


async def test_a_stale_version_is_refused(worker, client):
    store = MemoryStore()
    base = Snapshot(session="s")
    saved = await store.save(base, Commit(run_id="a", messages=(Message.user("x"),)))
    with pytest.raises(ConcurrentWrite):
        await store.save(base, Commit(run_id="b", messages=(), change=StateChange(set={"k": 1})))
    assert (await store.load("s")).messages == saved.messages


async def test_a_committed_run_that_is_delivered_again_is_answered_and_not_executed(
    worker, client, jetstream, namespace
):
    """The worker died between the commit and the terminal event: the commit is there, its event is not."""
    store, model = MemoryStore(), ScriptedModel.of(count)
    async with worker(model, store=store):
        pass
    answer = (Message.user("hi"), Message.assistant("committed"))
    await store.save(Snapshot(session="s"), Commit(run_id="run-1", messages=answer))
    run = await client.submit("s", "hi", run_id="run-1")
    async with worker(model, store=store):
        seen = [event async for event in run]
        result = await run.result()
        assert (await client.run("s", "more").result()).version == 2
    assert (result.text, result.version) == ("committed", 1)
    assert "".join(event.text for event in seen if isinstance(event, events.TextDelta)) == "committed"
    assert len(model.requests) == 1


async def test_if_another_worker_commits_the_same_run_its_answer_is_the_one_that_listeners_keep(
    worker, client
):
    """What a paused worker that wakes up can do to the one that took its partition over."""
    gate, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel.of(lambda _: [TextChunk("mine"), Stall(gate, reached), FinishChunk("stop")])
    store = MemoryStore()
    async with worker(model, store=store):
        run = await client.submit("s", "hi")
        await reached.wait()
        answer = (Message.user("hi"), Message.assistant("theirs"))
        await store.save(Snapshot(session="s"), Commit(run_id=run.run_id, messages=answer))
        gate.set()
        seen = [event async for event in run]
        snapshot = await client.snapshot("s")
    assert (seen[-1].text, seen[-1].version) == ("theirs", 1)
    assert snapshot.version == 1
    voided = max(at for at, event in enumerate(seen) if isinstance(event, events.StepRestarted))
    assert [event.text for event in seen[voided:] if isinstance(event, events.TextDelta)] == ["theirs"]


async def test_a_run_that_ended_is_only_acknowledged_when_its_turn_comes_again(
    worker, client, jetstream, namespace
):
    """The broker has forgotten the id, so a repeated submit is a turn of its own."""
    model = ScriptedModel.of(lambda _: "once")
    async with worker(model):
        first = [event async for event in await client.submit("s", "hi", run_id="run-1")]
        await jetstream.publish(f"{namespace}.turn.s", b'{"input":"hi","run_id":"run-1"}')
        assert (await client.run("s", "more").result()).version == 2
        again = [event async for event in client.attach("s", "run-1")]
    assert first == again
    assert len(model.requests) == 2


async def test_a_turn_that_takes_its_worker_down_again_and_again_is_a_dead_letter(
    worker, client, jetstream, namespace
):
    model = ScriptedModel.of(count)
    async with worker(model):
        pass
    run = await client.submit("s", "poison", run_id="poison")
    for attempt in range(1, 6):  # what five dead workers left behind
        body = (
            f'{{"v":2,"attempt":{attempt},"since":{attempt},"events":[{{"type":"run_started",'
            f'"seq":{attempt},"attempt":{attempt},"time":"2026-01-01T00:00:00Z","agent":"tester"}}]}}'
        )
        await jetstream.publish(f"{namespace}.event.s.poison", body.encode())
    async with worker(model):
        with pytest.raises(RunFailed, match="5 times") as failure:
            await run.result()
        assert (await client.run("s", "next").result()).text == "1"
        [(_, headers, data)] = await dead_letters(jetstream, namespace)
    assert failure.value.reason == headers["Atto-Code"] == "attempts_exhausted"
    assert b"poison" in data


async def test_attempts_that_their_worker_let_go_of_do_not_count(worker, client, jetstream, namespace):
    model = ScriptedModel.of(count)
    async with worker(model):
        pass
    run = await client.submit("s", "hi", run_id="r")
    for attempt in range(1, 11):
        first = 2 * attempt - 1
        body = (
            f'{{"v":2,"attempt":{attempt},"since":{first},"events":[{{"type":"run_started","seq":{first},'
            f'"attempt":{attempt},"time":"2026-01-01T00:00:00Z","agent":"tester"}},'
            f'{{"type":"run_interrupted","seq":{first + 1},"reason":"x"}}]}}'
        )
        await jetstream.publish(f"{namespace}.event.s.r", body.encode())
    async with worker(model):
        assert (await run.result()).text == "1"


async def test_an_answer_in_one_huge_piece_is_cut_into_deltas(worker, client):
    async with worker(lambda _: [TextChunk("x" * 500_000), FinishChunk("stop")]):
        seen = [event async for event in client.run("s", "hi")]
    deltas = [event.text for event in seen if isinstance(event, events.TextDelta)]
    assert len(deltas) > 10
    assert "".join(deltas) == seen[-1].text == "x" * 500_000


async def test_an_answer_beyond_the_message_size_fails_its_run(worker, client):
    answers = [[TextChunk("x" * 1_500_000), FinishChunk("stop")], "fine"]
    async with worker(ScriptedModel(*answers)):
        with pytest.raises(RunFailed, match="ask for less") as failure:
            await client.run("s", "hi").result()
        assert (await client.run("s", "hi").result()).text == "fine"
    assert failure.value.reason == "model_error"


async def test_what_a_defect_says_travels_whatever_it_is(worker, client, jetstream, namespace):
    class Odd(MemoryStore):
        async def save(self, base, commit):
            raise RuntimeError("\ud800" + "x" * 2_000_000)

    async with worker(count, store=Odd()):
        with pytest.raises(RunFailed) as failure:
            await client.run("s", "hi").result()
        [(_, headers, _)] = await dead_letters(jetstream, namespace)
    assert failure.value.reason == headers["Atto-Code"] == "internal"


async def test_what_an_agent_does_wrong_fails_its_run_and_nothing_else(worker, client):
    def instruction(state):
        raise KeyError("oops")

    model = ScriptedModel.of(count)
    async with worker(Agent("broken", model, instruction)):
        with pytest.raises(RunFailed, match="KeyError") as failure:
            await client.run("s", "hi").result()
    assert failure.value.reason == "agent_error"


async def test_max_steps_ends_a_run_that_never_answers(worker, client):
    @tool
    def again() -> str:
        """Asks for more."""
        return "again"

    async with worker(Agent("loop", ScriptedModel.of(lambda _: call("again")), tools=[again], max_steps=3)):
        with pytest.raises(RunFailed, match="3 steps") as failure:
            await client.run("s", "hi").result()
        snapshot = await client.snapshot("s")
    assert [message.role for message in snapshot.messages] == ["user", *["assistant", "tool"] * 3]
    assert (snapshot.runs[-1].ended, snapshot.runs[-1].code) == ("failed", "max_steps")
    assert failure.value.reason == "max_steps"
