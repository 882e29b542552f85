"""What cancellations may cost a worker, and that none that was acknowledged is lost."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atto.broker.jetstream import JetStream
from atto.models import ScriptedModel, Stall
from atto.protocol.errors import BrokerRefused
from atto.protocol.subjects import Subjects
from atto.protocol.turns import MAX_REASON_BYTES, cut_reason
from atto_client import Client, Overloaded, RunCancelled
from atto_workers import Topology
from atto_workers.cancels import Cancels
from atto_workers.membership import Membership
from tests.integration.conftest import client, worker  # noqa: F401 - fixtures
from tests.protocol.strategies import ids

MAX_PAYLOAD = 1 << 20


@settings(deadline=None, max_examples=20)
@given(st.sets(st.tuples(ids(), ids())))
def test_a_member_is_never_denied(members: set[tuple[str, str]]):
    held = Membership()
    for member in members:
        held.add(member)
    assert all(member in held for member in members)
    assert held.added == len(members)


def test_few_others_are_taken_for_members():
    held = Membership()
    for number in range(100_000):
        held.add(("session", f"run {number}"))
    wrong = sum(("session", f"other {number}") in held for number in range(20_000))
    assert wrong < 600  # 1.2 % are expected


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=3 * MAX_REASON_BYTES))
def test_a_reason_is_cut_between_characters(reason: str):
    cut = cut_reason(reason)
    assert len(cut.encode()) <= MAX_REASON_BYTES
    valid = reason.encode(errors="replace").decode()
    assert valid.startswith(cut)
    assert cut == valid or len(cut.encode()) > MAX_REASON_BYTES - 4


def cancels_of(jetstream: JetStream, namespace: str) -> Cancels:
    return Cancels(jetstream, Subjects(namespace), on_early=lambda *_: None, held=lambda: ())


async def stored(jetstream: JetStream, namespace: str, count: int) -> None:
    for first in range(0, count, 500):
        numbers = range(first, min(first + 500, count))
        await asyncio.gather(*(jetstream.publish(f"{namespace}.cancel.s.{n}", b"{}") for n in numbers))


async def test_a_start_asks_once_however_many_are_stored(jetstream: JetStream, namespace: str):
    await Topology(namespace).declare(jetstream)
    costs: list[int] = []
    for count in (10, 5_000):
        await stored(jetstream, namespace, count)
        before = jetstream.connection.stats["in_msgs"]
        async with cancels_of(jetstream, namespace) as cancels:
            costs.append(jetstream.connection.stats["in_msgs"] - before)
            assert all(("s", str(number)) in cancels._early for number in range(count))
    assert costs[0] == costs[1] <= 2


async def test_what_was_acknowledged_stays_and_more_is_refused_with_words(
    jetstream: JetStream,
    namespace: str,
    client: Client,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("atto_workers.topology.CANCELS_MAX_MSGS", 3)
    await Topology(namespace).declare(jetstream)
    accepted: list[str] = []
    for number in range(6):
        with contextlib.suppress(Overloaded):
            await client.cancel("s", f"r{number}", "why")
            accepted.append(f"r{number}")
    assert accepted == ["r0", "r1", "r2"]
    with pytest.raises(Overloaded, match="keeps no more cancellations now"):
        await client.cancel("s", "r9")
    await client.cancel("s", "r1", "again")  # is there already
    for run in accepted:
        assert await jetstream.last(f"{namespace}-CANCELS", f"{namespace}.cancel.s.{run}") is not None


async def test_a_large_cancellation_is_refused_and_a_large_reason_is_cut(
    jetstream: JetStream,
    namespace: str,
    client: Client,  # noqa: F811
):
    await Topology(namespace).declare(jetstream)
    with pytest.raises(BrokerRefused, match="size"):
        await jetstream.publish(f"{namespace}.cancel.s.r", b'{"reason":"' + b"x" * 100_000 + b'"}')
    for reason in ("é" * 100_000, "\x01" * 100_000, "\ud800" * 2_000):
        await client.cancel("s", "r", reason)


@pytest.mark.parametrize("when", ["before the worker", "before the turn"])
async def test_a_cancellation_waits_for_its_turn(when: str, worker, client: Client, jetstream, namespace):  # noqa: F811
    await Topology(namespace, partitions=4).declare(jetstream)
    running = worker("never said")
    if when == "before the worker":
        await client.cancel("s", "r", "too early")
    async with running:
        if when == "before the turn":
            await client.cancel("s", "r", "too early")
            # Neither of these may push it out of what the worker remembers.
            await asyncio.gather(*(client.cancel("other", f"r{n}") for n in range(1_500)))
        run = await client.submit("s", "hi", run_id="r")
        with pytest.raises(RunCancelled, match="too early"):
            await run.result()
        assert (await (await client.submit("s", "hi")).result()).text == "never said"


async def test_other_runs_cost_no_round_trip(
    worker,  # noqa: F811
    client: Client,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[str] = []
    last = JetStream.last

    async def counted(self: JetStream, stream: str, subject: str):
        asked.append(subject)
        return await last(self, stream, subject)

    async with worker("said"):
        for number in range(20):
            await client.cancel("other", f"r{number}")
        monkeypatch.setattr(JetStream, "last", counted)
        for _ in range(20):
            assert (await (await client.submit("s", "hi")).result()).text == "said"
    assert not [subject for subject in asked if ".cancel." in subject]


async def test_so_many_that_memory_is_renewed_and_none_is_lost(
    jetstream: JetStream, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("atto_workers.cancels.KEPT", 50)
    await Topology(namespace).declare(jetstream)
    async with cancels_of(jetstream, namespace) as cancels:
        await stored(jetstream, namespace, 40)
        assert not cancels.is_worn
        for number in range(60):  # heard, and never stored
            cancels._take(f"{namespace}.cancel.gone.{number}", b"{}")
        assert cancels.is_worn
        await cancels.catch_up()
        assert not cancels.is_worn
        assert all(("s", str(number)) in cancels._early for number in range(40))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
async def test_large_reasons_leave_nothing_in_a_worker(worker, client: Client, namespace: str):  # noqa: F811
    reached = asyncio.Event()
    async with worker(ScriptedModel.of(lambda request: [Stall(None, reached)])) as running:
        run = await client.submit("s", "hi")
        await reached.wait()
        connection = running._joined[0]
        body = b'{"reason":"' + b"x" * 900_000 + b'"}'

        async def flood(count: int) -> None:
            for number in range(count):
                await connection.publish(f"{namespace}.cancel.nobody.{number}", body)
                await connection.flush()

        await flood(20)  # what buffers take is taken now
        before = rss_mb()
        await flood(200)
        assert rss_mb() - before < 40
        await connection.publish(
            f"{namespace}.cancel.s.{run.run_id}", b'{"reason":"' + b"x" * (MAX_PAYLOAD - 100) + b'"}'
        )
        with pytest.raises(RunCancelled):
            await run.result()


def rss_mb() -> float:
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024
