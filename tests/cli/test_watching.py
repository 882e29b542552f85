"""What runs until Ctrl-C, and what is seen in a terminal only."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from atto.broker.jetstream import JetStream
from atto_workers import Topology
from tests.cli.commands import ENTRY, PATIENCE, atto, environment
from tests.cli.terminal import CTRL_C, terminal


async def test_partitions_are_looked_at_again_until_ctrl_c(
    jetstream: JetStream, namespace: str, env: dict[str, str], tmp_path: Path
):
    await Topology(namespace, partitions=2).declare(jetstream)
    async with terminal("partitions", "--watch", cwd=tmp_path, **env) as person:
        await person.until("stray")
        await jetstream.publish(f"{namespace}.turn.ann", b'{"input":"hi"}')
        await person.until(" 1 ")
        person.type(CTRL_C)
        assert await person.ended() == 130
        assert "Traceback" not in person.shown


async def test_json_is_written_again_and_again(
    jetstream: JetStream, namespace: str, env: dict[str, str], tmp_path: Path
):
    await Topology(namespace, partitions=2).declare(jetstream)
    process = await asyncio.create_subprocess_exec(
        *(ENTRY, "partitions", "--watch", "--json"),
        cwd=tmp_path,
        env=environment(env),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        seen = [json.loads(await process.stdout.readline())["partition"] for _ in range(6)]
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert (seen, process.returncode) == ([0, 1, None] * 2, 130)


async def test_long_work_shows_how_far_it_is_in_a_terminal_only(tmp_path: Path):
    header = '{"format":1,"session":"SESSION","version":1,"state":{},"runs":[],"messages":0}\n'
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
