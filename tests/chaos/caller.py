"""What one client process does with turns, every step of it written down."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from msgspec import Struct

from atto.protocol.errors import AcceptanceUnknown, AttoError
from atto.protocol.events import AnyEvent, is_terminal
from atto.protocol.ids import new_run_id
from atto_client import Client, Run
from atto_client.submission import Submission
from tests.chaos.records import (
    Accepted,
    Broke,
    CancelAsked,
    CancelTaken,
    Heard,
    Invoked,
    Listening,
    Read,
    Recorder,
    Refused,
    Unknown,
    now,
    session_directory,
)
from tests.chaos.turns import Script


class Owed(Struct, frozen=True, omit_defaults=True):
    """A run that this client has to see to its end: a line of the client's journal, which outlives its
    process. The second line of a run, with `done`, settles it.
    """

    run: str
    session: str = ""
    text: str = ""
    label: str = ""
    done: bool = False


class Session:
    """One session, with the file of this process for it."""

    def __init__(self, directory: Path, session: str, process: str) -> None:
        self.id = session
        self.recorder = Recorder(session_directory(directory, session) / f"{process}.jsonl")


class Caller:
    """`process` names the client process, for its files and its listeners."""

    def __init__(self, client: Client, directory: Path, process: str, journal: Recorder) -> None:
        self.client = client
        self.directory = directory
        self.process = process
        self.owed: dict[str, Owed] = {}
        self._journal = journal
        self._listeners = itertools.count(1)
        self._sequences = _note_sequences()

    def session(self, session: str) -> Session:
        return Session(self.directory, session, self.process)

    def owe(self, owed: Owed) -> None:
        """From now on the run must be seen to its end, if not by this process then by its successor."""
        self.owed[owed.run] = owed
        self._journal.add_now(owed)

    def settle(self, run: str) -> None:
        """Nobody needs to see to the run any more; whatever shows that must be in its file before."""
        if self.owed.pop(run, None) is not None:
            self._journal.add(Owed(run, done=True))

    async def submit(self, session: Session, script: Script, *, run_id: str | None = None) -> Run | None:
        """A detached run, or None if the turn was not, or may not have been, accepted."""
        run_id = run_id or new_run_id()
        with self._offered(session, script, run_id):
            return await self.client.submit(session.id, script.text(), run_id=run_id)
        return None

    @contextlib.asynccontextmanager
    async def attached(
        self, session: Session, script: Script, *, run_id: str | None = None
    ) -> AsyncIterator[Run | None]:
        """A run that ends with its caller; likewise. Whoever leaves it early has asked for its end."""
        run = self.client.run(session.id, script.text(), run_id=run_id)
        async with contextlib.AsyncExitStack() as stack:
            entered = False
            with self._offered(session, script, run.run_id):
                await stack.enter_async_context(run)
                entered = True
            try:
                yield run if entered else None
            finally:
                if run._terminal is None:
                    session.recorder.add_now(CancelAsked(t=now(), label=script.label))

    @contextlib.contextmanager
    def _offered(self, session: Session, script: Script, run_id: str):
        label = script.label
        session.recorder.add_now(Invoked(t=now(), label=label, run=run_id, text=script.text()))
        self.owe(Owed(run_id, session.id, script.text(), label))
        try:
            yield
        except AcceptanceUnknown as error:
            session.recorder.add(Unknown(t=now(), label=label, error=str(error)))
        except AttoError as error:
            session.recorder.add_now(Refused(t=now(), label=label, error=type(error).__name__))
            self.settle(run_id)
        except asyncio.CancelledError:
            # The caller gave up in the middle of it; an attached run asks for its end then.
            session.recorder.add_now(CancelAsked(t=now(), label=label))
            raise
        else:
            sequence, duplicate = self._sequences.pop(run_id, (0, False))
            session.recorder.add(Accepted(t=now(), label=label, sequence=sequence, duplicate=duplicate))

    def hear(self, session: Session, label: str, run: Run, *, after: int = 0, follows: str = "") -> "Hearing":
        """A new listener; `after` and `follows` as in `Listening`."""
        return Hearing(self, f"{self.process}.{next(self._listeners)}", session, label, run, after, follows)

    async def cancel(self, session: Session, label: str, run: Run) -> None:
        """Until the broker has the request, or ten times at most."""
        session.recorder.add_now(CancelAsked(t=now(), label=label))
        for _ in range(10):
            with contextlib.suppress(AttoError):
                await run.cancel("enough")
                session.recorder.add(CancelTaken(t=now(), label=label))
                return
            await asyncio.sleep(0.5)

    async def read(self, session: Session) -> None:
        """Reads the session; where that fails, there is nothing to be said."""
        began = now()
        with contextlib.suppress(AttoError):
            snapshot = await self.client.snapshot(session.id)
            session.recorder.add(Read(t=began, version=snapshot.version))


class Hearing:
    """One listener. `last`, `position`: of the event that it heard last; `ended`: it was a terminal one."""

    def __init__(
        self, caller: Caller, name: str, session: Session, label: str, run: Run, after: int, follows: str
    ) -> None:
        self.name = name
        self.last = after
        self.position = ""
        self.ended = False
        self._caller = caller
        self._run = run
        self._recorder = session.recorder
        self._add = session.recorder.add
        self._add(
            Listening(t=now(), listener=name, label=label, run=run.run_id, after=after, follows=follows)
        )

    async def events(self) -> AsyncGenerator[AnyEvent, None]:
        """The run's events, up to the terminal one or to an error, each written down."""
        try:
            async with contextlib.aclosing(aiter(self._run)) as events:
                async for event in events:
                    self.position = self._run.position
                    self._add(Heard(t=now(), listener=self.name, event=event, position=self.position))
                    self.last = event.seq
                    if is_terminal(event):
                        self.ended = True
                        self._recorder.flush()
                        self._caller.settle(self._run.run_id)
                    yield event
        except AttoError as error:
            self._add(Broke(t=now(), listener=self.name, error=f"{type(error).__name__}: {error}"))

    async def to_end(self) -> bool:
        """Whether there was one."""
        async with contextlib.aclosing(self.events()) as events:
            async for _ in events:
                pass
        return self.ended


def _note_sequences() -> dict[str, tuple[int, bool]]:
    """The client's API does not tell the stream sequence of a turn; here it is looked over its shoulder."""
    sequences: dict[str, tuple[int, bool]] = {}
    accept = Submission.accept

    async def accepted(self, *arguments, **keywords):
        answer = await accept(self, *arguments, **keywords)
        sequences[self.run_id] = (answer.sequence, answer.duplicate)
        return answer

    Submission.accept = accepted
    return sequences
