"""How callers behave: they talk, pile turns up, cancel, leave, come back, and lose patience."""

import asyncio
import contextlib
import random
import uuid
from collections import deque
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from atto.protocol.events import RunCompleted, TextDelta
from atto.protocol.ids import new_run_id
from tests.chaos.caller import Caller, Hearing, Session
from tests.chaos.turns import Script, make_script

SKEWS = (-3600.0, -400.0, -150.0, -100.0, 100.0, 150.0, 400.0, 3600.0)
"""Seconds by which clocks of callers are wrong: around the two minutes for which a broker knows an id."""
REMEMBERED = 8
"""Ended turns of a session that may be submitted once more."""
BACK_OFF = 0.3
"""Seconds before one who was refused says something else."""
PATIENCE = 30.0
"""Seconds after which a conversation goes on without the end of a run; that is awaited later."""


ACTS: dict[str, float] = {
    "talk": 30,
    "work": 10,
    "submit_again": 8,
    "read": 6,
    "burst": 15,
    "flood": 1,
    "cancel_running": 5,
    "cancel_queued": 4,
    "cancel_long": 1,
    "talk_long": 1,
    "leave": 4,
    "come_back": 12,
    "lose_patience": 8,
    "repeat": 4,
}
"""What callers do, and how often."""


def skewed(run_id: str, seconds: float) -> str:
    """The run id, a UUIDv7, as a clock that is wrong by so many seconds would have made it."""
    return str(uuid.UUID(int=uuid.UUID(run_id).int + (int(seconds * 1000) << 80)))


class Handoff(Struct, frozen=True):
    """A run for another client process to listen to, after what `follows` heard of it."""

    to: int
    session: str
    label: str
    run: str
    after: int
    position: str
    follows: str


class Conversation:
    """One session at a time, each for some dozens of turns. `name` is unlike that of any other conversation;
    `first`: a session to go on with. `hand_off`: gives a run to another process. `acts`: only these, with
    their weights; none: all.
    """

    def __init__(
        self,
        caller: Caller,
        name: str,
        chance: random.Random,
        *,
        backlog: int,
        hand_off: Callable[[Session, str, str, Hearing], None],
        first: str | None,
        acts: dict[str, float] | None = None,
    ) -> None:
        self.session: Session | None = None
        self._caller = caller
        self._name = name
        self._chance = chance
        self._backlog = backlog
        self._hand_off = hand_off
        self._first = first
        self._said = 0
        self._ended: deque[tuple[Script, str]] = deque(maxlen=REMEMBERED)
        self._acts = acts or ACTS

    async def hold(self, stopping: asyncio.Event) -> None:
        sessions = 0
        while not stopping.is_set():
            session_id = self._first or f"{self._name}-{sessions}" + self._chance.choice(("", "", "@näme.x"))
            self._first = None
            self.session = session = self._caller.session(session_id)
            self._ended.clear()
            sessions += 1
            until = self._said + self._chance.randint(15, 70)
            while self._said < until and not stopping.is_set():
                name = self._chance.choices(list(self._acts), list(self._acts.values()))[0]
                act = getattr(self, f"_{name}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await act(session)
                await asyncio.sleep(self._chance.random() * 0.02)
            self.session = None
            session.recorder.close()

    def _script(self, *, slow: bool = False, steps: int | None = None) -> Script:
        self._said += 1
        label = f"{self._name}#{self._said}"
        return make_script(label, self._chance, slow=slow, steps=steps)

    async def _read(self, session: Session) -> None:
        """Asks for the history as soon as the end of a turn is heard."""
        script = self._script()
        run = await self._caller.submit(session, script)
        if run is None:
            return
        hearing = self._caller.hear(session, script.label, run)
        async with contextlib.aclosing(hearing.events()) as events:
            async for event in events:
                if isinstance(event, RunCompleted):
                    await self._caller.read(session)
        self._ended.append((script, run.run_id))

    async def _work(self, session: Session) -> None:
        """A turn of several steps with tools, under an id by a clock that may be wrong."""
        script = self._script(steps=self._chance.randint(1, 3))
        script = replace(script, fails=self._chance.random() < 0.2)
        run_id = new_run_id()
        if self._chance.random() < 0.5:
            run_id = skewed(run_id, self._chance.choice(SKEWS))
        run = await self._caller.submit(session, script, run_id=run_id)
        if run is not None:
            await self._hear_all(session, script, run)
            self._ended.append((script, run_id))

    async def _submit_again(self, session: Session) -> None:
        """A turn that has ended, under its run id: perhaps the caller does not know that any more."""
        if not self._ended:
            return await self._work(session)
        script, run_id = self._chance.choice(self._ended)
        run = await self._caller.submit(session, script, run_id=run_id)
        if run is not None:
            await self._hear_all(session, script, run)
        return None

    async def _cancel_long(self, session: Session) -> None:
        """A run that would speak for long is told to end: it does, soon."""
        script = replace(self._script(steps=0), chunks=400, pause=40)
        run = await self._caller.submit(session, script)
        if run is None:
            return
        hearing = self._caller.hear(session, script.label, run)
        async with contextlib.aclosing(hearing.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta) and hearing.last == 2:
                    await self._caller.cancel(session, script.label, run)
        self._ended.append((script, run.run_id))

    async def _talk_long(self, session: Session) -> None:
        """A run that is interrupted more than once, wherever processes come and go."""
        script = replace(self._script(steps=1), chunks=100, pause=40)
        run = await self._caller.submit(session, script)
        if run is not None:
            await self._hear_all(session, script, run)

    async def _talk(self, session: Session) -> None:
        script = self._script()
        async with self._caller.attached(session, script, run_id=self._perhaps_named()) as run:
            if run is None:
                await asyncio.sleep(BACK_OFF)
                return
            also = self._caller.client.attach(session.id, run.run_id)
            listeners = [run, also] if self._chance.random() < 0.15 else [run]
            await self._hear_all(session, script, *listeners)
            self._ended.append((script, run.run_id))

    async def _burst(self, session: Session) -> None:
        scripts = [self._script() for _ in range(self._chance.randint(2, 6))]
        if self._chance.random() < 0.5:
            runs = await asyncio.gather(*(self._caller.submit(session, script) for script in scripts))
        else:
            runs = [await self._caller.submit(session, script) for script in scripts]
        await self._hear_each(session, scripts, runs)

    async def _flood(self, session: Session) -> None:
        """More than the backlog holds: what is refused was not accepted, what is accepted counts."""
        scripts = [self._script() for _ in range(self._backlog + 3)]
        runs = await asyncio.gather(*(self._caller.submit(session, script) for script in scripts))
        await self._hear_each(session, scripts, runs)

    async def _cancel_running(self, session: Session) -> None:
        script = self._script(slow=True)
        run = await self._caller.submit(session, script)
        if run is None:
            return
        hearing = self._caller.hear(session, script.label, run)
        async with contextlib.aclosing(hearing.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    await self._caller.cancel(session, script.label, run)

    async def _cancel_queued(self, session: Session) -> None:
        scripts = [self._script(slow=True), self._script()]
        runs = [await self._caller.submit(session, script) for script in scripts]
        if runs[1] is not None:
            await self._caller.cancel(session, scripts[1].label, runs[1])
        await self._hear_each(session, scripts, runs)

    async def _leave(self, session: Session) -> None:
        script = self._script(slow=True)
        run_id = None
        async with self._caller.attached(session, script) as run:
            if run is None:
                return
            run_id = run.run_id
            hearing = self._caller.hear(session, script.label, run)
            patience = self._chance.randint(1, 4)
            async with contextlib.aclosing(hearing.events()) as events:
                async for _ in events:
                    if hearing.last >= patience:
                        break
        await self._hear_all(session, script, self._caller.client.attach(session.id, run_id))

    async def _come_back(self, session: Session) -> None:
        """Stops listening in the middle; somebody resumes, here or in another process."""
        script = self._script(slow=self._chance.random() < 0.3)
        run = await self._caller.submit(session, script)
        if run is None:
            return
        hearing = self._caller.hear(session, script.label, run)
        until = self._chance.randint(1, 8)
        async with contextlib.aclosing(hearing.events()) as events:
            async for _ in events:
                if hearing.last >= until:
                    break
        if self._chance.random() < 0.5:
            self._hand_off(session, script.label, run.run_id, hearing)
            await self._hear_all(session, script, run)
            return
        await asyncio.sleep(self._chance.random() * 0.3)
        resumed = self._caller.client.attach(session.id, run.run_id, after=hearing.position)
        if not hearing.ended:
            await self._caller.hear(
                session, script.label, resumed, after=hearing.last, follows=hearing.name
            ).to_end()

    async def _lose_patience(self, session: Session) -> None:
        script = self._script()
        run = await self._caller.submit(session, script)
        if run is None:
            return
        hearing = asyncio.create_task(self._caller.hear(session, script.label, run).to_end())
        try:
            done, _ = await asyncio.wait({hearing}, timeout=self._chance.uniform(0.2, 2.0))
            if not done:
                await self._caller.cancel(session, script.label, run)
            await hearing
        finally:
            hearing.cancel()

    async def _repeat(self, session: Session) -> None:
        """The same turn twice, under one run id: it is one turn."""
        script, run_id = self._script(), new_run_id()
        runs = await asyncio.gather(*(self._caller.submit(session, script, run_id=run_id) for _ in "ab"))
        await self._hear_each(session, [script, script], runs)

    def _perhaps_named(self) -> str | None:
        return new_run_id() if self._chance.random() < 0.3 else None

    async def _hear_all(self, session: Session, script: Script, *runs) -> None:
        await self._hear_each(session, [script] * len(runs), runs)

    async def _hear_each(self, session: Session, scripts, runs) -> None:
        async with asyncio.TaskGroup() as tasks:
            for script, run in zip(scripts, runs, strict=True):
                if run is not None:
                    tasks.create_task(self._caller.hear(session, script.label, run).to_end())
