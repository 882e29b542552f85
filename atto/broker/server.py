"""The embedded broker: a real nats-server with JetStream as a child process, tied to this process's life."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from atto.broker.binary import find_server
from atto.protocol.errors import BrokerFailed

_GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL; a stop takes 2 ms with little data."""

_LOCK_WAIT = 2.0
"""Seconds for which a server that was killed a moment ago may still hold its data directory."""

_LOG_TAIL = 8192  # bytes
_READY = b"Server is ready"

# The shell becomes the server (`exec`), so at no moment does the server run unwatched. The subshell that it
# leaves behind reads the pipe that only the parent can write to: a line is the farewell, the end of the file
# without one means that the parent is dead. It holds neither the server's log nor its lock.
_LAUNCH = 'exec 3<&0; { read -r _ || kill -KILL $$; } <&3 >/dev/null 2>&1 & exec "$0" "$@" </dev/null 3<&-'

_lifelines: set[int] = set()


def _drop_lifelines() -> None:
    for writer in _lifelines:
        os.close(writer)
    _lifelines.clear()


# A forked child (of multiprocessing) that kept the pipe open would keep a dead parent's broker alive.
os.register_at_fork(after_in_child=_drop_lifelines)


class EmbeddedBroker:
    """`async with EmbeddedBroker() as broker: await nats.connect(broker.url)`.

    It listens on 127.0.0.1 only, on `port` or else on a free one. Its data lie in `data_dir` and last between
    runs; without one they lie in a temporary directory and go when the broker stops. A data directory has
    one broker at a time, for as long as its server lives. `config` is text in nats-server's configuration
    format, such as `jetstream {sync_interval: always}`; it cannot move the host, the port and the data, and
    must not move the log. `timeout`: seconds within which the server must be ready.

    The server dies with this process, however that ends, SIGKILL included. That holds on every system with a
    POSIX shell at /bin/sh: a watcher sees the end of its pipe to this process, and kills the server within
    milliseconds. It does not depend on the thread or the loop that started the server (as Linux's
    PR_SET_PDEATHSIG would), and forked children do not prolong it. The server has a session of its own, so a
    terminal's Ctrl-C does not reach it, and what runs can be drained first.

    May be started again after a stop. Starting raises `BrokerNotFound` or `BrokerFailed`.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        config: str = "",
        port: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._data_dir = data_dir
        self._config = config
        self._port = port
        self._timeout = timeout
        self._url = ""
        self._log = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._following: asyncio.Task[None] | None = None
        self._resources = contextlib.AsyncExitStack()
        self._ending = asyncio.Lock()

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:<port>`, kept after a stop. Raises RuntimeError before the first start."""
        if not self._url:
            raise RuntimeError("the broker has not been started")
        return self._url

    @property
    def pid(self) -> int:
        """The server's process. Raises RuntimeError while there is none."""
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """The last lines that the server logged."""
        return self._log.decode(errors="replace").strip()

    async def __aenter__(self) -> Self:
        """Returns once clients can connect and use JetStream."""
        if self._process is not None:
            raise RuntimeError("the broker is running already")
        binary = find_server()
        try:
            async with asyncio.timeout(self._timeout):
                await self._start(binary)
        except TimeoutError:
            await self.kill()
            raise BrokerFailed(f"{binary} was not ready within {self._timeout:g} s: {self.log}") from None
        except OSError as error:
            await self.kill()
            raise BrokerFailed(f"{binary} cannot be started: {error}") from error
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Returns when the server has written what it holds and ended, or was killed after 10 s.

        May be called twice, and before the start.
        """
        async with self._ending:
            await self._resources.aclose()

    async def ended(self) -> None:
        """Returns when the server has ended, for whatever reason."""
        if self._following is not None:
            await asyncio.wait({self._following})

    async def kill(self) -> None:
        """SIGKILL: a crash. A named data directory stays as the server left it, free for the next broker."""
        if self._process is not None:
            self._process.kill()
        await self.stop()

    async def _start(self, binary: Path) -> None:
        directory = self._open_directory()
        lifeline = _open_lifeline(self._resources)
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        async with _locked(directory) as lock:
            _prepare(directory, self._config)
            process = _launch(binary, _arguments(directory, self._port), lifeline, lock)
            self._process = process
            log = asyncio.create_task(self._follow_log(process, ready), name="log of the embedded broker")
            self._following = log
            self._resources.push_async_callback(self._end, process, log)
            os.pwrite(lock, b"%-10d\n" % process.pid, 0)
        if not await ready:
            status = await asyncio.to_thread(process.wait)
            raise BrokerFailed(f"{binary} ended with status {status}: {self.log}")
        self._url = await _read_url(directory)

    def _open_directory(self) -> Path:
        self._log = b""
        if self._data_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="atto-broker-", ignore_cleanup_errors=True)
            return Path(self._resources.enter_context(temporary))
        directory = self._data_dir.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    async def _follow_log(self, process: subprocess.Popen[bytes], ready: asyncio.Future[bool]) -> None:
        """Ends when the server has ended."""
        assert process.stderr is not None  # noqa: S101 - it was asked for as a pipe
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stderr
        )
        try:
            while chunk := await reader.read(_LOG_TAIL):
                self._log = (self._log + chunk)[-_LOG_TAIL:]
                if _READY in self._log and not ready.done():
                    ready.set_result(True)
        finally:
            transport.close()
            if not ready.done():
                ready.set_result(False)

    async def _end(self, process: subprocess.Popen[bytes], log: asyncio.Task[None]) -> None:
        self._process = None
        try:
            process.terminate()
            await asyncio.wait({log}, timeout=_GRACE)
        finally:
            if not log.done():
                process.kill()
            await log
            await asyncio.to_thread(process.wait)


def _launch(binary: Path, arguments: list[str], lifeline: int, lock: int) -> subprocess.Popen[bytes]:
    """Not by asyncio: uvloop lets the child inherit copies of the pipe and the lock (measured with 0.23).

    The server prints nothing to standard output; there it holds the lock for as long as it lives.
    """
    command = ["/bin/sh", "-c", _LAUNCH, str(binary), *arguments]
    return subprocess.Popen(  # noqa: S603 - the binary is one that the operator named or installed
        command, stdin=lifeline, stdout=lock, stderr=subprocess.PIPE, start_new_session=True
    )


def _prepare(directory: Path, config: str) -> None:
    for stale in directory.glob("*.ports"):
        stale.unlink()
    (directory / "nats-server.conf").write_text(config)


def _arguments(directory: Path, port: int | None) -> list[str]:
    """Flags of nats-server; they prevail over the configuration file."""
    return [
        *("--addr", "127.0.0.1", "--port", str(-1 if port is None else port)),
        *("--jetstream", "--store_dir", str(directory), "--ports_file_dir", str(directory)),
        *("--config", str(directory / "nats-server.conf")),
    ]


class _Ports(msgspec.Struct):
    nats: list[str]


async def _read_url(directory: Path) -> str:
    while (ports := _read_ports(directory)) is None:  # noqa: ASYNC110 - written 0.2 ms later, unannounced
        await asyncio.sleep(0.001)
    return ports.nats[0]


def _read_ports(directory: Path) -> _Ports | None:
    for file in directory.glob("*.ports"):
        with contextlib.suppress(msgspec.DecodeError):  # half written
            return msgspec.json.decode(file.read_bytes(), type=_Ports)
    return None


def _open_lifeline(resources: contextlib.AsyncExitStack) -> int:
    """The end of the pipe for the watcher.

    The farewell is a callback, not a `finally`, which the garbage collector would run for a broker that was
    never stopped.
    """
    reader, writer = os.pipe()
    _lifelines.add(writer)
    resources.callback(_say_farewell, reader, writer)
    return reader


def _say_farewell(reader: int, writer: int) -> None:
    _lifelines.discard(writer)
    os.write(writer, b"\n")
    os.close(writer)
    os.close(reader)


@contextlib.asynccontextmanager
async def _locked(directory: Path) -> AsyncGenerator[int]:
    """The file that locks the directory; a process that inherits it keeps the lock."""
    lock = os.open(directory / "broker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        await _flock(lock, directory)
        yield lock
    finally:
        os.close(lock)


async def _flock(lock: int, directory: Path) -> None:
    """`flock` cannot wait with a time-out, so it is tried again and again."""
    try:
        async with asyncio.timeout(_LOCK_WAIT):
            while True:
                with contextlib.suppress(BlockingIOError):
                    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await asyncio.sleep(0.01)
    except TimeoutError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        raise BrokerFailed(
            f"{directory} is in use by another broker (process {owner or 'starting'})"
        ) from None
