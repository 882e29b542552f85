"""Code that blocks a worker's event loop, with another worker there to take over."""

import asyncio
from pathlib import Path

import pytest

from atto_client import Client
from tests.integration.processes import child

BLOCKED = 6.0
"""Twice as long as a worker that says nothing is taken for alive."""


@pytest.mark.leaves_consumers
async def test_a_tool_that_blocks_the_loop_runs_once_and_keeps_its_partition(
    broker, namespace, tmp_path: Path
):
    effects = tmp_path / "effects"
    async with (
        asyncio.timeout(90),
        child("blocking", broker.url, namespace, effects) as first,
        child("blocking", broker.url, namespace, effects) as second,
        Client(broker.url, namespace=namespace) as client,
    ):
        pids = {await first.said("pid"), await second.said("pid")}
        answer = (await client.run("s", str(BLOCKED)).result()).text
        assert int(answer) in pids
    assert len(effects.read_text().splitlines()) == 1


@pytest.mark.leaves_consumers
async def test_beyond_the_limit_another_worker_takes_over_and_the_blocked_one_does_no_harm(
    broker, namespace, tmp_path: Path
):
    effects = tmp_path / "effects"
    async with (
        asyncio.timeout(90),
        child("blocking", broker.url, namespace, effects, 1) as first,
        Client(broker.url, namespace=namespace) as client,
    ):
        await first.said("pid")
        run = await client.submit("s", "3600")
        await first.said("blocked")
        async with child("worker", broker.url, namespace, effects) as second:
            pid = await second.said("pid")
            assert (await run.result()).text.startswith(f"{pid} ")
