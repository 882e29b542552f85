"""The end of a chaos run: a fresh client reads every session, and listens anew to a sample of the runs."""

import asyncio
import random
from pathlib import Path

from atto.protocol.errors import AttoError
from atto.protocol.ids import decode_session
from atto_client import Client
from tests.chaos.caller import Caller
from tests.chaos.history import History, labels_in, read_history
from tests.chaos.records import Recorder, Stored, now

LATE = "late"
"""How the client process that listens then is called."""
AT_ONCE = 16
LATE_LISTENERS = 4
"""Runs of each session that are listened to from the first event after everything has ended."""
PATIENCE = 10.0


async def audit(urls: list[str], namespace: str, directory: Path, seed: int, patience: float) -> None:
    """Leaves its lines beside those of the others. `patience`: seconds in which every turn ends."""
    chance = random.Random(f"audit {seed}")
    sessions = sorted((directory / "sessions").iterdir())
    async with Client(urls, namespace=namespace) as client:
        caller = Caller(client, directory, LATE, Recorder(directory / "clients" / "late.jsonl"))
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for session in sessions:
                await slots.acquire()
                task = tasks.create_task(_audit_session(caller, session, chance, patience))
                task.add_done_callback(lambda _: slots.release())


async def _audit_session(caller: Caller, directory: Path, chance: random.Random, patience: float) -> None:
    history = read_history(directory)
    recorder = Recorder(directory / "stored.jsonl")
    until = now() + patience
    while True:
        try:
            snapshot = await caller.client.snapshot(decode_session(directory.name))
        except AttoError:
            if now() > until:
                break
        else:
            if now() > until or _nameless(history) <= set(labels_in(snapshot.messages)):
                state = snapshot.state
                recorder.add(
                    Stored(t=now(), version=snapshot.version, messages=snapshot.messages, state=state)
                )
                break
        await asyncio.sleep(0.5)
    recorder.close()
    await _listen_late(caller, history, chance)


def _nameless(history: History) -> set[str]:
    """Turns that must be committed, and whose ends nobody could await."""
    return {
        turn.label
        for turn in history.turns.values()
        if turn.is_accepted and not (turn.run or turn.script.fails or turn.has_raised)
    }


async def _listen_late(caller: Caller, history: History, chance: random.Random) -> None:
    ended = sorted({one.label for one in history.listeners.values() if one.terminal is not None})
    session = caller.session(history.session)
    for label in chance.sample(ended, min(LATE_LISTENERS, len(ended))):
        run = caller.client.attach(history.session, history.turns[label].run)
        try:
            async with asyncio.timeout(PATIENCE):
                await caller.hear(session, label, run).to_end()
        except TimeoutError:
            pass
    session.recorder.close()
