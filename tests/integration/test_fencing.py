"""A former owner that was paused at the worst moment: its commit and its last words come too late."""

import asyncio
import contextlib

import pytest

from atto import events
from atto.models import ScriptedModel
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import MemoryStore
from atto_workers import steward

PATIENCE = 20.0


class Held(MemoryStore):
    """Holds a save back, as a stalled connection does, from when `gate` is given until it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: asyncio.Event | None = None
        self.held = asyncio.Event()
        self.refused: list[Exception] = []

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        if self.gate is not None:
            self.held.set()
            with contextlib.suppress(TimeoutError):  # a test that fails may end
                async with asyncio.timeout(PATIENCE):
                    await self.gate.wait()
        try:
            return await super().save(base, commit)
        except Exception as error:
            self.refused.append(error)
            raise


def echo(request):
    return f"answer to {request.messages[-1].text}"


@pytest.mark.parametrize("version", [0, 1])
async def test_a_save_on_its_way_does_not_commit_a_run_that_the_next_owner_has_ended(
    worker, client, monkeypatch, version
):
    monkeypatch.setattr(steward, "STOP_PATIENCE", 0.1)
    first_store, second_store = Held(), MemoryStore()
    second_store._sessions = first_store._sessions
    async with asyncio.timeout(PATIENCE), worker(echo, store=first_store, grace=0.1) as first:
        for _ in range(version):
            await client.run("s", "before").result()
        first_store.gate = asyncio.Event()
        run = await client.submit("s", "late")
        await first_store.held.wait()
        paused = [task for task in asyncio.all_tasks() if task.get_name() in {"steward", "presence"}]
        assert len(paused) == 2
        for task in paused:
            task.cancel()  # it takes nothing any more, as a paused worker
        await asyncio.wait(paused)
        await first._steward.release_all()
        await run.cancel("enough")
        async with worker(echo, store=second_store):
            seen = [event async for event in run]
            first_store.gate.set()
            async with asyncio.timeout(10):
                while not first_store.refused:
                    await asyncio.sleep(0.01)
            following = await client.run("s", "next").result()
    assert isinstance(seen[-1], events.RunCancelled)
    assert (following.text, following.version) == ("answer to next", version + 2)
    stored = await second_store.load("s")
    assert [message.text for message in stored.messages[-3:]] == ["answer to late", "next", "answer to next"]
    assert stored.record(run.run_id).ended == "cancelled"


async def test_the_last_words_of_a_former_owner_stand_if_they_came_before_the_next_one_spoke(
    worker, client, jetstream, namespace
):
    """Whoever listened has heard them and left: the run must not go on and end otherwise."""
    words = (
        b'{"v":2,"attempt":1,"since":1,"events":[{"type":"run_failed","seq":2,"code":"model_error",'
        b'"message":"the former owner","time":"2026-01-01T00:00:00Z"}]}'
    )

    class Late(MemoryStore):
        """A load happens after the next owner has read the events, and before it speaks."""

        async def load(self, session: str) -> Snapshot | None:
            await jetstream.publish(f"{namespace}.event.s.r", words)
            return await super().load(session)

    model = ScriptedModel.of(echo)
    async with worker(model):
        pass
    started = (
        b'{"v":2,"attempt":1,"since":1,"events":[{"type":"run_started","seq":1,"attempt":1,'
        b'"time":"2026-01-01T00:00:00Z","agent":"tester"}]}'
    )
    run = await client.submit("s", "hi", run_id="r")
    await jetstream.publish(f"{namespace}.event.s.r", started)
    heard = asyncio.create_task(_last(run))
    async with asyncio.timeout(PATIENCE), worker(model, store=Late()):
        assert (await heard).message == "the former owner"
        following = await client.run("s", "next").result()
        late = await _last(client.attach("s", "r"))
    assert (late.code, late.message) == ("model_error", "the former owner")
    assert following.version == 1
    assert [request.messages[-1].text for request in model.requests] == ["next"]


async def _last(run):
    return [event async for event in run][-1]
