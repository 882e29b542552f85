"""Answers: a subject beside that of turns, with bounds and rights of its own, in one order with them."""

import asyncio
import json

import pytest

from atto import Agent, ScriptedModel, events
from atto.broker.jetstream import JetStream
from atto.protocol.codec import encode
from atto.protocol.errors import BrokerRefused, SessionBacklogFull
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Answer, Resume, Turn
from atto_workers import DeadLetters, Topology
from atto_workers.queued_turns import QueuedTurns
from atto_workers.topology import PARTITIONS_KEY, stream_info

PATIENCE = 60.0


def answer(run_id: str, *, to: str = "root") -> bytes:
    return encode(Turn(run_id=run_id, resume=Resume(run_id=to, answers={"wait": Answer(approve=True)})))


async def ended(client, session: str, run_id: str) -> events.TerminalEvent:
    async with asyncio.timeout(PATIENCE):
        seen = [event async for event in client.attach(session, run_id)]
    assert sum(map(events.is_terminal, seen)) == 1
    return seen[-1]


async def messages(jetstream: JetStream, stream: str) -> int:
    return json.loads(await jetstream.api(f"STREAM.INFO.{stream}"))["state"]["messages"]


async def test_an_answer_to_nothing_ends_with_words_and_without_a_dead_letter(
    worker, client, jetstream, namespace
):
    subjects = Subjects(namespace)
    async with worker(lambda _: "fine"):
        for _ in range(2):  # and a second one of the same run changes nothing
            await jetstream.publish(subjects.answer("s"), answer("a"))
        end = await ended(client, "s", "a")
        assert isinstance(end, events.RunFailed)
        assert (end.code, end.seq) == ("not_waiting", 1)
        assert "'root'" in end.message
        assert (await client.run("s", "hi").result()).text == "fine"
        assert (await client.snapshot("s")).version == 1
        assert await ended(client, "s", "a") == end
    assert await messages(jetstream, subjects.dead_stream) == 0
    assert await messages(jetstream, subjects.turns_stream) == 0


@pytest.mark.parametrize(
    ("turn", "code", "words"),
    [
        (Turn(input="hi", run_id="r", agent="billing"), "unknown_agent", "'billing' here: there is 'known'"),
        (Turn(input="hi", run_id="r", on_busy="steer"), "not_supported", "'steer' is not supported"),
        (Turn(input="hi", run_id="r", on_busy="interrupt"), "not_supported", "'interrupt' is not"),
        (Turn(input="hi", run_id="r", on_busy="reject"), "not_supported", "'reject' is not supported"),
    ],
)
async def test_what_this_worker_does_not_do_is_said(worker, client, jetstream, namespace, turn, code, words):
    model = ScriptedModel.of(lambda _: "fine")
    async with worker(Agent("known", model)):
        await jetstream.publish(Subjects(namespace).turn("s"), encode(turn))
        end = await ended(client, "s", "r")
        await jetstream.publish(
            Subjects(namespace).turn("s"), encode(Turn(input="hi", run_id="k", agent="known"))
        )
        assert isinstance(await ended(client, "s", "k"), events.RunCompleted)
    assert isinstance(end, events.RunFailed)
    assert end.code == code
    assert words in end.message
    assert len(model.requests) == 1
    assert await messages(jetstream, Subjects(namespace).dead_stream) == 0


async def test_who_may_submit_cannot_answer_and_who_may_answer_cannot_submit(
    worker, client, jetstream, namespace
):
    """Rights are of subjects: what a turn is must be what its subject says."""
    subjects, model = Subjects(namespace), ScriptedModel.of(lambda _: "fine")
    async with worker(model):
        await jetstream.publish(subjects.turn("s"), answer("approves"))
        await jetstream.publish(subjects.answer("s"), encode(Turn(input="hi", run_id="submits")))
        ends = [await ended(client, "s", run_id) for run_id in ("approves", "submits")]
        letters = [letter async for letter in DeadLetters(jetstream, subjects).list()]
    assert [end.code for end in ends if isinstance(end, events.RunFailed)] == ["invalid_turn"] * 2
    assert [letter.is_answer for letter in letters] == [False, True]
    assert not model.requests


async def test_a_full_backlog_leaves_room_for_answers_and_the_other_way_round(client, jetstream, namespace):
    subjects = Subjects(namespace)
    await Topology(namespace, partitions=4, backlog=2).declare(jetstream)
    for _ in range(2):
        await client.submit("s", "hi")
    with pytest.raises(SessionBacklogFull):
        await client.submit("s", "hi")
    for number in range(2):
        await jetstream.publish(subjects.answer("s"), answer(f"a{number}"))
    with pytest.raises(BrokerRefused, match="per subject"):
        await jetstream.publish(subjects.answer("s"), answer("a2"))
    await jetstream.publish(subjects.answer("other"), answer("a2"))
    queued = [turn async for turn in QueuedTurns(jetstream, subjects).list("s")]
    assert [turn.text for turn in queued] == ["hi", "hi"] + ["answer to run root: wait"] * 2
    assert len({turn.partition for turn in queued}) == 1
    await jetstream.api(f"STREAM.PURGE.{subjects.turns_stream}")


async def test_turns_and_answers_of_a_session_end_in_the_order_in_which_they_came(
    worker, client, jetstream, namespace
):
    subjects, order = Subjects(namespace), []
    await Topology(namespace, partitions=4).declare(jetstream)
    names = [f"{kind}{number}" for number in range(8) for kind in ("turn", "answer")]
    for name in names:
        body = answer(name) if name.startswith("answer") else encode(Turn(input=name, run_id=name))
        subject = subjects.answer("s") if name.startswith("answer") else subjects.turn("s")
        await jetstream.publish(subject, body)
    async with worker(lambda _: "fine"):
        for name in names:
            await ended(client, "s", name)
        async for stored in jetstream.read(subjects.events_stream, f"{namespace}.event.s.*"):
            if (name := stored.subject.rpartition(".")[2]) not in order:
                order.append(name)
    assert order == names


async def test_a_namespace_from_before_there_were_answers_takes_them_once_declared(
    worker, client, jetstream, namespace
):
    subjects = Subjects(namespace)
    stream, turns = subjects.turns_stream, subjects.turns
    before = {
        "name": stream,
        "subjects": [turns],
        "retention": "workqueue",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": 32,
        "allow_direct": True,
        "subject_transform": {
            "src": turns,
            "dest": f"{namespace}.turn.{{{{partition(8,1)}}}}.{{{{wildcard(1)}}}}",
        },
        "metadata": {PARTITIONS_KEY: "8"},
    }
    await jetstream.api(f"STREAM.CREATE.{stream}", before)
    run = await client.submit("s", "queued before")
    async with asyncio.timeout(PATIENCE), worker(lambda _: "fine", topology=Topology(namespace)):
        await jetstream.publish(subjects.answer("s"), answer("a"))
        assert (await run.result()).text == "fine"
        assert isinstance(await ended(client, "s", "a"), events.RunFailed)
    info = await stream_info(jetstream, stream)
    assert info is not None
    assert info.config["subjects"] == [turns, subjects.answers]
    assert info.state.bytes == 0
