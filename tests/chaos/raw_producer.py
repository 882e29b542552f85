"""A producer that knows nothing of atto but its subject: nats-py and JSON."""

import asyncio
import json
import random
from collections.abc import Callable

import nats
import nats.errors
import nats.js.errors

from atto.protocol.ids import encode_session, message_id, new_run_id
from tests.chaos.caller import Caller, Owed, Session
from tests.chaos.records import Accepted, Invoked, Refused, Unknown, now
from tests.chaos.turns import make_script


class RawProducer:
    """Publishes turns to sessions that `choose` names: with a run id, with a message id too, or with neither.

    Nothing is published twice: without an id the broker could not know.
    """

    def __init__(
        self,
        caller: Caller,
        url: str,
        namespace: str,
        chance: random.Random,
        choose: Callable[[], str | None],
    ) -> None:
        self._caller = caller
        self._url = url
        self._namespace = namespace
        self._chance = chance
        self._choose = choose
        self._said = 0

    async def produce(self, stopping: asyncio.Event) -> None:
        connection = await nats.connect(
            self._url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.25, error_cb=_ignore
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                while not stopping.is_set():
                    session_id = self._choose()
                    if session_id is not None:
                        await self._publish(connection, session_id, tasks)
                    await asyncio.sleep(self._chance.uniform(0.02, 0.2))
        finally:
            await connection.close()

    async def _publish(self, connection, session_id: str, tasks: asyncio.TaskGroup) -> None:
        self._said += 1
        script = make_script(f"{self._caller.process}-raw#{self._said}", self._chance)
        run_id, body, headers = new_run_id(), {"input": script.text()}, {}
        match self._chance.choice(("body", "both", "none")):
            case "body":
                body["run_id"] = run_id
            case "both":
                body["run_id"] = run_id
                headers = {"Nats-Msg-Id": message_id(session_id, run_id)}
            case _:
                run_id = ""
        session = self._caller.session(session_id)
        subject = f"{self._namespace}.turn.{encode_session(session_id)}"
        session.recorder.add_now(Invoked(t=now(), label=script.label, run=run_id, text=script.text()))
        try:
            ack = await connection.jetstream(timeout=5).publish(
                subject, json.dumps(body).encode(), headers=headers or None
            )
        except (nats.js.errors.APIError, nats.js.errors.NoStreamResponseError) as error:
            session.recorder.add(Refused(t=now(), label=script.label, error=type(error).__name__))
        except (nats.errors.Error, OSError) as error:
            session.recorder.add(Unknown(t=now(), label=script.label, error=type(error).__name__))
        else:
            session.recorder.add(Accepted(t=now(), label=script.label, sequence=ack.seq))
            if run_id:
                self._caller.owe(Owed(run_id, session_id, "", script.label))
                tasks.create_task(self._listen(session, script.label, run_id))
                return
        session.recorder.close()

    async def _listen(self, session: Session, label: str, run_id: str) -> None:
        run = self._caller.client.attach(session.id, run_id)
        await self._caller.hear(session, label, run).to_end()
        session.recorder.close()


async def _ignore(_error: Exception) -> None:
    pass
