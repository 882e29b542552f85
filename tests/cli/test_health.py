"""The health endpoints are answered by a thread, so a blocked event loop is noticed."""

import asyncio
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request

import pytest

from atto.broker.jetstream import JetStream
from atto.protocol.errors import StoreUnavailable
from atto.protocol.sessions import Snapshot
from atto.stores import MemoryStore
from atto_workers import Topology, health
from atto_workers.ownership import Ownership, Tenure
from tests.cli.commands import PATIENCE
from tests.integration.conftest import worker  # noqa: F401 - a fixture


def _get(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_not_ready_is_503_and_alive_is_200():
    async def unready() -> str | None:
        return "not yet"

    async with health.health_server(0, unready) as port:
        assert await asyncio.to_thread(_get, port, "/readyz") == 503
        assert await asyncio.to_thread(_get, port, "/healthz") == 200
        assert await asyncio.to_thread(_get, port, "/") == 404


async def test_a_question_that_raises_is_answered_no():
    async def unready() -> str | None:
        raise KeyError("store")

    async with health.health_server(0, unready, alive=unready) as port:
        assert await asyncio.to_thread(_get, port, "/readyz") == 503
        assert await asyncio.to_thread(_get, port, "/healthz") == 503


async def test_a_worker_whose_store_raises_anything_is_not_ready(worker):  # noqa: F811
    class Broken(MemoryStore):
        error: Exception | None = None

        async def load(self, session: str) -> Snapshot | None:
            if self.error is not None:
                raise self.error
            return await super().load(session)

    store = Broken()
    running = worker("hi", store=store)
    assert await running.unready() is not None
    async with running:
        assert await running.unready() is None
        for error in (StoreUnavailable("away"), RuntimeError("a user's own")):
            store.error = error
            assert type(error).__name__ in (await running.unready() or "")
    assert await running.unready() is not None


async def test_a_worker_is_not_ready_without_its_share_but_need_not_wait_for_what_others_hold(
    worker,  # noqa: F811
    jetstream: JetStream,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
):
    async with worker("hi") as first:
        async with worker("hi") as second, asyncio.timeout(PATIENCE):
            while await second.unready() is not None:  # a moment, while the first one hands something over
                await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            while first.partitions != set(range(4)):
                await asyncio.sleep(0.01)
        taken = Ownership.claim

        async def refused(self: Ownership, partition: int | None) -> Tenure | None:
            return None if partition == 3 else await taken(self, partition)

        monkeypatch.setattr(Ownership, "claim", refused)
        jetstream_names = await jetstream.api(f"CONSUMER.NAMES.{namespace}-TURNS")
        [mine] = [name for name in json.loads(jetstream_names)["consumers"] if name.startswith("p3-")]
        await jetstream.api(f"CONSUMER.DELETE.{namespace}-TURNS.{mine}")
        async with asyncio.timeout(PATIENCE):
            while "1 partitions" not in (await first.unready() or ""):  # what the second one had comes back
                await asyncio.sleep(0.01)
        monkeypatch.undo()
        async with asyncio.timeout(PATIENCE):
            while await first.unready() is not None:
                await asyncio.sleep(0.01)


async def test_a_takeover_is_one_line(worker, jetstream: JetStream, namespace: str, caplog):  # noqa: F811
    topology = Topology(namespace, partitions=4)
    await topology.declare(jetstream)
    dead = Ownership(jetstream, topology.subjects, "feedbeef", max_ack_pending=1, replicas=1)
    for partition in range(3):
        await dead.claim(partition)
    caplog.set_level("INFO", logger="atto.worker")
    async with worker("hi") as running:
        assert running.partitions == set(range(4))
    lines = [record.message for record in caplog.records if "over from" in record.message]
    assert lines == [f"{running.id} takes 3 partitions over from feedbeef: p0, p1, p2"]


async def test_a_blocked_loop_is_not_healthy(monkeypatch: pytest.MonkeyPatch):
    async def unready() -> str | None:
        return None

    monkeypatch.setattr(health, "PATIENCE", 0.2)
    seen: list[int] = []
    async with health.health_server(0, unready) as port:
        probe = threading.Thread(target=lambda: seen.append(_get(port, "/healthz")))
        probe.start()
        time.sleep(0)
        probe.join(5)  # blocks the loop, which is what is tested
    assert seen == [503]


async def test_a_connection_ends_however_slowly_it_speaks(monkeypatch: pytest.MonkeyPatch):
    async def unready() -> str | None:
        return None

    monkeypatch.setattr(health, "REQUEST_PATIENCE", 0.5)
    async with health.health_server(0, unready) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            async with asyncio.timeout(20):
                while not reader.at_eof():  # a byte now and then, and the request never ends
                    writer.write(b"x")
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await reader.read(1)
        writer.close()
        assert await asyncio.to_thread(_get, port, "/readyz") == 200


async def test_idle_connections_take_nobodys_place_and_no_thread():
    async def unready() -> str | None:
        return None

    async with health.health_server(0, unready) as port:
        before = threading.active_count()
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * health.CONNECTIONS)]
        for _ in range(3):
            assert await asyncio.to_thread(_get, port, "/healthz") == 200
        assert threading.active_count() <= before + 1  # the one that asks here
        for _, writer in idle:
            writer.close()


async def test_however_many_ask_the_store_is_read_once(monkeypatch: pytest.MonkeyPatch):
    reads = 0

    async def unready() -> str | None:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0.01)
        return None

    monkeypatch.setattr(health, "REMEMBERED", 60.0)
    async with health.health_server(0, unready) as port:
        assert set(await asyncio.gather(*(asyncio.to_thread(_get, port, "/readyz") for _ in range(20)))) == {
            200
        }
    assert reads == 1


@pytest.mark.parametrize(
    "request_", [b"x" * 100_000, b"GET /readyz", b"\xff\xfe\r\n\r\n", b"POST /readyz HTTP/1.1\r\n\r\n"]
)
async def test_whatever_is_sent_harms_nobody_else(request_: bytes):
    async def unready() -> str | None:
        return None

    async with health.health_server(0, unready) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        assert await asyncio.to_thread(_get, port, "/readyz") == 200
        writer.close()


async def test_a_port_that_is_taken_is_an_error():
    async def unready() -> str | None:
        return None

    async with health.health_server(0, unready) as port:
        with pytest.raises(OSError, match="in use"):
            async with health.health_server(port, unready):
                pass
