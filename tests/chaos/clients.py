"""One client process: `python -m tests.chaos.clients DIRECTORY INDEX GENERATION URL`.

It holds conversations until `stop` comes on standard input; then it awaits the end of every run that it, or
a killed predecessor of the same index, submitted, and ends. When standard input ends, it ends at once.
"""

import asyncio
import contextlib
import logging
import os
import random
import sys
from pathlib import Path

from atto.protocol.errors import AttoError
from atto.protocol.events import is_terminal
from atto_client import Client
from tests.chaos import records
from tests.chaos.caller import Caller, Hearing, Owed, Session
from tests.chaos.conversation import PATIENCE, Conversation, Handoff
from tests.chaos.plan import CLIENTS, Plan, load_plan
from tests.chaos.raw_producer import RawProducer
from tests.chaos.records import Recorder, session_directory
from tests.chaos.turns import read_script


class ClientProcess:
    """The conversations of one process, and what its predecessor left behind."""

    def __init__(
        self, plan: Plan, index: int, generation: int, url: str, client: Client, stopping: asyncio.Event
    ) -> None:
        self._stopping = stopping
        self._plan = plan
        self._index = index
        self._url = url
        self._chance = random.Random(f"{plan.seed} {index} {generation}")
        self._journal_path = plan.path / "clients" / f"{index}.jsonl"
        self._handoffs_path = plan.path / "handoffs.jsonl"
        inherited = _owed(self._journal_path)
        name = f"c{index}-{generation}"
        self._caller = Caller(client, plan.path, name, Recorder(self._journal_path))
        self._caller.owed.update(inherited)
        self._inherited = list(inherited.values())
        self._handoffs = Recorder(self._handoffs_path)
        sessions = list(dict.fromkeys(owed.session for owed in self._inherited))
        self._conversations = [
            Conversation(
                self._caller,
                f"{name}-{number}",
                random.Random(self._chance.random()),
                backlog=plan.backlog,
                hand_off=self._hand_off,
                first=sessions.pop() if sessions else None,
                acts=plan.acts,
            )
            for number in range(plan.sessions // CLIENTS)
        ]

    async def run(self) -> None:
        raw = RawProducer(
            self._caller,
            self._url,
            self._plan.namespace,
            random.Random(self._chance.random()),
            self._some_session,
        )
        work = [
            *(self._take_up(owed) for owed in self._inherited),
            *(conversation.hold(self._stopping) for conversation in self._conversations),
            raw.produce(self._stopping),
        ]
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(part) for part in work]
            receiving = tasks.create_task(self._receive_handoffs())
            await self._stopping.wait()
            await asyncio.wait(talking, timeout=min(PATIENCE, self._plan.patience))
            for task in (*talking, receiving):
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._plan.patience):
                await self._await_owed()

    def _some_session(self) -> str | None:
        open_now = [talk.session.id for talk in self._conversations if talk.session is not None]
        if not open_now:
            return None
        return self._chance.choice([*open_now, f"raw-{self._caller.process}-{self._chance.randrange(4)}"])

    def _hand_off(self, session: Session, label: str, run: str, hearing: Hearing) -> None:
        to = (self._index + 1) % CLIENTS
        last, position, name = hearing.last, hearing.position, hearing.name
        self._handoffs.add(Handoff(to, session.id, label, run, last, position, name))

    async def _receive_handoffs(self) -> None:
        """Those that come from now on; nobody relies on them."""
        self._handoffs_path.touch()
        with self._handoffs_path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await asyncio.sleep(0.2)
                    for handoff in records.tail(file, Handoff):
                        if handoff.to == self._index:
                            tasks.create_task(self._resume(handoff))

    async def _resume(self, handoff: Handoff) -> None:
        session = self._caller.session(handoff.session)
        run = self._caller.client.attach(handoff.session, handoff.run, after=handoff.position)
        await self._caller.hear(
            session, handoff.label, run, after=handoff.after, follows=handoff.follows
        ).to_end()
        session.recorder.close()

    async def _take_up(self, owed: Owed) -> None:
        """A predecessor's run: it is listened to from where the predecessor was killed. Where it is not known
        to be accepted it is submitted again, under the same run id, or left to its fate.
        """
        last = _last_heard(self._plan.path, owed)
        session = self._caller.session(owed.session)
        if not last.accepted:
            if not owed.text or self._chance.random() < 0.3:
                self._caller.settle(owed.run)
                return
            if await self._caller.submit(session, read_script(owed.text), run_id=owed.run) is None:
                return
        run = self._caller.client.attach(owed.session, owed.run, after=last.position)
        await self._caller.hear(session, owed.label, run, after=last.after, follows=last.listener).to_end()
        session.recorder.close()

    async def _await_owed(self) -> None:
        """Whatever else listens or not: each run that was submitted, from its first event to its last."""
        async with asyncio.TaskGroup() as tasks:
            for owed in list(self._caller.owed.values()):
                tasks.create_task(self._await_one(owed))

    async def _await_one(self, owed: Owed) -> None:
        session = self._caller.session(owed.session)
        if not _last_heard(self._plan.path, owed).accepted:
            if not owed.text or self._chance.random() < 0.3:
                self._caller.settle(owed.run)
                return
            if await self._caller.submit(session, read_script(owed.text), run_id=owed.run) is None:
                return
        run = self._caller.client.attach(owed.session, owed.run)
        await self._caller.hear(session, owed.label, run).to_end()
        session.recorder.close()


class _Last(records.Struct, frozen=True):
    accepted: bool
    listener: str = ""
    after: int = 0
    position: str = ""


def _owed(journal: Path) -> dict[str, Owed]:
    """What this index's client processes submitted and did not hear the end of."""
    owed: dict[str, Owed] = {}
    for line in records.read_as(journal, Owed):
        if line.done:
            owed.pop(line.run, None)
        else:
            owed[line.run] = line
    return owed


def _last_heard(directory: Path, owed: Owed) -> _Last:
    accepted, listener, after, position = False, "", 0, ""
    for path in sorted(session_directory(directory, owed.session).glob("c*.jsonl")):
        for line in records.read(path):
            match line:
                case records.Accepted(label=owed.label):
                    accepted = True
                case records.Listening(label=owed.label):
                    listener, after = line.listener, line.after  # of a resumed one the position is not known
                    position = ""
                case records.Heard(listener=heard) if heard == listener and not is_terminal(line.event):
                    after, position = line.event.seq, line.position
                case _:
                    pass
    return _Last(accepted, listener, after, position) if position else _Last(accepted)


async def obey(stopping: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        if line.strip() == b"stop":
            stopping.set()
    os._exit(3)


async def main(directory: str, index: str, generation: str, url: str) -> None:
    plan = load_plan(directory)
    stopping = asyncio.Event()
    obeying = asyncio.create_task(obey(stopping))
    async with contextlib.AsyncExitStack() as stack:
        client = None
        while client is None:
            with contextlib.suppress(AttoError):  # the broker is away at the moment
                client = await stack.enter_async_context(Client(url.split(","), namespace=plan.namespace))
        print("ready", flush=True)  # noqa: T201 - to the parent
        await ClientProcess(plan, int(index), int(generation), url, client, stopping).run()
    obeying.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(*sys.argv[1:]))
