"""Several processes on one file, killed ones, and a disk that is full."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from atto.protocol.errors import StoreUnavailable
from atto.protocol.sessions import Snapshot
from atto.stores.sqlite import SqliteStore
from atto.testing.store_samples import commit

PRELUDE = """
import asyncio, sys
from atto.protocol.errors import ConcurrentWrite
from atto.protocol.sessions import Snapshot
from atto.stores.sqlite import SqliteStore
from atto.testing.store_samples import commit

path, name = sys.argv[1:]

def say(word):
    print(word, flush=True)

async def heard():
    return (await asyncio.to_thread(sys.stdin.readline)).strip()
"""

RACER = """
async def main():
    async with SqliteStore(path) as store:
        while True:
            snapshot = await store.load("s") or Snapshot(session="s")
            say("loaded")
            if await heard() == "end":
                return
            try:
                saved = await store.save(snapshot, commit(f"{name} {snapshot.version}", name * 500, name))
            except ConcurrentWrite:
                say("lost")
            else:
                say(f"won {saved.version}")
            await heard()

asyncio.run(main())
"""

OPENER = """
async def main():
    say("ready")
    await heard()
    async with SqliteStore(path) as store:
        await store.save(Snapshot(session=name), commit("run", name))
    say("done")

asyncio.run(main())
"""

VICTIM = """
async def turns(store, session):
    snapshot = await store.load(session) or Snapshot(session=session)
    while True:
        n = snapshot.version + 1
        snapshot = await store.save(snapshot, commit(f"run-{n}", f"{n}" * 300, f"{n}", n=n))
        say(f"{session} {snapshot.version}")

async def main():
    async with SqliteStore(path) as store:
        await asyncio.gather(turns(store, "a"), turns(store, "b"))

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
async def start(path):
    processes = []

    async def start(program, name="-"):
        source = PRELUDE + textwrap.dedent(program)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", source, path, name, **pipes)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def tell(process, word):
    process.stdin.write(f"{word}\n".encode())


async def hear(process):
    return (await process.stdout.readline()).decode().strip()


async def hear_all(processes):
    return await asyncio.gather(*map(hear, processes))


def integrity(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


async def test_of_two_processes_racing_for_a_version_one_wins(start, path):
    names = ["left", "right"]
    racers = [await start(RACER, name) for name in names]
    winners = []
    for version in range(1, 41):
        assert await hear_all(racers) == ["loaded", "loaded"]
        for racer in racers:
            tell(racer, "save")
        results = await hear_all(racers)
        assert sorted(results) == ["lost", f"won {version}"]
        winners.append(names[results.index(f"won {version}")])
        for racer in racers:
            tell(racer, "on")
    await hear_all(racers)
    for racer in racers:
        tell(racer, "end")
        assert await racer.wait() == 0
    async with SqliteStore(path) as store:
        snapshot = await store.load("s")
    assert [message.text for message in snapshot.messages[1::2]] == winners
    assert integrity(path) == [("ok",)]


async def test_many_processes_may_create_the_file_at_once(start, path):
    openers = [await start(OPENER, f"s-{number}") for number in range(6)]
    assert set(await hear_all(openers)) == {"ready"}
    for opener in openers:
        tell(opener, "go")
    assert await hear_all(openers) == ["done"] * 6
    async with SqliteStore(path) as store:
        assert [name async for name in store.sessions()] == [f"s-{number}" for number in range(6)]


async def test_what_was_acknowledged_survives_kill_9(start, path):
    acknowledged = {"a": 0, "b": 0}
    for commits in (1, 7, 2, 40, 13, 90):
        victim = await start(VICTIM)
        for _ in range(commits):
            session, version = (await hear(victim)).split()
            acknowledged[session] = int(version)
        victim.kill()
        output, _ = await victim.communicate()
        for line in output.decode().splitlines(keepends=True):
            if line.endswith("\n"):  # the last one may be cut off
                session, version = line.split()
                acknowledged[session] = int(version)
        assert integrity(path) == [("ok",)]
        async with SqliteStore(path) as store:
            for session, version in acknowledged.items():
                snapshot = await store.load(session) or Snapshot(session=session)
                assert version <= snapshot.version <= version + 1
                numbers = [str(number + 1) for number in range(snapshot.version)]
                assert [message.text for message in snapshot.messages[1::2]] == numbers
                assert snapshot.state == ({"n": snapshot.version} if numbers else {})


async def test_the_lock_of_a_killed_writer_is_let_go(start, path):
    async with SqliteStore(path) as store:
        saved = await store.save(Snapshot(session="s"), commit("run-1"))
        program = """
        import sqlite3
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM messages")
        say("locked")
        sys.stdin.read()
        """
        holder = await start(program)
        assert await hear(holder) == "locked"
        save = asyncio.ensure_future(store.save(saved, commit("run-2")))
        await asyncio.sleep(0)  # one iteration: the save is under way
        assert not save.done()
        holder.kill()
        assert (await save).version == 2
        assert len((await store.load("s")).messages) == 4


@pytest.fixture
def small_disk(tmp_path):
    directory = tmp_path / "disk"
    directory.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"no file system can be mounted here: {result.stderr.strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("fills", ["ballast", "sessions"])
async def test_a_full_disk_is_an_explicit_error_and_goes_on_once_there_is_room(small_disk, fills):
    path, ballast = small_disk / "sessions.db", small_disk / "ballast"
    async with SqliteStore(path) as store:
        snapshot = await store.save(Snapshot(session="s"), commit("run-0", n=0))
        ballast.write_bytes(b"x" * 300_000)
        if fills == "ballast":
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
        with pytest.raises(StoreUnavailable, match="disk is full: nothing was committed"):
            for number in range(1000):
                snapshot = await store.save(snapshot, commit(f"run-{number + 1}", "x" * 3000, n=number))
        for _ in range(5):
            with pytest.raises(StoreUnavailable, match="disk is full: nothing was committed"):
                await store.save(snapshot, commit("run-again", "x" * 300_000))
            assert await store.load("s") == snapshot
        ballast.unlink()
        for number in range(3):
            snapshot = await store.save(snapshot, commit(f"room-{number}", "x" * 3000))
        assert await store.load("s") == snapshot
    assert integrity(path) == [("ok",)]
    async with SqliteStore(path) as store:
        assert await store.load("s") == snapshot
