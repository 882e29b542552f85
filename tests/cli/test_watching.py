"""What runs until Ctrl-C, and what is seen in a terminal only."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto_workers import Topology
from atto_workers.cli.options import Broker
from tests.cli.commands import ENTRY, PATIENCE, atto, environment, free_port
from tests.cli.terminal import CTRL_C, terminal


async def test_partitions_are_looked_at_again_until_ctrl_c(
    jetstream: JetStream, namespace: str, env: dict[str, str], tmp_path: Path
):
    await Topology(namespace, partitions=2).declare(jetstream)
    async with terminal("partitions", "--watch", cwd=tmp_path, **env) as person:
        await person.until("stray")
        await _publish(jetstream, namespace, turns=7)
        await person.until(" 7 ")
        person.type(CTRL_C)
        assert await person.ended() == 130
        assert "Traceback" not in person.shown


async def test_json_is_written_again_and_again(
    jetstream: JetStream, namespace: str, env: dict[str, str], tmp_path: Path
):
    await Topology(namespace, partitions=2).declare(jetstream)
    async with _watched_as_json(tmp_path, env) as process, asyncio.timeout(PATIENCE):
        assert process.stdout is not None
        seen = [json.loads(await process.stdout.readline())["partition"] for _ in range(6)]
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert (seen, process.returncode) == ([0, 1, None] * 2, 130)


async def test_it_goes_on_when_the_broker_is_back(tmp_path: Path):
    port, data = free_port(), tmp_path / "data"
    env = {"ATTO_NATS": f"nats://127.0.0.1:{port}"}
    first, second = EmbeddedBroker(data, port=port), EmbeddedBroker(data, port=port)
    async with AsyncExitStack() as stack:
        async with first, Broker(nats=first.url).jetstream() as jetstream:
            await Topology(partitions=2).declare(jetstream)
            person = await stack.enter_async_context(terminal("partitions", "--watch", cwd=tmp_path, **env))
            piped = await stack.enter_async_context(_watched_as_json(tmp_path, env))
            assert piped.stdout is not None
            assert piped.stderr is not None
            await person.until("stray")
            await piped.stdout.readline()
        await person.until("connection to the broker is lost; looking again")
        await person.until("stray")  # what was seen last stays
        async with asyncio.timeout(PATIENCE):
            assert json.loads(await piped.stderr.readline())["error"]["code"] == "broker_unavailable"
        async with second, Broker(nats=second.url).jetstream() as jetstream:
            await _publish(jetstream, "atto", turns=7)
            await person.until(" 7 ")
            person.type(CTRL_C)
            assert await person.ended() == 130
            async with asyncio.timeout(PATIENCE):
                while json.loads(await piped.stdout.readline())["lag"] != 7:
                    pass
            piped.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                _, more = await piped.communicate()
        assert (piped.returncode, more, "reconnected" in person.shown) == (130, b"", False)


async def test_long_work_shows_how_far_it_is_in_a_terminal_only(tmp_path: Path):
    header = '{"format":2,"session":"SESSION","version":1,"state":{},"runs":[],"messages":0}\n'
    (tmp_path / "kept").mkdir()
    for number in range(30):
        (tmp_path / "kept" / f"{number}.jsonl").write_text(header.replace("SESSION", f"s{number}"))
    store = ("--store", "sqlite:///copy.db")
    async with terminal("sessions", "import", "kept", *store, cwd=tmp_path) as person:
        await person.until("sessions imported")
        assert await person.ended() == 0
    done = await atto("sessions", "export", "--all-to", "again", *store, cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "30 sessions exported to again\n", "")
    assert len(list((tmp_path / "again").iterdir())) == 30


async def test_a_reader_that_leaves_is_no_failure(
    jetstream: JetStream, namespace: str, env: dict[str, str], tmp_path: Path
):
    await Topology(namespace, partitions=64).declare(jetstream)
    script = '"$0" partitions --watch --json | head -1; echo "${PIPESTATUS[0]}"'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script, ENTRY),
        cwd=tmp_path,
        env=environment(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert (out.decode().splitlines()[1], err) == ("0", b"")


async def test_a_run_whose_watcher_leaves_goes_on_and_tells_how_to_find_it(
    jetstream: JetStream, namespace: str, env: dict[str, str], tmp_path: Path
):
    await Topology(namespace, partitions=2).declare(jetstream)
    async with terminal("run", "ann", "hi", cwd=tmp_path, **env) as person:
        async with asyncio.timeout(PATIENCE):
            while await jetstream.last(f"{namespace}-TURNS", ">") is None:
                await asyncio.sleep(0.01)
        person.type(CTRL_C)
        await person.until("the run goes on: atto attach ann ")
        assert await person.ended() == 130


@pytest.mark.leaves_consumers
async def test_a_second_signal_kills_all_processes(here: Path, env: dict[str, str]):
    (here / "app.py").write_text(
        "from atto import Agent\nfrom atto.models import ScriptedModel, Stall\n"
        "agent = Agent('tester', ScriptedModel.of([Stall()]))\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(ENTRY, "worker", "app:agent", "--processes", "2"),
        cwd=here,
        env=environment(env),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        owning = 0
        while owning < 2:
            owning += b"owns" in await process.stderr.readline()
        running = await asyncio.create_subprocess_exec(
            *(ENTRY, "run", "ann", "hi", "--json"),
            cwd=here,
            env=environment(env),
            stdout=asyncio.subprocess.PIPE,
        )
        assert running.stdout is not None
        await running.stdout.readline()  # it has started, and will not end
        process.send_signal(signal.SIGTERM)
        while b"processes drain" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        await process.communicate()  # to the end of stderr: nobody holds it any more
        running.send_signal(signal.SIGINT)
        await running.communicate()
    assert process.returncode == 128 + signal.SIGTERM


@asynccontextmanager
async def _watched_as_json(cwd: Path, env: dict[str, str]) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(ENTRY, "partitions", "--watch", "--json"),
        cwd=cwd,
        env=environment(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _publish(jetstream: JetStream, namespace: str, *, turns: int) -> None:
    for _ in range(turns):
        await jetstream.publish(f"{namespace}.turn.ann", b'{"input":"hi"}')
