"""Every role does all that it is for under its own permissions, and nothing is refused on the way."""

import asyncio
import logging
import re
from collections.abc import Callable

import pytest
from nats.aio.client import Client as Connection

from atto import Agent, ScriptedModel, tool
from atto.broker import requests
from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.models import Stall, call
from atto.protocol.codec import encode
from atto.protocol.errors import ConcurrentWrite
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Answer, Resume, Turn
from atto.stores import MemoryStore, NatsKvStore, SessionStore
from atto_client import Client, NoWorkers, Run, RunCancelled, RunFailed, SessionBacklogFull
from atto_workers import DeadLetters, Worker
from atto_workers.queued_turns import QueuedTurns
from tests.permissions.deployment import CONFIGURATION, declare, echo, login, serving, trying

VIOLATION = re.compile("permissions violation.*", re.IGNORECASE)
# by the store after a lost commit (below)
NOT_USED_HERE = {"$JS.API.STREAM.PURGE.KV_atto-sessions"}
# answers to clients of the same account, and to those of others
NOT_USED_WITH = {"tenant.conf": {"_INBOX.atto.client.>"}, "users.conf": {"_R_.>"}}


@pytest.fixture
def nothing_is_refused(caplog: pytest.LogCaptureFixture):
    """Violations are told to the connection, which logs them."""
    with caplog.at_level(logging.DEBUG, "atto.broker"):
        yield
    assert VIOLATION.findall(caplog.text) == []


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The subjects that each user of this process publishes to."""
    subjects: dict[str, set[str]] = {}
    publish = Connection.publish

    async def noting(self: Connection, subject: str, *arguments, **options):
        subjects.setdefault(str(self.options["user"]), set()).add(subject)
        await publish(self, subject, *arguments, **options)

    monkeypatch.setattr(Connection, "publish", noting)
    monkeypatch.setattr(requests, "sent", lambda *_: False)  # so that all goes by `publish`
    return subjects


def allowed(role: str) -> list[str]:
    text = (CONFIGURATION / "permissions.conf").read_text()
    [body] = re.findall(rf"^{role}_MAY_PUBLISH = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    return re.findall(r'"([^"]+)"', body)


def matches(pattern: str) -> Callable[[str], object]:
    tokens = ["[^.]+" if part == "*" else re.escape(part) for part in pattern.removesuffix(".>").split(".")]
    tail = r"\..+" if pattern.endswith(".>") else ""
    return re.compile(r"\.".join(tokens) + tail).fullmatch


def a_stalling_agent(stall: Stall) -> Agent:
    """Notes what was said in the state, then answers it; stalls if it is told to."""

    @tool
    def note() -> str:
        """Does nothing."""
        return "noted"

    def model(request):
        last = request.messages[-1]
        if last.role == "user":
            return [stall] if last.text == "stall" else call("note")
        return next(message.text for message in reversed(request.messages) if message.role == "user")

    return Agent("noting", ScriptedModel.of(model), tools=[note])


@pytest.mark.parametrize("file", ["tenant.conf", "users.conf"])
@pytest.mark.usefixtures("nothing_is_refused")
async def test_all_roles_from_submit_to_dead_letters(tmp_path, published, file):
    stall = Stall(reached=asyncio.Event())
    async with serving(tmp_path, file) as broker:
        await declare(broker.url, **login("atto-admin"))
        async with (
            Client(broker.url, **login("atto-client")) as client,
            Client(broker.url, **login("atto-producer")) as producer,
            Client(broker.url, **login("atto-admin")) as admin,
        ):
            worker = Worker(a_stalling_agent(stall), nats=broker.url, grace=0.1, **login("atto-worker"))
            async with worker:
                first = client.run("user-123", "hi" * 20_000)
                live = [event async for event in first]
                assert [event async for event in client.attach("user-123", first.run_id)] == live
                fired = await producer.submit("user-123", "fire and forget")
                assert (await client.attach("user-123", fired.run_id).result()).text == "fire and forget"
                await is_full(client)
                await is_dead(broker, client)
                await is_answered(client)
                await is_removed(broker, client, stall)
                handed_over = await is_stalled(client, stall)
            await handed_over.cancel("enough")
            async with worker:
                with pytest.raises(RunCancelled, match="enough"):
                    await handed_over.result()
                for asking in (client, admin):
                    assert (await asking.snapshot("user-123")).version == 2
                async with Worker(echo(), nats=broker.url, grace=5.0, **login("atto-worker")):
                    assert (await client.run("user-456", "both").result()).text == "both"
                    await have_pinged_one_another(published["atto-worker"])
    for role in ("producer", "client", "worker"):
        unused = {
            pattern
            for pattern in allowed(role.upper())
            if not any(map(matches(pattern), published[f"atto-{role}"]))
        }
        assert unused <= NOT_USED_HERE | NOT_USED_WITH[file]


async def have_pinged_one_another(published: set[str]) -> None:
    """As neighbours do once a second."""
    for prefix in ("atto.worker.", "_INBOX.atto.worker."):
        while not any(subject.startswith(prefix) for subject in published):
            await asyncio.sleep(0.05)


async def is_stalled(client: Client, stall: Stall) -> Run:
    assert stall.reached is not None
    stall.reached.clear()
    run = await client.submit("user-789", "stall")
    await stall.reached.wait()
    return run


async def is_full(client: Client) -> None:
    stalled = await client.submit("user-full", "stall")
    queued = [await client.submit("user-full", str(number)) for number in range(31)]
    with pytest.raises(SessionBacklogFull):
        await client.submit("user-full", "one too many")
    await stalled.cancel()
    assert (await queued[-1].result()).text == "30"


async def is_dead(broker: EmbeddedBroker, client: Client) -> None:
    async with trying(broker.url, **login("atto-client")) as raw:
        message = b'{"run_id": "malformed", "text": "no input"}'
        assert await raw.publish("atto.turn.user-123", message) == []
    with pytest.raises(RunFailed):
        await client.attach("user-123", "malformed").result()
    async with DeadLetters.of(broker.url, **login("atto-admin")) as letters:
        [letter] = [letter async for letter in letters.list()]
        await letters.drop(letter.number)
        assert [letter async for letter in letters.list()] == []


async def is_removed(broker: EmbeddedBroker, client: Client, stall: Stall) -> None:
    """By an admin: one that runs and one that waits, by run id and by number."""
    running = await is_stalled(client, stall)
    waiting = await client.submit("user-789", "waits")
    async with (
        connected(broker.url, name="turns", on_reconnect=lambda: None, **login("atto-admin")) as connection,
        JetStream(connection) as jetstream,
    ):
        turns = QueuedTurns(jetstream, Subjects("atto"))
        numbers = {turn.run_id: turn.number async for turn in turns.list()}
        await turns.remove(numbers[waiting.run_id])
        await turns.remove(running.run_id)
        assert [turn async for turn in turns.list()] == []
    for run in (running, waiting):
        with pytest.raises(RunCancelled, match="removed by an operator"):
            await run.result()


async def is_answered(client: Client) -> None:
    """Nothing waits there."""
    turn = encode(Turn(run_id="answer", resume=Resume(run_id="r", answers={"w": Answer(approve=True)})))
    await client._jetstream.publish("atto.answer.user-123", turn)
    with pytest.raises(RunFailed, match="not_waiting"):
        await client.attach("user-123", "answer").result()


@pytest.mark.usefixtures("nothing_is_refused")
async def test_the_kv_store_does_all_that_it_does_as_a_worker(guarded, published):
    large = (Message.user("x" * 300_000), Message.assistant("y"))
    async with (
        connected(guarded.url, name="store", on_reconnect=lambda: None, **login("atto-worker")) as connection,
        JetStream(connection) as jetstream,
    ):
        store: SessionStore = NatsKvStore(jetstream)
        first = await store.save(Snapshot(session="kept"), Commit(run_id="1", messages=large))
        second = await store.save(first, Commit(run_id="2", messages=large))
        with pytest.raises(ConcurrentWrite):
            await store.save(first, Commit(run_id="3", messages=large))
        assert await store.load("kept") == second
        assert "kept" in [session async for session in store.sessions()]
        assert await store.delete("kept")
    assert "$JS.API.STREAM.PURGE.KV_atto-sessions" in published["atto-worker"]


@pytest.mark.usefixtures("nothing_is_refused")
async def test_a_worker_with_another_store_needs_no_permission_on_the_sessions_bucket(tmp_path):
    def without_sessions(text: str) -> str:
        publish, admin, rest = text.partition("user: atto-admin")
        lines = publish.splitlines(keepends=True)
        return "".join(line for line in lines if "sessions" not in line) + admin + rest

    async with serving(tmp_path, "users.conf", change=without_sessions) as broker:
        await declare(broker.url, **login("atto-admin"))
        async with (
            Worker(echo(), nats=broker.url, store=MemoryStore(), **login("atto-worker")),
            Client(broker.url, **login("atto-client")) as client,
        ):
            assert (await client.run("s", "hi").result()).text == "hi"


async def test_a_producer_submits_and_hears_nothing(guarded, caplog):
    async with (
        Worker(echo(), nats=guarded.url, **login("atto-worker")),
        Client(guarded.url, **login("atto-producer")) as producer,
        Client(guarded.url, **login("atto-client")) as client,
    ):
        run = await producer.submit("submitted", "hi")
        assert (await client.attach("submitted", run.run_id).result()).text == "hi"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await run.result()
    heard, replayed = VIOLATION.findall(caplog.text)
    assert "subscription" in heard
    assert "atto.event.submitted" in heard
    assert "direct.get.atto-events" in replayed


async def test_without_workers_a_client_is_told_so(guarded):
    async with Client(guarded.url, **login("atto-client")) as client:
        with pytest.raises(NoWorkers):
            await client.snapshot("user-123")
