"""Whatever bytes are sent, on any subject, the others' turns go on over the same connections,
and a worker that starts later works.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atto import Agent, ScriptedModel
from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.subjects import Subjects
from atto_client import Client
from atto_workers import Worker
from atto_workers.dead_letters import DeadLetters
from tests.raw import raw_client

_AGENT = Agent("echo", ScriptedModel.of(lambda request: request.messages[-1].text))
_PATIENCE = 30

# Anything but what ends a line or a part of it for the broker itself.
_token_bytes = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from(
        [
            b"\xff\xfe",
            b"=" * 1400,
            b"=" * 3800,
            b"*",
            b">",
            b"a\x0bb",
            b"a\x0c7",
            b"\x0b1\x0c2",
            b"a\rb",
            b"\x00",
            b"\x1b[2J",
            b"=FF",
            b"=ED=A0=80",
            "\u202eevil\u2028".encode(),
            b"x" * 3900,
        ]
    ),
).map(lambda raw: raw.translate(None, b" \t\r\n.") or b"x") | st.sampled_from([b"a\rb", b"a\rb\x0bc"])

_status_lines = st.sampled_from(
    [
        b"NATS/1.0",
        b"NATS/1.0 404",
        b"NATS/1.0 204 EOB",
        b"NATS/1.0 503",
        b"NATS/1.0 \xff\xff\xff",
        b"NATS/1.0 abc",
        b"NATS/1.0 408 ",
        b"NATS/1.0 100 Idle Heartbeat",
        b"NATS/1.0 \xb2\xb2\xb2",
        b"GET / HTTP/1.1",
        b"",
    ]
)
_names = st.sampled_from(
    [
        b"Status",
        b"Description",
        b"Nats-Sequence",
        b"Nats-Subject",
        b"Nats-Num-Pending",
        b"Nats-Last-Consumer",
        b"Nats-Time-Stamp",
        b"Nats-Stream",
        b"KV-Operation",
        b"Nats-Pending-Messages",
        b"Nats-Msg-Id",
        b"X",
        b"\xff",
        b"",
        b"a b",
        b"traceparent",
        b"Nats-Expected-Stream",
        b"Nats-TTL",
        b"Nats-Rollup",
        b"Nats-Schedule",
        b"Nats-Incr",
    ]
)
_values = st.one_of(
    st.sampled_from(
        [b"404", b"503", b"204", b"abc", b"", b"-1", b"9" * 5000, b"\xff\xfe", b"sub", b"1e9", b" x "]
    ),
    st.binary(max_size=30).map(lambda raw: raw.translate(None, b"\r\n")),
)


@st.composite
def _header_blocks(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(min_size=1, max_size=40))
    lines = [b"%s:%s" % (draw(_names), draw(_values)) for _ in range(draw(st.integers(0, 4)))]
    block = b"\r\n".join([draw(_status_lines), *lines]) + b"\r\n\r\n"
    return block[: draw(st.integers(1, len(block)))] if draw(st.booleans()) else block


_bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"",
            b'{"input":"x"}',
            b"null",
            b"[" * 5000,
            b'{"input":' * 3000,
            b'{"input":"\\ud800"}',
            b'{"input":"x","run_id":"\\udfff"}',
            b'{"input":"\xff"}',
            b'{"input":"x","v":1e400}',
            b'{"input":"x","v":' + b"9" * 5000 + b"}",
            b'{"input":NaN}',
            b'{"input":"x","run_id":""}',
            b'{"input":"x","run_id":"' + b"r" * 5000 + b'"}',
            b'{"input":"x","run_id":"*"}',
            b'{"input":"x","run_id":" \\u0000\\n"}',
            b'{"input":"x","expires":"0001-01-01T00:00:00+14:00"}',
            b'{"input":"x","expires":"9999-12-31T23:59:59-14:00"}',
            b'{"input":"x","metadata":{"\\u001b[2J":"y"}}',
            b'{"reason":"\\ud800"}',
            b'{"events":[{"type":"text_delta","seq":1e99}],"attempt":-1}',
            b'{"events":[{"type":"run_completed","seq":1}]}',
            b'{"events":[],"since":' + b"9" * 30 + b"}",
            b'{"error":5}',
        ]
    ),
)
_replies = st.sampled_from(
    [
        b"",
        b"x",
        b"_INBOX.x",
        b"*",
        b">",
        b"\xff",
        b"a\x0bb",
        b"$JS.ACK.x",
        b"$JS.ACK.a.b.c.d.e.f.g",
        b"r" * 3000,
        b"$JS.API.STREAM.DELETE.x",
        b"..",
        b".",
    ]
)


@st.composite
def _subjects(draw: st.DrawFn) -> bytes:
    """After the namespace."""
    token, other = draw(_token_bytes), draw(_token_bytes)
    return draw(
        st.sampled_from(
            [
                b"turn." + token,
                b"cancel.%s.%s" % (token, other),
                b"cancel.honest.run",
                b"snapshot." + token,
                b"snapshot.honest",
                b"workers",
                b"worker.WORKER",
                b"event.honest.heard",
                b"event.%s.%s" % (token, other),
                b"INBOX",
            ]
        )
    )


@dataclass
class _Scene:
    broker: EmbeddedBroker
    namespace: str
    workers: list[Worker]
    client: Client
    jetstream: JetStream
    inboxes: list[str]
    refused: int = 0
    sessions: "itertools.count[int]" = field(default_factory=itertools.count)

    def connections(self) -> list[dict[str, int]]:
        return [connection.stats for connection in (*self._workers(), self.client._jetstream.connection)]

    def _workers(self):
        for worker in self.workers:
            assert worker._joined is not None
            yield worker._joined[0]

    async def publish(self, subject: bytes, body: bytes, reply: bytes, headers: bytes | None) -> None:
        number = next(self.sessions)
        if subject == b"INBOX":
            full = self.inboxes[number % len(self.inboxes)].encode()
        else:
            named = subject.replace(b"WORKER", self.workers[number % 2].id.encode())
            full = self.namespace.encode() + b"." + named
        async with raw_client(self.broker.url) as raw:
            raw.publish(full, body, reply=reply, headers=headers)
            self.refused += bool(await raw.flush())

    async def others_go_on(self) -> None:
        numbers = [next(self.sessions) for _ in range(4)]
        async with asyncio.timeout(_PATIENCE):
            answers = await asyncio.gather(
                *(self.client.run(f"other-{number}", f"hi {number}").result() for number in numbers)
            )
        assert [answer.text for answer in answers] == [f"hi {number}" for number in numbers]
        assert [stats["reconnects"] for stats in self.connections()] == [0, 0, 0]
        assert all(worker.broken() is None for worker in self.workers)


@contextlib.asynccontextmanager
async def _scene(broker: EmbeddedBroker, namespace: str) -> AsyncGenerator[_Scene]:
    options = {"namespace": namespace, "grace": 1.0}
    async with contextlib.AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(Worker(_AGENT, nats=broker.url, **options)) for _ in range(2)
        ]
        client = await stack.enter_async_context(Client(broker.url, namespace=namespace))
        connection = await stack.enter_async_context(
            connected(broker.url, name="judge", on_reconnect=lambda: None)
        )
        jetstream = await stack.enter_async_context(JetStream(connection))
        inboxes = [f"{worker._intake._inbox}.x" for worker in workers if worker._intake is not None]
        inboxes += [f"{client._jetstream._inbox}.1", f"{workers[0]._intake._inbox}.p0"]
        yield _Scene(broker, namespace, workers, client, jetstream, inboxes)


_Sent = tuple[bytes, bytes, bytes, bytes | None]


def _batches() -> list[list[_Sent]]:
    """Drawn before anything runs: what is broken by one need not be broken by it once more."""
    drawn: list[list[_Sent]] = []
    message = st.tuples(_subjects(), _bodies, _replies, st.none() | _header_blocks())

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.lists(message, min_size=5, max_size=15))
    def draw(batch: list[_Sent]) -> None:
        drawn.append(batch)

    draw()
    return drawn


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
async def test_nothing_that_is_sent_harms_the_others(broker: EmbeddedBroker, namespace: str):
    batches = _batches()
    async with _scene(broker, namespace) as scene:
        await scene.others_go_on()
        for batch in batches:
            for sent in batch:
                await scene.publish(*sent)
            try:
                await scene.others_go_on()
            except (TimeoutError, AssertionError) as error:
                pytest.fail(f"{error!r} after {batch}")
        assert scene.refused < 4 * len(batches)  # by the broker itself
        assert await _later(scene) > 20


async def _later(scene: _Scene) -> int:
    """A worker that starts now works, and all that came has ended; how much of it as dead letters."""
    subjects = Subjects(scene.namespace)
    async with asyncio.timeout(_PATIENCE):
        async with Worker(_AGENT, nats=scene.broker.url, namespace=scene.namespace, grace=1.0) as later:
            await scene.others_go_on()
            assert later.broken() is None
        while (await scene.jetstream.last(subjects.turns_stream, f"{scene.namespace}.turn.>")) is not None:
            await asyncio.sleep(0.05)
    letters = DeadLetters(scene.jetstream, subjects)
    count = 0
    async for letter in letters.list():
        assert letter.reason
        assert await letters.show(letter.number) == letter
        count += 1
    return count
