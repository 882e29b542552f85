"""An owner that is paused around an effect, and goes on where it was when another has ended its run."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from atto import events
from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.subjects import Subjects
from tests.integration.pausing import KINDS, POINTS, acting

SCRIPT = Path(__file__).with_name("pausing.py")


@contextlib.asynccontextmanager
async def paused_at_will(*arguments: object) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "the process has ended"
    return json.loads(line)


async def go_on(_where: str) -> None:
    return


async def stored_events(jetstream: JetStream, subjects: Subjects, run_id: str) -> list[events.AnyEvent]:
    reading = jetstream.read_to_end(subjects.events_stream, subjects.event("s", run_id))
    return [event async for stored in reading for event in codec.decode_batch(stored.data).events]


@pytest.mark.leaves_consumers
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS)
async def test_a_paused_owner_that_wakes_up_has_no_second_effect_and_no_last_word(
    broker, namespace, worker, client, jetstream, tmp_path: Path, point, kind
):
    effects, go = tmp_path / "effects", tmp_path / "go"
    async with asyncio.timeout(120):
        async with paused_at_will(broker.url, namespace, effects, go, point, kind) as first:
            assert await said(first) == {"ready": True}
            run = await client.submit("s", "go")
            assert await said(first) == {"reached": point}
            os.kill(first.pid, signal.SIGSTOP)
            async with worker(acting(effects, kind, go_on)):
                answer = await run.result()
                go.touch()
                os.kill(first.pid, signal.SIGCONT)
                # It gives its partitions up, or runs this, and either is after whatever it had left to do.
                assert (await client.run("s", "again").result()).version == 2
                os.kill(first.pid, signal.SIGTERM)
                await first.wait()
        stored = await stored_events(jetstream, Subjects(namespace), run.run_id)
        seen = [event async for event in client.attach("s", run.run_id)]

    [terminal] = {event.seq: event for event in stored if events.is_terminal(event)}.values()
    assert terminal == seen[-1] == answer
    keys = effects.read_text().splitlines()
    of_the_run = [key for key in keys if key == keys[0]]
    assert len(keys) - len(of_the_run) == 1  # of the turn that came after it
    if kind == "at_most_once" or (kind == "ordinary" and point == "before"):
        assert len(of_the_run) == 1
    else:
        assert len(of_the_run) <= 2  # under one key
    # What was not sent yet when it was paused, the other does not know.
    assert answer.text == "acted" or (kind == "at_most_once" and "unknown" in answer.text)
    if point == "before":
        assert answer.text == "acted"
