"""Slots for the turns that run at one time, shared fairly among those who wait for one."""

import asyncio
import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable
from types import TracebackType

DEBT_LIMIT = 300.0
"""Seconds by which a turn may come later than another one, at most, and go first."""
KNOWN = 16_384
"""Flows whose debts are remembered while they neither hold a slot nor wait for one."""

_SMOOTHING = 1 / 16
"""Weight of the last turn in the average."""


class Slots:
    """`with await slots.acquire(flow)` holds one of `limit` slots. A flow is whoever a share is for.

    A free slot goes

    1. to the flow that holds the fewest, so that none gets a second one while another has none;
    2. among those, to the turn that is due first. It is due when it comes, plus the debt of its flow: what
       the flow used of slots, times the flows that shared them, and until then has not waited. A flow that
       is not known yet owes an average turn. So who has waited goes before who has just run, and a flood of
       new flows does not delay the old ones;
    3. among those, to the one that came first.

    A debt is at most `DEBT_LIMIT`: no turn waits for one that came later than that. A slot is never left
    free while anybody waits. `clock` gives seconds, the event loop's by default.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] | None = None) -> None:
        self._limit = limit
        self._free = limit
        self._clock = clock or asyncio.get_running_loop().time
        self._active: dict[str, _Flow] = {}
        self._known: OrderedDict[str, float] = OrderedDict()  # when the flow is even
        self._waiting = 0
        self._heads: list[tuple[int, float, int, _Waiter, _Flow]] = []
        self._numbers = itertools.count()
        self._average = 0.0
        self._ended = 0

    async def acquire(self, name: str) -> "Grant":
        """Waits for a slot for the flow of this name."""
        flow = self._flow(name)
        if self._free and not self._waiting:
            return self._grant(flow)
        now = self._clock()
        waiter = _Waiter(next(self._numbers), now, now if flow.is_known else self._owed(now, self._average))
        flow.waiting.append(waiter)
        self._waiting += 1
        if flow.waiting[0] is waiter:
            self._push(flow)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.release(waiter.granted.result())
            else:
                self._leave(flow, waiter)
            raise

    def release(self, grant: "Grant") -> None:
        """Gives a slot back."""
        flow, now = grant.flow, self._clock()
        used = now - grant.since
        flow.even = self._owed(max(flow.even, grant.since), used, now=now)
        flow.is_known = True
        self._ended += 1
        self._average += (used - self._average) * max(_SMOOTHING, 1 / self._ended)
        flow.held -= 1
        self._free += 1
        if flow.waiting:
            self._push(flow)
        else:
            self._rest(flow)
        self._hand_on()

    def _owed(self, since: float, used: float, *, now: float | None = None) -> float:
        """When a flow that used so much is even: each of those who share the slots could have as much."""
        even = since + used * len(self._active) / self._limit
        return min(even, (since if now is None else now) + DEBT_LIMIT)

    def _flow(self, name: str) -> "_Flow":
        flow = self._active.get(name)
        if flow is None:
            flow = self._active[name] = _Flow(name, self._known.pop(name, None))
        return flow

    def _grant(self, flow: "_Flow") -> "Grant":
        self._free -= 1
        flow.held += 1
        return Grant(self, flow, self._clock())

    def _hand_on(self) -> None:
        while self._free and self._waiting:
            held, _, _, waiter, flow = heapq.heappop(self._heads)
            if held != flow.held or not flow.waiting or flow.waiting[0] is not waiter:
                continue  # it has been entered anew
            flow.waiting.popleft()
            self._waiting -= 1
            if not waiter.granted.done():  # else it was cancelled just now, and has yet to notice
                waiter.granted.set_result(self._grant(flow))
            if flow.waiting:
                self._push(flow)
            else:
                self._rest(flow)
        if len(self._heads) > 64 + 4 * self._waiting:
            self._heads.clear()
            for flow in self._active.values():
                if flow.waiting:
                    self._push(flow)

    def _push(self, flow: "_Flow") -> None:
        """Enters the flow's first waiter as it stands now."""
        waiter = flow.waiting[0]
        due = max(waiter.due, min(flow.even, waiter.came + DEBT_LIMIT))
        heapq.heappush(self._heads, (flow.held, due, waiter.number, waiter, flow))

    def _leave(self, flow: "_Flow", waiter: "_Waiter") -> None:
        if waiter not in flow.waiting:
            return
        was_first = flow.waiting[0] is waiter
        flow.waiting.remove(waiter)
        self._waiting -= 1
        if flow.waiting and was_first:
            self._push(flow)
        self._rest(flow)

    def _rest(self, flow: "_Flow") -> None:
        if flow.held or flow.waiting:
            return
        del self._active[flow.name]
        if flow.is_known:
            self._known[flow.name] = flow.even
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)


class Grant:
    """A slot that is held, `since` when. `with` it: gives it back at the end."""

    __slots__ = ("_slots", "flow", "since")

    def __init__(self, slots: Slots, flow: "_Flow", since: float) -> None:
        self._slots = slots
        self.flow = flow
        self.since = since

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slots.release(self)


class _Flow:
    """`even`: when its debt is paid."""

    __slots__ = ("even", "held", "is_known", "name", "waiting")

    def __init__(self, name: str, even: float | None) -> None:
        self.name = name
        self.held = 0
        self.even = even or 0.0
        self.is_known = even is not None
        self.waiting: deque[_Waiter] = deque()


class _Waiter:
    __slots__ = ("came", "due", "granted", "number")

    def __init__(self, number: int, came: float, due: float) -> None:
        self.number = number
        self.came = came
        self.due = due
        self.granted: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
