"""Turns through NATS, Postgres and workers in containers; workers that are killed, and that are stopped."""

import asyncio
import urllib.request
from collections.abc import Callable

import pytest
from testcontainers.core.container import DockerContainer

from atto.stores import open_store
from atto_client import Client, Run, events
from tests.containers.engine import address

pytestmark = pytest.mark.containers

PATIENCE = 60
SESSIONS = 16
COUNT = " ".join(str(number) for number in range(1, 61))
"""At 0.04 s a word more than two seconds."""

Start = Callable[[], DockerContainer]


async def test_turns_are_run_and_kept_in_postgres(
    start_worker: Start, caller: Client, postgres_container: DockerContainer
):
    worker = start_worker()
    with urllib.request.urlopen(f"http://{address(worker, 8080)}/healthz", timeout=5) as answer:
        assert answer.status == 200
    async with asyncio.timeout(PATIENCE):
        answers = [await (await caller.submit("ann@example.com", "hi")).result() for _ in range(3)]
    assert [(answer.text, answer.version) for answer in answers] == [
        (f"Number {number}: you said 'hi'.", number) for number in (1, 2, 3)
    ]
    with urllib.request.urlopen(f"http://{address(worker, 8080)}/readyz", timeout=5) as ready:
        assert ready.status == 200
    async with open_store(f"postgres://atto:atto@{address(postgres_container, 5432)}/atto") as store:
        snapshot = await store.load("ann@example.com")
    assert snapshot is not None
    assert (snapshot.version, len(snapshot.messages)) == (3, 12), "three turns of four messages"


async def test_a_worker_killed_in_the_middle_of_runs_costs_none_of_them(start_worker: Start, caller: Client):
    """Sixteen runs on two workers, of which one is killed; each completes once, whole, as version 1."""
    first, _second = start_worker(), start_worker()
    async with asyncio.timeout(PATIENCE):
        runs = [await caller.submit(f"killed-{number}", "count to 60") for number in range(SESSIONS)]
        heard = [asyncio.create_task(listen(run)) for run in runs]
        await asyncio.gather(*(half_way(caller, run) for run in runs))
        first.get_wrapped_container().kill()
        logs = await asyncio.gather(*heard)
    for log in logs:
        last = log[-1]
        assert isinstance(last, events.RunCompleted)
        assert (last.text, last.version) == (f"Number 1: {COUNT}", 1)
        assert sum(events.is_terminal(event) for event in log) == 1
        assert spoken(log) == last.text, "the deltas that were not voided, joined, are the answer"
    again = [log for log in logs if any(isinstance(event, events.StepRestarted) for event in log)]
    assert again, "nobody's run was in the worker that was killed"
    for log in again:
        tools = [event for event in log if isinstance(event, events.ToolCompleted)]
        assert len(tools) == 1, "a tool call that had completed was made again"


async def test_a_worker_that_is_stopped_finishes_what_runs(start_worker: Start, caller: Client):
    """SIGTERM, as `docker stop` and Kubernetes send it: exit code 0, and no run begins anew."""
    first = start_worker()
    async with asyncio.timeout(PATIENCE):
        runs = [await caller.submit(f"stopped-{number}", "count to 60") for number in range(SESSIONS)]
        heard = [asyncio.create_task(listen(run)) for run in runs]
        await asyncio.gather(*(half_way(caller, run) for run in runs))
        container = first.get_wrapped_container()
        await asyncio.to_thread(container.stop, timeout=45)
        logs = await asyncio.gather(*heard)
    assert container.wait()["StatusCode"] == 0
    for log in logs:
        assert isinstance(log[-1], events.RunCompleted)
        assert not any(isinstance(event, events.StepRestarted | events.RunInterrupted) for event in log)


async def listen(run: Run) -> list[events.AnyEvent]:
    return [event async for event in run]


async def half_way(caller: Client, run: Run) -> None:
    """Returns when the answer has begun."""
    async for event in caller.attach(run.session, run.run_id):
        if isinstance(event, events.TextDelta):
            return


def spoken(log: list[events.AnyEvent]) -> str:
    """As a listener puts it together: what a restart voids is dropped."""
    texts: dict[int, str] = {}
    for event in log:
        match event:
            case events.StepRestarted():
                texts = {step: text for step, text in texts.items() if step < event.step}
            case events.TextDelta():
                texts[event.step] = texts.get(event.step, "") + event.text
    return "".join(texts.values())
