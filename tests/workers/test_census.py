"""A look at a namespace survives whatever strangers wrote into its keys and answer to its pings."""

import asyncio
import itertools
import logging

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers import Topology, census
from atto_workers.census import Census
from atto_workers.presence import About

FORGED = [
    *(b"no JSON", b"\xff\xfe", b"[]", b"null", b"1", b'{"pid": "x"}', b'{"host": "\xff"}'),
    *(b'{"host": {"a": 1}}', b"[" * 100_000, b'{"pid": 1e400}'),
]


async def test_forged_keys_and_answers_are_left_out_and_named_in_the_log(
    jetstream: JetStream, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch
):
    monkeypatch.setattr(census, "PING_PATIENCE", 20.0)
    subjects = Subjects(namespace)
    await Topology(namespace, partitions=4).declare(jetstream)
    for number, body in enumerate(FORGED):
        await jetstream.publish(f"$KV.{subjects.members_bucket}.forged{number}", body)
    await jetstream.publish(f"$KV.{subjects.members_bucket}.alive", msgspec.json.encode(About(host="here")))
    replies = itertools.cycle(FORGED)

    async def answer(message) -> None:
        await message.respond(next(replies))

    subscription = await jetstream.connection.subscribe(subjects.worker("alive"), cb=answer)
    looking = Census(jetstream, subjects)
    with caplog.at_level(logging.WARNING, "atto.worker"):
        async with asyncio.timeout(60):
            for _ in FORGED:
                assert list(await looking._members()) == ["alive"]
                view = await looking._worker("alive", About(host="here"), [])
                assert (view.host, view.status) == ("here", "silent")
            assert [view.worker for view in await looking.workers()] == ["alive"]
    await subscription.unsubscribe()
    for number in range(len(FORGED)):
        assert f"the key of worker 'forged{number}' cannot be read" in caplog.text
    assert "the answer of worker 'alive' cannot be read" in caplog.text


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_bytes_are_a_worker_or_none(data: bytes):
    about = census._about(data, "it")
    assert about is None or isinstance(about, About)
