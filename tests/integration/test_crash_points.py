"""A worker that dies at any point of a run, before or after anything that it writes: one commit, one end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import pytest
from nats.aio.msg import Msg

from atto import Agent, ToolContext, tool
from atto.broker.jetstream import JetStream
from atto.models import Fail, FinishChunk, ScriptedModel, Stall, TextChunk, call
from atto.protocol import codec
from atto.protocol.errors import ModelError
from atto.protocol.events import RunStarted, is_terminal
from atto.protocol.merge import Merger
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Turn
from atto.stores import MemoryStore, NatsKvStore, SqliteStore
from atto_workers import Topology
from atto_workers.delivery import Claim, Delivery, Place
from atto_workers.gateway import ModelGateway
from atto_workers.ownership import Tenure
from atto_workers.passivation import Resident
from atto_workers.run.acknowledging import Acknowledgements
from atto_workers.run.evidence import EventsPast
from atto_workers.run.outbox import Outbox
from atto_workers.run.runner import TurnRunner
from atto_workers.run.scope import RunScope, StopReason
from tests.integration.histories import check_history

PATIENCE = 30
SESSION = "s"
ENDS = ("completed", "failed", "failed without an effect", "cancelled")
WRITES = ("publish", "publish_soon", "send", "post", "save")


class Life:
    """How many writes a worker has left before it dies: each has a point before it and one after it."""

    def __init__(self, points: int | None) -> None:
        self._left = points
        self.died = asyncio.Event()

    async def pass_(self) -> None:
        """Nothing is done any more after the last point."""
        if self._left is not None and not self.died.is_set():
            self._left -= 1
            if self._left < 0:
                self.died.set()
        if self.died.is_set():
            await asyncio.Event().wait()


class Mortal:
    """`wrapped`, a JetStream or a store, of a worker that dies."""

    def __init__(self, wrapped, life: Life) -> None:
        self._wrapped = wrapped
        self._life = life

    def __getattr__(self, name):
        method = getattr(self._wrapped, name)
        if name not in WRITES:
            return method

        async def written(*arguments, **keywords):
            await self._life.pass_()
            result = await method(*arguments, **keywords)
            await self._life.pass_()
            return result

        return written


class Cancelled:
    """The cancellations that a worker hears of: one, once it `was_asked`."""

    def __init__(self) -> None:
        self.was_asked = False
        self._scope: RunScope | None = None

    async def watch(self, _: Delivery, scope: RunScope) -> None:
        self._scope = scope
        if self.was_asked:
            scope.stop(StopReason.CANCELLED, "enough")

    def unwatch(self, *_: object) -> None:
        self._scope = None

    def ask(self) -> None:
        self.was_asked = True
        if self._scope is not None:
            self._scope.stop(StopReason.CANCELLED, "enough")


class Scene:
    """One run, and the workers that it is delivered to, one after another."""

    def __init__(self, jetstream: JetStream, subjects: Subjects, store, end: str, run_id: str) -> None:
        self.effects: list[str] = []
        self.store = store
        self._jetstream = jetstream
        self._subjects = subjects
        self._end = end
        self._cancels = Cancelled()
        self._run_id = run_id
        self._accepted_ms = time.time_ns() // 1_000_000
        self._turn = codec.encode(Turn(input=f"do {run_id}", run_id=run_id))

    def agent(self) -> Agent:
        @tool
        async def note(context: ToolContext) -> str:
            """Leaves a trace."""
            self.effects.append(context.idempotency_key)
            context.state["notes"] = context.state.get("notes", 0) + 1
            return "noted"

        def model(request):
            if request.messages[-1].role == "user" and self._end != "failed without an effect":
                return call("note")
            match self._end:
                case "completed":
                    return [TextChunk("so "), TextChunk("far"), FinishChunk("stop")]
                case "cancelled":
                    asyncio.get_running_loop().call_soon(self._cancels.ask)
                    return [TextChunk("so "), Stall()]
                case _:
                    return [TextChunk("so "), Fail(ModelError("forbidden"))]

        return Agent("noting", ScriptedModel.of(model), tools=[note])

    async def live(self, number: int, points: int | None) -> bool:
        """Worker `number` has the run until it dies after so many points; whether it did."""
        life = Life(points)
        jetstream = Mortal(self._jetstream, life)
        outbox = Outbox(jetstream)
        claim = Claim(0, Tenure(f"owner-{number}", f"delivery-{number}", number * 10), 0)
        runner = TurnRunner(
            self.agent(),
            Mortal(self.store, life),
            jetstream=jetstream,
            subjects=self._subjects,
            outbox=outbox,
            past=EventsPast(self._jetstream, self._subjects),
            acknowledgements=Acknowledgements(jetstream, is_replicated=False),
            cancels=self._cancels,
            gateway=ModelGateway(),
            verify=_stands,
            assure=_stands,
        )
        subject = f"{self._subjects.namespace}.turn.0.{SESSION}"
        message = Msg(self._jetstream.connection, subject, "nobody.hears", self._turn, None)
        place = Place("owner", number, 1, 1, self._accepted_ms)
        delivery = Delivery(claim, place, message, self._subjects)
        serving = asyncio.create_task(outbox.serve())
        running = asyncio.create_task(runner.run(delivery, Resident(claim), RunScope()))
        dying = asyncio.create_task(life.died.wait())
        try:
            await asyncio.wait([running, dying], return_when=asyncio.FIRST_COMPLETED)
            if not life.died.is_set():
                await running
        finally:
            for task in (running, serving, dying):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        return life.died.is_set()

    async def heard(self):
        """All that a listener is handed who comes when everything is over."""
        subject = self._subjects.event(SESSION, self._run_id)
        reading = self._jetstream.read_to_end(self._subjects.events_stream, subject)
        batches = [codec.decode_batch(stored.data) async for stored in reading]
        merger, said = Merger(), []
        for batch in batches * 2:
            for event in merger.add(batch):
                said = [*(before for before in said if before.seq < event.seq), event]
        return said


async def _stands(_: Claim) -> bool:
    return True


@pytest.fixture
async def store(request, jetstream, namespace, tmp_path) -> AsyncGenerator:
    match request.param:
        case "memory":
            yield MemoryStore()
        case "sqlite":
            async with SqliteStore(tmp_path / "sessions.db") as store:
                yield store
        case _:
            store = NatsKvStore(jetstream, namespace)
            await store.declare()
            yield store


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("store", ["memory", "sqlite", "nats-kv"], indirect=True)
async def test_wherever_a_worker_dies_its_run_ends_once(jetstream, namespace, store, end):
    await Topology(namespace, partitions=1).declare(jetstream)
    subjects, point, has_died = Subjects(namespace), 0, True
    async with asyncio.timeout(10 * PATIENCE):
        while has_died:
            scene = Scene(jetstream, subjects, store, end, f"r{point}")
            has_died = await scene.live(1, point)
            await _ends_once(scene, end, f"r{point}")
            point += 1
    assert point > 8  # or nothing was tried


async def _ends_once(scene: Scene, end: str, run_id: str) -> None:
    await scene.live(2, None)
    before = await scene.store.load(SESSION)
    said = await scene.heard()
    await scene.live(3, None)
    snapshot = await scene.store.load(SESSION)
    assert snapshot == before or snapshot.version == before.version
    assert await scene.heard() == said
    assert [event.seq for event in said] == list(range(1, len(said) + 1))
    assert [event for event in said if is_terminal(event)] == said[-1:]
    records = [record for record in snapshot.runs if record.run_id == run_id]
    has_begun = any(isinstance(event, RunStarted) for event in said)
    assert len(records) == has_begun
    assert len(set(scene.effects)) == (end != "failed without an effect")
    check_history(snapshot.messages, is_finished=False)
