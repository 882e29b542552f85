"""`atto dev`."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerFailed, CallerError
from atto_client import Client, Run
from atto_workers.cli.exits import USAGE
from atto_workers.cli.failures import report
from atto_workers.cli.lines import typed
from atto_workers.cli.loading import check_name
from atto_workers.cli.options import OUTPUT, Agent, Broker, Output, Session, heard, note
from atto_workers.cli.reloading import PAUSE, ReloadedWorker
from atto_workers.cli.runs import printed
from atto_workers.cli.worker import LogLevel, WorkerSettings
from atto_workers.topology import Topology


def dev(
    agent: Agent,
    *,
    session: Annotated[Session, Parameter(help="The session to talk in.")] = "dev",
    data_dir: Annotated[Path | None, Parameter(help="Where the broker's data lie and last.")] = None,
    log_level: LogLevel = "warning",
    output: Output = OUTPUT,
) -> int:
    """Chats with AGENT (`module:variable`) in the terminal, on a broker of its own.

    A changed Python file below the working directory replaces the worker. Ctrl-C cancels the running turn,
    Ctrl-D leaves.
    """
    check_name(agent)
    return asyncio.run(_chat(agent, session, data_dir, log_level, output))


async def _chat(agent: str, session: str, data_dir: Path | None, log_level: LogLevel, output: Output) -> int:
    async with AsyncExitStack() as stack:
        if data_dir is None:  # ours, so that it outlives a broker that died
            temporary = TemporaryDirectory(prefix="atto-dev-", ignore_cleanup_errors=True)
            data_dir = Path(stack.enter_context(temporary))
        broker = await stack.enter_async_context(EmbeddedBroker(data_dir))
        client = Client(broker.url)
        keeping = asyncio.create_task(_keep_broker(broker, data_dir, client), name="broker watch")
        stack.push_async_callback(_stopped, keeping)
        ours = Broker(nats=broker.url)
        async with ours.jetstream() as jetstream:
            await Topology().declare(jetstream)  # turns are taken before there is a worker, too
        settings = WorkerSettings(
            agent=agent,
            broker=ours,
            grace=1.0,
            log_level=log_level,
            log_quotes=True,
            output=output,
        )
        worker = ReloadedWorker(settings, Path.cwd(), note, heard)
        stack.push_async_callback(worker.stop)
        if not await worker.start() and not sys.stdin.isatty():
            return USAGE  # nobody is here who would mend it
        reloading = asyncio.create_task(worker.reload_on_change(), name="reload on change")
        stack.push_async_callback(_stopped, reloading)
        await stack.enter_async_context(client)
        conversation = Conversation(client, worker, session, output)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, conversation.signalled, number)
        note(f"{agent} at {broker.url}, session {session!r}; Ctrl-C cancels a turn, Ctrl-D leaves")
        return await conversation.hold()


class Conversation:
    """One turn after another, as they are typed."""

    def __init__(self, client: Client, worker: ReloadedWorker, session: str, output: Output) -> None:
        self._client = client
        self._worker = worker
        self._session = session
        self._output = output
        self._holding: asyncio.Task[int] | None = None
        self._turn: asyncio.Task[int] | None = None
        self._run: Run | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._signal = 0

    async def hold(self) -> int:
        """Returns when the user leaves: 0, or 128 + the signal that ended it."""
        self._holding = asyncio.create_task(self._hold(), name="conversation")
        try:
            return await self._holding
        except asyncio.CancelledError:
            if self._signal == 0:
                raise
            return 128 + self._signal

    def signalled(self, number: int) -> None:
        """Ctrl-C cancels the turn, a second one leaves it to itself; without a turn, it ends all."""
        if number == signal.SIGINT and self._turn is not None:
            if self._cancelling is None and self._run is not None:
                self._cancelling = asyncio.create_task(self._run.cancel("Ctrl-C"), name="cancellation")
            else:
                self._turn.cancel()
        elif self._holding is not None:
            self._signal = number
            self._holding.cancel()

    async def _hold(self) -> int:
        async with aclosing(typed()) as lines:
            async for text in lines:
                if not self._worker.is_there:
                    note("there is no worker: the turn waits until the agent can be loaded")
                self._turn = asyncio.create_task(self._take(text), name="turn")
                try:
                    await asyncio.wait([self._turn])
                    await self._said(self._turn)
                finally:
                    self._turn.cancel()  # no-op, unless the conversation ends in the middle of it
                    await asyncio.wait([self._turn])
                    self._turn = self._run = None
        return 0

    async def _take(self, text: str) -> int:
        self._run = await self._client.submit(self._session, text)
        return await printed(self._run, self._output)

    async def _said(self, turn: asyncio.Task[int]) -> None:
        """The turn is over: what is left of it."""
        cancelling, self._cancelling = self._cancelling, None
        if cancelling is not None:
            await asyncio.wait([cancelling])
        if turn.cancelled():
            return  # and `printed` has said how to find the run again
        error = turn.exception()
        if isinstance(error, CallerError):
            report(error, self._output)
        elif error is not None:
            raise error


async def _keep_broker(broker: EmbeddedBroker, data_dir: Path, client: Client) -> None:
    """Runs until cancelled: a broker that ended is followed by one with the same address and data."""
    port = urlsplit(broker.url).port
    await broker.ended()
    await broker.stop()  # takes away what is left of it
    try:
        while True:
            note("the broker has ended: it is started again")
            async with EmbeddedBroker(data_dir, port=port) as again:
                await again.ended()
            await asyncio.sleep(PAUSE)
    except BrokerFailed as error:
        client.fail(error)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
