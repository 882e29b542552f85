"""Answers requests for sessions' committed snapshots, whatever store they are in."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import nats.errors
from nats.aio.msg import Msg

from atto.aio.user_code import UserCode
from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.errors import AttoError, StoreError
from atto.protocol.ids import decode_session
from atto.protocol.messages import Message
from atto.protocol.sessions import Snapshot, SnapshotPage
from atto.protocol.subjects import Subjects
from atto.stores import SessionStore

_log = logging.getLogger("atto.worker")

QUEUE = "workers"
LOADS = 8
"""Sessions that are loaded and encoded at one time, for those who ask for snapshots."""
WAITING = 256
"""Requests that wait or are answered at one time; a further one is told so at once."""
_HEADROOM = 64 << 10


class Snapshots:
    """`async with Snapshots(…)`: one of a namespace's workers answers each request.

    Those who ask for a session that is being loaded are answered from that load, which may have begun before
    they asked only by as long as it waited for its turn.
    """

    def __init__(
        self, jetstream: JetStream, subjects: Subjects, store: SessionStore, tasks: asyncio.TaskGroup
    ) -> None:
        self._connection = jetstream.connection
        self._subjects = subjects
        self._store = store
        self._tasks = tasks
        self._subscription: Any = None
        self._loads = asyncio.Semaphore(LOADS)
        self._asking: dict[str, list[Msg]] = {}
        self._waiting = 0

    async def __aenter__(self) -> Self:
        self._subscription = await self._connection.subscribe(
            self._subjects.snapshots, queue=QUEUE, cb=self._hear
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        if self._subjects.may_be_answered(message.reply):
            await self._take(message)

    async def _take(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        if self._waiting >= WAITING:
            busy = f"{WAITING} requests for snapshots wait already in this worker: ask again in a moment"
            await self._send([message], [codec.encode(SnapshotPage(error=busy))])
            return
        self._waiting += 1
        asking = self._asking.get(token)
        if asking is not None:
            asking.append(message)
            return
        self._asking[token] = [message]
        self._tasks.create_task(self._answer(token), name="snapshot")

    async def _answer(self, token: str) -> None:
        """One load for all who have asked until it began, and the pages for one after another."""
        async with self._loads:
            messages = self._asking.pop(token)
            try:
                answers = await self._answers(token)
                await self._send(messages, answers)
            finally:
                self._waiting -= len(messages)

    async def _answers(self, token: str) -> list[bytes]:
        try:
            session = decode_session(token)
            with UserCode("store", type(self._store).__name__, session):
                snapshot = await self._store.load(session)
            answers = [codec.encode(page) for page in self._pages(snapshot or Snapshot(session=session))]
            self._check_sizes(answers)
        except AttoError as error:
            return [codec.encode(SnapshotPage(error=str(error)))]
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the worker goes on
            _log.error("snapshot of %s", token, exc_info=error)
            return [codec.encode(SnapshotPage(error=f"{type(error).__name__}: {error}"))]
        return answers

    async def _send(self, messages: list[Msg], answers: list[bytes]) -> None:
        with contextlib.suppress(nats.errors.Error):
            for message in messages:
                for answer in answers:
                    await message.respond(answer)
                await self._connection.flush()  # so that they do not pile up in memory

    def _check_sizes(self, answers: list[bytes]) -> None:
        longest, limit = max(map(len, answers)), self._connection.max_payload
        if longest > limit:
            raise StoreError(
                f"one of its messages (the results of one step, perhaps), or its state, takes {longest:,} "
                f"bytes, more than the {limit:,} that the broker takes in one message: raise its max_payload"
            )

    def _pages(self, snapshot: Snapshot) -> Iterator[SnapshotPage]:
        """As many messages on each as travel together; the first page has the rest of the snapshot too."""
        limit = self._connection.max_payload - _HEADROOM
        pages: list[list[Message]] = [[]]
        size = len(codec.encode(snapshot.state))
        for message in snapshot.messages:
            weight = len(codec.encode(message))
            if size + weight > limit and (pages[-1] or len(pages) == 1):  # the state may fill the first alone
                pages.append([])
                size = 0
            pages[-1].append(message)
            size += weight
        first, *others = (tuple(page) for page in pages)
        version, is_only = snapshot.version, not others
        continuation = snapshot.continuation
        yield SnapshotPage(
            version=version,
            messages=first,
            state=snapshot.state,
            runs=snapshot.runs,
            agent=continuation.agent,
            waits=continuation.waits,
            compaction=continuation.compaction,
            last=is_only,
        )
        for number, page in enumerate(others, 1):
            yield SnapshotPage(version=version, messages=page, last=number == len(others))
