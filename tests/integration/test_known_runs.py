"""A run id that comes again runs no second time, whatever clocks say; a lost journal ends with words."""

import asyncio
import logging
from pathlib import Path

import pytest
from nats.aio.client import Client as Connection

from atto import Agent, ScriptedModel, ToolContext, events, tool
from atto.broker import requests
from atto.models import call
from atto.protocol.codec import encode
from atto.protocol.errors import RunFailed, SessionBacklogFull
from atto.protocol.ids import _uuid7, new_run_id
from atto.protocol.sessions import Commit, Snapshot
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Turn
from atto.stores import MemoryStore
from atto_workers import Runtime, Topology, Worker
from tests.integration.proxy import Proxy

PATIENCE = 60.0


class Shop:
    """Charges, then fails: nothing of its runs is committed."""

    def __init__(self, *, fails: bool = True) -> None:
        self.charged: list[str] = []
        self.fails = fails
        self.agent = Agent(
            "shop", ScriptedModel.of(self._answer), tools=[tool(at_most_once=True)(self.charge)]
        )

    async def charge(self, context: ToolContext) -> str:
        """Charges a card."""
        self.charged.append(context.idempotency_key)
        return "charged"

    def _answer(self, request):
        if request.messages[-1].role == "user":
            return call("charge")
        if self.fails:
            raise RuntimeError("the model is broken for good")
        return "done"


async def heard(run) -> list[events.AnyEvent]:
    return [event async for event in run]


def run_ids() -> dict[str, str]:
    ahead = 150_000 + int(new_run_id().replace("-", "")[:12], 16)
    return {"new": new_run_id(), "of the future": _uuid7(ahead, 0, 7), "not a UUID": "order-7"}


@pytest.mark.parametrize("kind", ["new", "of the future", "not a UUID"])
async def test_a_failed_run_is_answered_from_its_events_after_a_restart(tmp_path: Path, kind):
    shop, run_id = Shop(), run_ids()[kind]
    async with asyncio.timeout(PATIENCE):
        async with Runtime(shop.agent, data_dir=tmp_path) as runtime:
            first = await heard(runtime.run("ann", "pay", run_id=run_id))
        async with Runtime(shop.agent, data_dir=tmp_path) as runtime:  # which has forgotten the id
            again = await heard(runtime.run("ann", "pay", run_id=run_id))
            late = await heard(runtime.attach("ann", run_id))
    assert isinstance(first[-1], events.RunFailed)
    assert again[-1] == late[-1] == first[-1]
    assert late == first
    assert len(shop.charged) == 1


async def test_two_turns_of_one_run_id_are_one_run_without_a_message_id_too(
    worker, client, jetstream, namespace
):
    """Any producer may leave it out, and then the broker drops no repetition."""
    shop, run_id = Shop(), new_run_id()
    turn = encode(Turn(input="pay", run_id=run_id))
    async with asyncio.timeout(PATIENCE), worker(shop.agent):
        for _ in range(3):
            await jetstream.publish(Subjects(namespace).turn("s"), turn)
        await heard(client.attach("s", run_id))
        await client.submit("s", "pay")  # after which the others have been taken
        while await backlog(jetstream, namespace):
            await asyncio.sleep(0.01)
        seen = await heard(client.attach("s", run_id))
    assert sum(map(events.is_terminal, seen)) == 1
    assert len(shop.charged) == 2  # one of either run


async def test_two_submits_of_one_run_are_one_run_and_leave_the_backlog(worker, client, jetstream, namespace):
    """Each is a message of its own to the broker; also while the first one runs."""
    shop, run_id = Shop(fails=False), new_run_id()
    async with asyncio.timeout(PATIENCE), worker(shop.agent):
        runs = [await client.submit("s", "pay", run_id=run_id) for _ in range(5)]
        answers = [await run.result() for run in runs]
        again = await heard(client.run("s", "pay", run_id=run_id))
        while await backlog(jetstream, namespace):
            await asyncio.sleep(0.01)
        late = await heard(client.attach("s", run_id))
        snapshot = await client.snapshot("s")
    assert answers == [again[-1]] * 5
    assert late == again
    assert sum(map(events.is_terminal, late)) == 1
    assert len(shop.charged) == 1
    assert snapshot.version == 1


async def test_a_message_id_that_somebody_used_first_keeps_no_turn_from_being_run(
    worker, client, jetstream, namespace
):
    """The broker says that it has what it has seen under the same id, whatever it was."""
    run_id, subjects = new_run_id(), Subjects(namespace)
    async with asyncio.timeout(PATIENCE), worker(lambda request: request.messages[-1].text):
        for guessed in (f"victim.{run_id}", run_id, f"victim.{run_id}.", f"victim.{run_id}.00"):
            for subject in (subjects.turn("attacker"), subjects.turn("victim")):
                body = encode(Turn(input="mine"))
                await jetstream.publish(subject, body, headers={"Nats-Msg-Id": guessed})
        answer = await (await client.submit("victim", "pay", run_id=run_id)).result()
    assert answer.text == "pay"


async def backlog(jetstream, namespace) -> int:
    info = await jetstream.api(f"STREAM.INFO.{Subjects(namespace).turns_stream}")
    return int(info.partition(b'"messages":')[2].partition(b",")[0])


@pytest.mark.leaves_consumers
@pytest.mark.parametrize("how", ["purged", "made again"])
async def test_a_run_whose_journal_is_gone_ends_with_words_and_without_a_second_effect(
    broker, namespace, worker, client, jetstream, how
):
    reached, charged = asyncio.Event(), []

    @tool(at_most_once=True)
    async def charge(context: ToolContext) -> str:
        """Charges a card."""
        charged.append(context.idempotency_key)
        reached.set()
        await asyncio.sleep(0 if len(charged) > 1 else 3600)
        return "charged"

    agent = Agent("shop", ScriptedModel.of(lambda _: call("charge")), tools=[charge])
    stream = Subjects(namespace).events_stream
    async with asyncio.timeout(PATIENCE), Proxy(broker.url) as proxy:
        first = Worker(agent, nats=proxy.url, topology=Topology(namespace, partitions=4), grace=0.1)
        async with first:
            run = await client.submit("s", "pay")
            await reached.wait()
            proxy.stall()
            if how == "purged":
                await jetstream.api(f"STREAM.PURGE.{stream}")
            else:
                await jetstream.api(f"STREAM.DELETE.{stream}")
                await Topology(namespace).declare(jetstream)
            async with worker(agent):
                with pytest.raises(RunFailed) as failure:
                    await run.result()
                proxy.flow()
            proxy.cut()
    assert failure.value.reason == "journal_lost"
    assert len(charged) == 1


async def test_a_session_that_is_deleted_under_a_run_with_an_effect_ends_it_with_words(worker, client):
    store, shop = MemoryStore(), Shop(fails=False)
    gate, reached = asyncio.Event(), asyncio.Event()

    @tool(at_most_once=True)
    async def charge(context: ToolContext) -> str:
        """Charges a card."""
        shop.charged.append(context.idempotency_key)
        reached.set()
        await gate.wait()
        return "charged"

    def answer(request):
        last = request.messages[-1]
        return call("charge") if last.role == "user" and last.text == "pay" else "done"

    agent = Agent("shop", ScriptedModel.of(answer), tools=[charge])
    async with asyncio.timeout(PATIENCE), worker(agent, store=store):
        await client.run("s", "hello").result()
        run = await client.submit("s", "pay")
        await reached.wait()
        await store.delete("s")
        gate.set()
        with pytest.raises(RunFailed) as failure:
            await run.result()
        assert await store.load("s") is None
        assert (await client.run("s", "hello").result()).version == 1
    assert failure.value.reason == "session_deleted"
    assert len(shop.charged) == 1


async def test_another_writer_does_not_make_a_run_repeat_its_effects(worker, client):
    store, shop = MemoryStore(), Shop(fails=False)

    class Overtaken(MemoryStore):
        overtakes = 1

        async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
            if self.overtakes:
                self.overtakes -= 1
                current = await self.load("s") or Snapshot(session="s")
                await super().save(current, Commit(run_id="theirs", messages=commit.messages))
            return await super().save(base, commit)

    store = Overtaken()
    async with asyncio.timeout(PATIENCE), worker(shop.agent, store=store):
        seen = await heard(client.run("s", "pay"))
    assert isinstance(seen[-1], events.RunCompleted)
    assert seen[-1].version == 2
    assert len(shop.charged) == 1


async def test_an_acknowledgement_that_was_lost_with_its_connection_is_repeated(
    broker, namespace, client, monkeypatch
):
    """The session takes one turn at a time: it would be held up until the broker delivers the turn again."""
    publish = Connection.publish
    async with asyncio.timeout(PATIENCE), Proxy(broker.url) as proxy:

        async def losing(self, subject, payload=b"", *arguments, **options):
            if payload == b"+ACK" and self.connected_url.port == int(proxy.url.rpartition(":")[2]):
                monkeypatch.undo()
                proxy.cut()
                return
            await publish(self, subject, payload, *arguments, **options)

        monkeypatch.setattr(Connection, "publish", losing)
        monkeypatch.setattr(requests, "sent", lambda *_: False)  # so that all goes by `publish`
        topology = Topology(namespace, partitions=4, backlog=1)
        agent = Agent("a", ScriptedModel.of(lambda _: "hello"))
        async with Worker(agent, nats=proxy.url, topology=topology, grace=5.0):
            await client.run("s", "one").result()
            began = asyncio.get_running_loop().time()
            while True:
                try:
                    await client.run("s", "two").result()
                    break
                except SessionBacklogFull:
                    await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() - began < 30


@pytest.mark.parametrize("how", ["deleted", "full", "taken away"])
async def test_a_stream_that_takes_no_events_is_told_and_runs_go_on_when_it_does(
    worker, client, jetstream, namespace, how, caplog
):
    caplog.set_level(logging.WARNING, "atto.worker")
    subjects = Subjects(namespace)
    stream = subjects.events_stream
    async with asyncio.timeout(PATIENCE), worker(lambda _: "word " * 200) as running:
        assert await running.unready() is None
        if how == "deleted":
            await jetstream.api(f"STREAM.DELETE.{stream}")
        else:
            config = {"name": stream, "subjects": [subjects.events, subjects.fences], "allow_direct": True}
            config |= {
                "retention": "limits",
                "storage": "file",
                "num_replicas": 1,
                "allow_msg_ttl": True,
                "max_age": 24 * 3600 * 10**9,
            }
            change = (
                {"subjects": ["nobody.here"]} if how == "taken away" else {"discard": "new", "max_bytes": 500}
            )
            await jetstream.api(f"STREAM.UPDATE.{stream}", {**config, **change})
        run = await client.submit("s", "hi")
        while not caplog.records:
            await asyncio.sleep(0.05)
        assert stream in caplog.text
        assert stream in (await running.unready() or "")
        if how == "deleted":
            await Topology(namespace).declare(jetstream)
        else:
            await jetstream.api(f"STREAM.UPDATE.{stream}", config)
        assert (await run.result()).text == "word " * 200
        while await running.unready() is not None:
            await asyncio.sleep(0.05)
