"""What must hold of the gateway whatever a provider does and whenever callers leave."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from atto.models import FinishChunk, ModelRequest, TextChunk
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message, Origin
from atto_workers import BreakerPolicy, LimitPolicy, ModelPolicy, RetryPolicy, TimeoutPolicy
from atto_workers.gateway import ModelGateway
from tests.workers.virtual_time import in_virtual_time, now

REQUEST = ModelRequest(messages=(Message.user("hi"),))
CONCURRENCY, PER_MINUTE = 3, 7

behaviours = st.lists(
    st.tuples(
        st.sampled_from(["answers", "answers", "breaks", "cut", "429", "429 later", "400", "401", "hangs"]),
        st.floats(0, 8),  # seconds between its chunks
    ),
    min_size=1,
    max_size=20,
)
callers = st.lists(
    st.tuples(st.floats(0, 90), st.none() | st.floats(0, 60)),  # when it comes, and after how long it leaves
    min_size=1,
    max_size=25,
)


@dataclass
class Provider:
    """Behaves as its script says, again and again, and remembers what it was asked."""

    script: list[tuple[str, float]]
    origin: Origin
    active: int = 0
    most: int = 0
    asked_at: list[float] = field(default_factory=list)

    async def stream(self, request):
        behaviour, gap = self.script[len(self.asked_at) % len(self.script)]
        self.asked_at.append(now())
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(gap)
            self._refuse(behaviour)
            yield TextChunk("some ")
            await asyncio.sleep(gap)
            if behaviour == "breaks":
                raise ModelError("broken", transient=True)
            if behaviour == "hangs":
                await asyncio.Event().wait()
            if behaviour != "cut":
                yield TextChunk("thing")
                yield FinishChunk("stop")
        finally:
            self.active -= 1

    @staticmethod
    def _refuse(behaviour: str) -> None:
        if behaviour.isdecimal():
            raise ModelError(behaviour, transient=behaviour == "429", status=int(behaviour))
        if behaviour == "429 later":
            raise ModelError("429", transient=True, status=429, retry_after=12.0)


@settings(max_examples=150, deadline=None)
@given(scripts=st.lists(behaviours, min_size=1, max_size=2), callers=callers)
def test_every_call_ends_within_the_limits_and_leaves_nothing_behind(scripts, callers):
    models = [Provider(script, Origin("provider", str(number))) for number, script in enumerate(scripts)]
    gateway = ModelGateway(
        ModelPolicy(
            retries=RetryPolicy(tries=3),
            timeouts=TimeoutPolicy(first_chunk=6, stall=6, total=11),
            limits=LimitPolicy(concurrency=CONCURRENCY, requests_per_minute=PER_MINUTE),
            breaker=BreakerPolicy(failures=4, cool_down=20),
        )
    )

    async def one(comes: float, leaves: float | None) -> None:
        await asyncio.sleep(comes)
        heard: list[str] = []
        try:
            async with asyncio.timeout(leaves):
                answer = await gateway.call(
                    models,
                    REQUEST,
                    on_chunk=lambda chunk: heard.append(getattr(chunk, "text", "")),
                    on_restart=lambda _: heard.clear(),
                )
            assert "".join(heard) == answer.message.text == "some thing"
            assert answer.message.origin in [model.origin for model in models]
        except TimeoutError:
            assert leaves is not None
            assert now() <= comes + leaves + 0.01, "who leaves, leaves at once"
        except ModelError:
            pass  # a failure is an end, too

    async def scenario():
        async with asyncio.TaskGroup() as group:
            for comes, leaves in callers:
                group.create_task(one(comes, leaves))

    in_virtual_time(scenario)
    for model in models:
        check_limits(model)
    for usage in gateway.usage.values():
        assert (usage.active, usage.waiting) == (0, 0)
        assert usage.answered <= usage.calls <= len(callers)
        assert usage.answered + usage.failed <= usage.tries
        assert usage.retries <= usage.failed
        assert usage.throttled <= usage.failed


def check_limits(model: Provider) -> None:
    assert model.active == 0, "a stream was left open"
    assert model.most <= CONCURRENCY
    for first, beyond in zip(model.asked_at, model.asked_at[PER_MINUTE:], strict=False):
        assert beyond - first >= 60 - 1e-3
