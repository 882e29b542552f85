"""The client: turns in, events out, from any process that reaches the broker."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec
from nats.aio.client import Client as Connection

from atto.broker.alarms import Alarms
from atto.broker.connection import DEFAULT_SERVER, check_options, connected
from atto.broker.jetstream import JetStream
from atto.broker.nats_internals import on_closed
from atto.broker.refusals import STREAM_FULL
from atto.protocol import codec
from atto.protocol.errors import (
    AttoError,
    BrokerRefused,
    BrokerUnavailable,
    ConnectionClosed,
    LifecycleError,
    NoResponders,
    NoWorkers,
    Overloaded,
    StoreUnavailable,
)
from atto.protocol.messages import InputPart, Message
from atto.protocol.positions import START, Position
from atto.protocol.sessions import Continuation, Snapshot, SnapshotPage
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Cancel, cut_reason
from atto_client.listener import Listener
from atto_client.run import AttachedRun, Run
from atto_client.submission import Submission, check_declared

LEAVE_PATIENCE = 1.0
"""Seconds that a broker which does not answer may hold up the end of a client that has attached runs."""

_log = logging.getLogger("atto.client")
_pages = msgspec.json.Decoder(SnapshotPage)


class Client:
    """`async with Client("nats://…") as client`.

    `namespace`: which deployment of the broker to talk to. `connection`: an open nats-py connection to use
    (and leave open) instead of `servers`. `submit_patience`: for how many seconds a turn is offered to a
    broker that does not answer. `options`: those of `nats.connect`, as `user_credentials`, `tls`,
    `inbox_prefix`.
    """

    def __init__(
        self,
        servers: str | list[str] = DEFAULT_SERVER,
        *,
        namespace: str = "atto",
        connection: Connection | None = None,
        submit_patience: float = 15.0,
        **options: Any,
    ) -> None:
        self._subjects = Subjects(namespace)
        self._servers = servers
        check_options(options)
        self._options: dict[str, Any] = {"name": "atto-client", **options}
        self._connection = connection
        self._patience = submit_patience
        self._listeners: set[Listener] = set()
        self._entered: set[AttachedRun] = set()
        self._alarms = Alarms()
        self._stack: contextlib.AsyncExitStack | None = None
        self._open: JetStream | None = None
        self._opened_in = 0
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            connection = self._connection or await stack.enter_async_context(
                connected(
                    self._servers,
                    on_reconnect=self._reconnected,
                    **self._options,
                )
            )
            self._failure = None
            self._opened_in = os.getpid()
            self._open = await stack.enter_async_context(JetStream(connection))
            stack.callback(on_closed(connection, self._connection_closed))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened_in != os.getpid():
            return  # the connection is the parent's: what is said over it here would garble it
        try:
            await self._leave_runs()
        finally:
            stack, self._stack, self._open = self._stack, None, None
            self.fail(BrokerUnavailable("the client was closed while a run was listened to"))
            if stack is not None:
                await stack.aclose()

    async def _leave_runs(self) -> None:
        """The last chance to cancel runs: also those of loops that were left just before.

        To a broker that is away now, nothing will be said any more.
        """
        is_there = self._open is not None and self._open.connection.is_connected
        patience = LEAVE_PATIENCE if is_there else 0.0
        async with asyncio.TaskGroup() as leaving:
            tasks = [leaving.create_task(_problem_in_leaving(run, patience)) for run in self._entered]
        problems = [problem for task in tasks if (problem := task.result()) is not None]
        if problems:
            _log.warning("%d runs were left early and could not be cancelled: %s", len(problems), problems[0])

    def run(
        self,
        session: str,
        user_input: str | Sequence[InputPart],
        *,
        run_id: str | None = None,
        expires: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AttachedRun:
        """A turn, and its events: `async for event in client.run("user-123", "hi")`.

        The last event is the terminal one; failure is an event too (`events.RunFailed`), while `result()`
        raises it. Leaving early cancels the run; `async with client.run(…) as run` makes that deterministic.
        `run_id` makes a repeated call safe: it attaches to the run of the first. `headers` travel with the
        message (`traceparent`, for one).

        Raises `InvalidSessionId`, `InvalidRunId`, `InvalidTurn` here, and when the run is entered or iterated
        `SessionBacklogFull`, `Overloaded`, `TurnTooLarge`, `AcceptanceUnknown`, `TopologyMissing`,
        `BrokerUnavailable`.
        """
        submission = Submission(
            session, user_input, run_id=run_id, expires=expires, metadata=metadata, headers=headers
        )

        async def begin() -> Listener:
            await self._jetstream.turnstile.passed()
            # Listening begins before the turn is published, so a run with a new id is heard from the start.
            listener = await self._listener(session, submission.run_id, replay=submission.is_named)
            try:
                await submission.accept(self._jetstream, self._subjects, patience=self._patience)
            except BaseException:
                await listener.close()
                raise
            return listener

        return AttachedRun(self, session, submission.run_id, begin=begin, entered=self._entered)

    async def submit(
        self,
        session: str,
        user_input: str | Sequence[InputPart],
        *,
        run_id: str | None = None,
        expires: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Run:
        """A turn, accepted when this returns; the run goes on without its caller. Raises as `run` does."""
        submission = Submission(
            session, user_input, run_id=run_id, expires=expires, metadata=metadata, headers=headers
        )
        await self._jetstream.turnstile.passed()
        await submission.accept(self._jetstream, self._subjects, patience=self._patience)
        return Run(self, session, submission.run_id)

    def attach(self, session: str, run_id: str, *, after: str = "") -> Run:
        """A handle on any run, from any process: its events after a position (`run.position`), by default
        from the first one, replayed and then live. Raises `InvalidPosition`.

        A run that is queued, or that never was, stays silent: bound the wait with `asyncio.timeout`.
        """
        self._subjects.event(session, run_id)  # raises for ids that cannot be
        return Run(self, session, run_id, after=Position.parse(after) if after else START)

    async def snapshot(self, session: str) -> Snapshot:
        """What is committed of a session; version 0 if nothing is.

        Any worker answers. Raises `NoWorkers`, `StoreUnavailable`, `BrokerUnavailable`.
        """
        subject = self._subjects.snapshot(session)
        first: SnapshotPage | None = None
        messages: list[Message] = []
        replies = self._jetstream.request_many(subject)
        try:
            async with contextlib.aclosing(replies):
                async for reply in replies:
                    page = _pages.decode(reply.data)
                    if page.error:
                        raise StoreUnavailable(f"snapshot of session {session!r}: {page.error}")
                    first = first or page
                    messages += page.messages
                    if page.last:
                        break
        except NoResponders:
            raise NoWorkers(
                f"no worker answers in namespace {self._subjects.namespace!r}: start one"
            ) from None
        page = first or SnapshotPage()
        return Snapshot(
            session=session,
            version=page.version,
            messages=tuple(messages),
            state=page.state,
            runs=page.runs,
            continuation=Continuation(agent=page.agent, waits=page.waits, compaction=page.compaction),
        )

    async def listen(self, session: str, run_id: str, after: Position) -> Listener:
        """An open listener to a run's events after a position. `attach` is the usual way."""
        return await self._listener(session, run_id, replay=True, after=after)

    async def cancel(self, session: str, run_id: str, reason: str = "") -> None:
        """Ends a run, executing or queued; returns once the request is safe with the broker.

        1,024 bytes of `reason` are kept. Raises `InvalidSessionId`, `InvalidRunId`, `TopologyMissing`,
        `BrokerUnavailable`, and `Overloaded` if the namespace keeps no more cancellations now: a run that
        executes may have been stopped all the same, one that is queued was not.
        """
        jetstream = self._jetstream
        subject = self._subjects.cancel(session, run_id)
        try:
            await jetstream.publish(subject, codec.encode(Cancel(reason=cut_reason(reason))))
        except BrokerRefused as error:
            if error.err_code != STREAM_FULL:
                raise
            raise Overloaded(
                f"the namespace keeps no more cancellations now ({error.description}): run {run_id!r} is not "
                "cancelled unless it was executing; cancel it again later"
            ) from error
        except NoResponders:
            await check_declared(jetstream, self._subjects)
            raise

    def fail(self, error: Exception) -> None:
        """Ends all iterations, and every later call, with `error`: the broker will not come back."""
        self._failure = error
        for listener in self._listeners:
            listener.fail(error)

    def _connection_closed(self, reason: str) -> None:
        self.fail(ConnectionClosed(f"the connection to the broker is closed for good: {reason}"))

    @property
    def _jetstream(self) -> JetStream:
        if self._open is not None and self._failure is not None:
            raise self._failure
        if self._open is None:
            raise BrokerUnavailable("the client is not open: use it inside `async with Client(…) as client`")
        if self._opened_in != os.getpid():
            raise LifecycleError(
                f"this client was opened in process {self._opened_in} and cannot be used in process "
                f"{os.getpid()}, which was forked from it: open a client in each process"
            )
        return self._open

    async def _listener(
        self, session: str, run_id: str, *, replay: bool, after: Position = START
    ) -> Listener:
        listener = Listener(
            self._jetstream,
            self._subjects.events_stream,
            self._subjects.event(session, run_id),
            replay=replay,
            after=after,
            alarms=self._alarms,
            on_close=self._listeners.discard,
        )
        await listener.open()
        self._listeners.add(listener)
        return listener

    def _reconnected(self) -> None:
        if self._open is not None:
            self._open.reconnected()
        for listener in self._listeners:
            listener.catch_up()


async def _problem_in_leaving(run: AttachedRun, patience: float) -> str | None:
    try:
        await run.leave(patience)
    except TimeoutError:
        return "the broker is away, or does not answer"
    except AttoError as error:
        return str(error)
    return None
