"""The worker: a process's share of the partitions, and the turns of their sessions."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client as Connection

from atto.agents import Agent
from atto.aio.beside import in_task, left_behind
from atto.aio.daemon_threads import use_daemon_threads
from atto.aio.user_code import UserCode, describe
from atto.broker.connection import DEFAULT_SERVER, check_options, connected
from atto.broker.jetstream import JetStream
from atto.broker.nats_internals import on_closed
from atto.models import Closeable
from atto.protocol.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ConnectionClosed,
    LifecycleError,
    TopologyMissing,
)
from atto.protocol.messages import Origin
from atto.stores import SessionStore, open_store
from atto_workers.cancels import Cancels
from atto_workers.collector import collect_less_often
from atto_workers.credits import BYTES, TURNS, Credits
from atto_workers.delivery import Claim, Delivery
from atto_workers.gateway import ModelGateway, ModelPolicies, ModelUsage
from atto_workers.intake import Intake
from atto_workers.mailbox import Mailboxes
from atto_workers.ownership import Ownership
from atto_workers.passivation import IDLE_LIMIT, MEMORY_LIMIT, IdleSessions
from atto_workers.presence import STAND_IN_AGE, About, Presence, Renewals
from atto_workers.run.acknowledging import Acknowledgements
from atto_workers.run.evidence import EventsPast
from atto_workers.run.health import StreamHealth
from atto_workers.run.outbox import Outbox
from atto_workers.run.runner import TurnRunner
from atto_workers.snapshots import Snapshots
from atto_workers.starting import patiently
from atto_workers.steward import Steward
from atto_workers.topology import Declared, Topology
from atto_workers.watchdog import LIMIT, Watchdog

_log = logging.getLogger("atto.worker")

WATCH_PERIOD = 1.0
"""Seconds between looks whether a connection that the user brought was lost in between."""
PASSIVATION_PERIOD = 1.0
"""Seconds between looks for sessions that have been idle for too long."""

CLOSE_PATIENCE = 2.0
"""Seconds that a model has to let go of its connections."""

_SIGNING = {"signature_cb", "user_jwt_cb"}
_PROBED = "atto-readiness"  # a session that need not be there


class Worker:
    """`async with Worker(agent, nats="nats://…")` runs turns until it is left; `serve()` until a signal.

    `nats`: addresses, or an open connection to use and leave open. `store`: where sessions are kept, an
    object or a URL as `open_store` takes it; the namespace's own KV bucket by default. `topology`: how the
    namespace is declared if it is not yet; what it sets is enforced if it is. `concurrency`: turns that run
    at one time; up to 4,096 more are held queued, and together 64 MiB of them (`held_limit`, in bytes).
    `grace`: seconds that running turns have to finish when the worker stops or lets go of a partition; those
    that do not are gone on with elsewhere. `idle_limit`, `memory_limit`: when idle sessions leave memory
    (seconds, bytes). `models`: how the gateway treats the models, as of `ModelPolicies`. `block_limit`:
    seconds for which code that blocks the event loop does not cost the worker its partitions.
    `options`: as of `nats.connect`.

    Leaving drains: nothing new begins, what runs may finish, every partition is handed back. It ends within
    `grace` and some 15 seconds more, whatever tools, models and stores do: calls that ignore their
    cancellation are left behind, and named in the log. So that they hold up no exit either, the event loop
    gets a default executor with daemon threads, unless it has one.

    A worker may be made before a process is forked and entered in its children, or entered again once it was
    left: each time under a new `id`. Entering raises `LifecycleError` while it is open.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        nats: str | list[str] | Connection = DEFAULT_SERVER,
        namespace: str = "atto",
        store: SessionStore | str = "nats-kv",
        topology: Topology | None = None,
        concurrency: int = 256,
        grace: float = 30.0,
        idle_limit: float = IDLE_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
        held_limit: int = BYTES,
        models: ModelPolicies | None = None,
        block_limit: float = LIMIT,
        **options: Any,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if held_limit < 1:
            raise ValueError(f"held_limit must be at least 1 byte, not {held_limit}")
        self.id = secrets.token_hex(6)
        self._made_in = os.getpid()
        self._entered = False
        self.agent = agent
        self._nats = nats
        self._topology = topology or Topology(namespace)
        self._subjects = self._topology.subjects
        self._store = store
        self._concurrency = concurrency
        self._grace = grace
        self._block_limit = block_limit
        self._held_limit = held_limit
        self._idle_sessions = IdleSessions(idle_limit=idle_limit, memory_limit=memory_limit)
        self._gateway = ModelGateway(models)
        check_options(options)
        self._options = options
        self._stack: contextlib.AsyncExitStack | None = None
        self._intake: Intake | None = None
        self._mailboxes: Mailboxes | None = None
        self._steward: Steward | None = None
        self._joined: tuple[Connection, SessionStore] | None = None
        self._reconnected = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed_because: str | None = None
        self._events_health = StreamHealth(self._subjects.events_stream)

    def __repr__(self) -> str:
        return f"Worker(id={self.id!r}, agent={self.agent.name!r}, namespace={self._subjects.namespace!r})"

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that this worker owns now."""
        claims = {} if self._steward is None else self._steward.claims
        return frozenset(partition for partition in claims if partition is not None)

    @property
    def usage(self) -> Mapping[Origin, ModelUsage]:
        """What each model has come to since this worker was made: calls, failures, tokens, and so on."""
        return self._gateway.usage

    async def unready(self) -> str | None:
        """Why no turns are taken now, for a readiness probe: None if they are."""
        if self._joined is None or self._stack is None:
            return "not started yet, or draining"
        connection, store = self._joined
        if (problem := self.broken()) is not None:
            return problem
        if not connection.is_connected:
            return "not connected to the broker"
        try:
            with UserCode("store", type(store).__name__):
                await store.load(_PROBED)
        except TopologyMissing as error:
            return f"turns wait: {error}"
        except Exception as error:  # noqa: BLE001 - a user's own store may raise anything
            return f"the store does not answer: {type(error).__name__}"
        if (waiting := self._events_health.unready()) is not None:
            return waiting
        return None if self._steward is None else self._steward.unready()

    def broken(self) -> str | None:
        """Why this worker will never take turns again, for a liveness probe: None if nothing is wrong."""
        if self._closed_because is None:
            return None
        return f"the connection to the broker is closed for good: {self._closed_because}"

    async def wait_broken(self) -> str:
        """Returns once the worker will never take turns again, with the reason; else it waits for ever."""
        await self._closed.wait()
        return self.broken() or ""

    async def __aenter__(self) -> Self:
        self._begin_life()
        use_daemon_threads()
        try:
            await self._join()
        except BaseExceptionGroup as group:  # the task group's, around what went wrong
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group
            raise
        return self

    def _begin_life(self) -> None:
        """A worker that is entered once more, or in a forked process, is another one: under one id, each of
        two processes would take the other's partitions for its own of an earlier life.
        """
        pid = os.getpid()
        if self._stack is not None:
            where = "is open already" if self._made_in == pid else f"was open when process {pid} was forked"
            raise LifecycleError(f"{self!r} {where}: make a Worker of its own")
        if isinstance(self._nats, Connection) and self._made_in != pid:
            raise LifecycleError(
                f"{self!r} was made with a connection of process {self._made_in}, which process {pid} cannot "
                "use: connect after the fork, or give addresses"
            )
        if self._entered or self._made_in != pid:
            self.id = secrets.token_hex(6)
        self._made_in, self._entered = pid, True
        self._intake = self._mailboxes = self._steward = self._joined = None
        self._reconnected = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed_because: str | None = None

    async def _join(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            connection = await self._connection(stack)
            jetstream = await stack.enter_async_context(JetStream(connection))
            declared = await patiently(
                lambda: self._topology.declare(jetstream), "the namespace is being declared"
            )
            store = await self._opened_store(stack, jetstream, declared)
            await self._start(stack, jetstream, declared, store)
            stack.callback(on_closed(connection, self._connection_closed))
            self._joined = connection, store
            self._stack = stack.pop_all()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            # Not told of the body's error, or the task group would wrap it into an ExceptionGroup.
            await stack.aclose()
            for call in left_behind():
                _log.warning("%r has ended, %s has not", self, call)

    async def serve(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Runs until SIGTERM or SIGINT, then drains and returns.

        A second signal ends the process there and then, with exit code 128 + its number; what ran goes on in
        other workers, as after any crash. `on_ready` is called once turns are taken. The process should be
        the worker's own: Python's garbage collector is told to look less often.

        Raises `ConnectionClosed` once the connection to the broker is closed for good.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def signalled(number: int) -> None:
            if stop.is_set():
                os._exit(128 + number)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled, number)
        try:
            async with self:
                if self.partitions:
                    _log.info("%r owns %d partitions", self, len(self.partitions))
                else:
                    _log.info("%r has joined; the others hold its share of the partitions so far", self)
                collect_less_often()
                if on_ready is not None:
                    on_ready()
                await _first(stop, self._closed)
                _log.info("%r drains", self)
            if (problem := self.broken()) is not None:
                raise ConnectionClosed(problem)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _connection_closed(self, reason: str) -> None:
        """Nothing that runs here can be ended any more: others take it over, and it must not go on."""
        _log.error("%r: the connection to the broker is closed for good: %s", self, reason)
        self._closed_because = reason
        self._closed.set()
        if self._steward is not None and self._mailboxes is not None:
            for claim in self._steward.claims.values():
                self._mailboxes.lose(claim)

    async def _connection(self, stack: contextlib.AsyncExitStack) -> Connection:
        if isinstance(self._nats, Connection):
            return self._nats
        options: dict[str, Any] = {"name": f"atto-worker-{self.id}", **self._options}
        return await stack.enter_async_context(
            connected(self._nats, on_reconnect=self._reconnected.set, **options)
        )

    async def _opened_store(
        self, stack: contextlib.AsyncExitStack, jetstream: JetStream, declared: Declared
    ) -> SessionStore:
        if not isinstance(self._store, str):
            return self._store
        namespace, replicas = self._subjects.namespace, declared.replicas
        return await stack.enter_async_context(
            open_store(self._store, jetstream=jetstream, namespace=namespace, replicas=replicas)
        )

    async def _start(
        self,
        stack: contextlib.AsyncExitStack,
        jetstream: JetStream,
        declared: Declared,
        store: SessionStore,
    ) -> None:
        """Builds the worker from the inside out; the stack takes it apart in the reverse order."""
        for model in self.agent.all_models:
            if isinstance(model, Closeable):
                stack.push_async_callback(_close, model)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())

        def serve(work: Coroutine[Any, Any, None], name: str) -> None:
            stack.push_async_callback(stopped, tasks.create_task(work, name=name))

        is_replicated = declared.replicas > 1
        health = self._events_health
        past = EventsPast(jetstream, self._subjects)
        serve(health.watch(past.check), "events watch")
        outbox = Outbox(
            jetstream,
            is_replicated=is_replicated,
            max_age=declared.events_max_age,
            kept=declared.events_kept,
            health=health,
        )
        serve(outbox.serve(), "outbox")
        serve(outbox.keep(), "journal keeper")
        acknowledgements = Acknowledgements(jetstream, is_replicated=is_replicated)
        serve(acknowledgements.serve(), "acknowledgements")
        cancels = Cancels(jetstream, self._subjects, on_early=self._expedite, held=self._held)
        runner = TurnRunner(
            self.agent,
            store,
            jetstream=jetstream,
            subjects=self._subjects,
            outbox=outbox,
            past=past,
            acknowledgements=acknowledgements,
            cancels=cancels,
            gateway=self._gateway,
            verify=self._verify,
            assure=self._assure,
        )
        self._mailboxes = await stack.enter_async_context(
            Mailboxes(runner, self._idle_sessions, limit=self._concurrency, on_finished=self._finished)
        )
        await stack.enter_async_context(cancels)
        turns = TURNS + self._concurrency
        allowed = Credits(turns, self._held_limit, largest=jetstream.connection.max_payload)
        self._intake = await stack.enter_async_context(
            Intake(
                jetstream.connection,
                self._subjects,
                credits=allowed,
                deliver=self._mailboxes.deliver,
                doubt=self._look,
                missed=self._renew,
            )
        )
        serve(self._intake.serve(), "intake")
        serve(self._passivate(), "passivation")
        await stack.enter_async_context(Snapshots(jetstream, self._subjects, store, tasks))
        presence = await stack.enter_async_context(
            Presence(jetstream, self._subjects, self.id, about=About.own(self.agent.name), on_news=self._look)
        )
        ownership = Ownership(
            jetstream,
            self._subjects,
            self.id,
            max_ack_pending=allowed.turns,
            replicas=declared.replicas,
        )
        self._steward = Steward(
            ownership,
            presence,
            self._intake,
            self._mailboxes,
            tasks=tasks,
            worker=self.id,
            partitions=declared.partitions,
            grace=self._grace,
        )
        await patiently(presence.beat, "a key that says that this worker is here")
        await presence.announce()
        stack.push_async_callback(self._steward.release_all)
        stack.push_async_callback(presence.leave)
        await stack.enter_async_context(
            Watchdog(self.id, self._stand_in(presence.renewals), limit=self._block_limit)
        )
        serve(presence.serve(), "presence")
        await patiently(self._steward.reconcile, "a first look at the partitions, and its share of them")
        serve(self._steward.serve(), "steward")
        serve(self._watch(jetstream, outbox, acknowledgements, cancels), "connection watch")

    def _stand_in(self, renewals: Renewals) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """Renews the presence from another thread; over a connection of its own, so not over the user's."""
        servers = self._nats
        if isinstance(servers, Connection):
            return None
        options = {
            name: option
            for name, option in self._options.items()
            if name in _SIGNING or not name.endswith("_cb")  # the others are the main connection's
        }
        options["name"] = f"atto-worker-{self.id}-stand-in"
        about = About.own(self.agent.name)

        async def stand_in() -> None:
            await asyncio.sleep(max(0.0, STAND_IN_AGE - renewals.age))
            async with (
                connected(servers, on_reconnect=_nothing, **options) as connection,
                JetStream(connection) as jetstream,
                Presence(
                    jetstream, self._subjects, self.id, about=about, on_news=_nothing, renewals=renewals
                ) as presence,
            ):
                await presence.serve()

        return stand_in

    # What the parts tell one another goes through the worker, so that none of them needs to know the others.

    def _expedite(self, token: str, run: str, reason: str) -> None:
        if self._steward is not None and self._mailboxes is not None:
            self._mailboxes.expedite(self._steward.claims.values(), token, run, reason)

    def _held(self) -> Iterator[Delivery]:
        claims = {} if self._steward is None else self._steward.claims
        for claim in claims.values():
            yield from claim.held.values()

    def _finished(self, delivery: Delivery) -> None:
        if self._intake is not None:
            self._intake.finished(delivery)

    def _look(self, _claim: Claim | None = None) -> None:
        if self._steward is not None:
            self._steward.look()

    def _renew(self, claim: Claim) -> None:
        if self._steward is not None:
            self._steward.renew(claim)

    async def _assure(self, claim: Claim) -> bool:
        return self._steward is not None and await self._steward.assure(claim)

    async def _verify(self, claim: Claim) -> None:
        if self._steward is not None:
            await self._steward.verify(claim)

    async def _watch(
        self, jetstream: JetStream, outbox: Outbox, acknowledgements: Acknowledgements, cancels: Cancels
    ) -> None:
        """After a reconnect: pulls are gone, cancellations may have been missed, ids forgotten."""
        connection = jetstream.connection
        reconnects = connection.stats["reconnects"]
        is_behind = False
        while True:
            try:
                async with asyncio.timeout(WATCH_PERIOD):
                    await self._reconnected.wait()
            except TimeoutError:
                pass
            self._reconnected.clear()
            if connection.stats["reconnects"] != reconnects and self._intake is not None:
                reconnects, is_behind = connection.stats["reconnects"], True
                jetstream.reconnected()
                # Before anything may make a consumer again that a restarted broker has lost.
                await acknowledgements.repeat()
                outbox.reconnected()
                self._intake.reconnected()
                self._look()
            if is_behind or cancels.is_worn:
                with contextlib.suppress(BrokerUnavailable, BrokerRefused):
                    await cancels.catch_up()
                    is_behind = False

    async def _passivate(self) -> None:
        while True:
            await asyncio.sleep(PASSIVATION_PERIOD)
            # This is no wait: others' turns go on in between.
            while self._idle_sessions.sweep() or self._idle_sessions.pack():  # noqa: ASYNC110
                await asyncio.sleep(0)


async def _close(model: Closeable) -> None:
    """Whatever it does, the worker ends."""
    call = UserCode("model", type(model).__name__)

    async def close() -> None:
        with call:
            await model.aclose()

    try:
        async with asyncio.timeout(CLOSE_PATIENCE):
            await in_task(close(), f"closing {call.name}", call, patience=1.0)
    except Exception as error:  # noqa: BLE001 - of any kind
        _log.warning("%s was not closed: %s", call, describe(error))


def _nothing() -> None:
    """Where news are for somebody else."""


async def stopped(task: asyncio.Task[Any]) -> None:
    """Cancels a service and waits for its end, so that what it was about is over when the next part stops."""
    task.cancel()
    await asyncio.wait([task])


async def _first(*events: asyncio.Event) -> None:
    """Returns once one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            await stopped(task)
