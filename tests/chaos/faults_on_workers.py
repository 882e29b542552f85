"""What is done to worker processes, from outside and by their users' code."""

import asyncio
import signal

from tests.chaos.fail_points import PAUSED, POINTS
from tests.chaos.records import Fault, now
from tests.chaos.victims import ARMED, Action, Victims, fault_on, held, said
from tests.chaos.worker_process import RAISED

PAUSED_AT = ("in_model_stream", "before_append", "before_effect", "before_save")
"""The fail points at which a pause, too, finds something that must not be done twice."""
PAUSE = (3.5, 7.0)
"""Seconds: longer than a silent worker is taken for alive."""
HELD = 4.0
"""Seconds for which models say nothing, so that a worker is full."""
STUBBORN = 20.0
"""Seconds for which a tool does not heed its cancellation."""
SKEWS = (-400.0, -150.0, -30.0, 30.0, 150.0, 400.0)
"""Seconds by which a worker's clock is wrong."""


class WorkerFaults:
    def __init__(self, victims: Victims) -> None:
        self._victims = victims
        self._chance = victims.chance

    def actions(self) -> dict[str, Action]:
        return {
            "kill": self._kill,
            "stop": self._stop,
            "term": self._term,
            "term_saturated": self._term_saturated,
            "term_stubborn": self._term_stubborn,
            "block": self._block,
            "raise": self._raise_in("raise"),
            "raise_in_model": self._raise_in("raise_in_model"),
            "skew": self._skew,
            **{f"fail_{point}": self._fail_at(point) for point in POINTS},
            **{f"pause_{point}": self._pause_at(point) for point in PAUSED_AT},
        }

    async def _kill(self) -> Fault | None:
        worker = self._victims.worker()
        if worker is None:
            return None
        with held(worker):
            at = now()
            worker.signal(signal.SIGKILL)
            await self._victims.replace_killed(worker)
        return fault_on("kill", at, worker)

    async def _stop(self) -> Fault | None:
        worker = self._victims.worker()
        if worker is None:
            return None
        with held(worker):
            at = now()
            worker.signal(signal.SIGSTOP)
            await asyncio.sleep(self._chance.uniform(0.5, 6))
            until = now()
            worker.signal(signal.SIGCONT)
        return fault_on("stop", at, worker, until=until)

    async def _term(self) -> Fault | None:
        worker = self._victims.worker()
        if worker is None:
            return None
        with held(worker):
            at = now()
            await self._victims.deploy(worker)
        return fault_on("term", at, worker)

    async def _term_saturated(self) -> Fault | None:
        """All that it does takes long, and more waits for its turn, when it is told to leave."""
        worker = self._victims.worker()
        if worker is None:
            return None
        with held(worker):
            worker.tell(f"hold {HELD}")
            await asyncio.sleep(1)
            at = now()
            await self._victims.deploy(worker)
        return fault_on("term_saturated", at, worker)

    async def _term_stubborn(self) -> Fault | None:
        """A tool that it runs does not heed its cancellation when it is told to leave."""
        worker = self._victims.worker()
        if worker is None:
            return None
        with held(worker):
            worker.tell(f"stubborn {STUBBORN}")
            if not await said(worker, "stubborn"):
                worker.tell("stubborn 0")
                return None
            at = now()
            await self._victims.deploy(worker)
        return fault_on("term_stubborn", at, worker, is_certain=True)

    async def _block(self) -> Fault | None:
        """The event loop stands still in the middle of a tool."""
        worker = self._victims.worker()
        if worker is None:
            return None
        with held(worker):
            seconds = self._chance.uniform(0.5, 8)
            worker.tell(f"block {seconds}")
            if not await said(worker, "blocked"):
                worker.tell("block 0")
                return None
            at = now()
            await asyncio.sleep(seconds)
        return fault_on("block", at, worker, until=at + seconds, is_certain=True)

    def _raise_in(self, name: str) -> Action:
        async def raise_in() -> Fault | None:
            worker = self._victims.worker()
            if worker is None:
                return None
            with held(worker):
                worker.tell(f"{name} {self._chance.choice(list(RAISED))}")
                if not await said(worker, "raised"):
                    return None  # it raises when it may; its record says so
            return fault_on(name, now(), worker, is_certain=True)

        return raise_in

    async def _skew(self) -> Fault | None:
        worker = self._victims.worker()
        if worker is None:
            return None
        with held(worker):
            at = now()
            worker.tell(f"skew {self._chance.choice(SKEWS)}")
            await asyncio.sleep(self._chance.uniform(1, 10))
            until = now()
            worker.tell("skew 0")
        return fault_on("skew", at, worker, until=until)

    def _fail_at(self, point: str) -> Action:
        async def fail() -> Fault | None:
            worker = self._victims.worker()
            if worker is None:
                return None
            with held(worker):
                worker.tell(f"arm {point}")
                try:
                    async with asyncio.timeout(ARMED):
                        await worker.process.wait()
                except TimeoutError:
                    worker.tell("arm nothing")
                    return None
                at = now()
                await self._victims.replace_killed(worker)
            return fault_on(f"fail_{point}", at, worker, is_certain=True)

        return fail

    def _pause_at(self, point: str) -> Action:
        async def pause() -> Fault | None:
            worker = self._victims.worker()
            if worker is None:
                return None
            with held(worker):
                worker.tell(f"pause {point}")
                if not await said(worker, PAUSED):
                    worker.tell("pause nothing")
                    worker.signal(signal.SIGCONT)  # it may have paused right now
                    return None
                at = now()
                await asyncio.sleep(self._chance.uniform(*PAUSE))
                until = now()
                worker.signal(signal.SIGCONT)
            return fault_on(f"pause_{point}", at, worker, until=until, is_certain=True)

        return pause
