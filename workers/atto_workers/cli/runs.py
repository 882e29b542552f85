"""`atto run`, `atto attach`, `atto cancel`."""

import asyncio
import shlex
from typing import Annotated, Any

from cyclopts import Parameter

from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerUnavailable, InvalidPosition, NoResponders
from atto.protocol.events import AnyEvent, RunCompleted
from atto.protocol.positions import START, Position
from atto.protocol.subjects import Subjects
from atto_client import Client, Run
from atto_client.submission import check_declared
from atto_workers.cli.exits import FAILED
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output, RunId, Session, note
from atto_workers.cli.transcript import Transcript
from atto_workers.terminal import quoted

SILENCE = 2.0
"""Seconds without any event after which that is said: no worker may be there, or no such run."""


def _check_text(_type: Any, text: str) -> None:
    if not text:
        raise ValueError("A turn needs an input.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("It is not valid UTF-8.") from None


Text = Annotated[str, Parameter(validator=_check_text)]


def run(session: Session, text: Text, *, broker: Broker = BROKER, output: Output = OUTPUT) -> int:
    """Submits a turn and prints what comes of it. 0 if it completed, 1 if not."""

    async def work() -> int:
        async with Client(broker.nats, namespace=broker.namespace, **broker.options()) as client:
            submitted = await client.submit(session, text)
            unheard = (
                f"accepted as run {submitted.run_id}, but no worker has begun it so far: it waits for the "
                "turns before it, or for a worker (see `atto workers`)"
            )
            return await printed(submitted, output, unheard=unheard)

    return asyncio.run(work())


def _is_position(_type: Any, value: str) -> None:
    try:
        Position.parse(value)
    except InvalidPosition as error:
        raise ValueError(str(error)) from None


def attach(
    session: Session,
    run_id: RunId,
    *,
    after: Annotated[
        str, Parameter(help="A position that is known, as 1-17: what comes later.", validator=_is_position)
    ] = str(START),
    broker: Broker = BROKER,
    output: Output = OUTPUT,
) -> int:
    """Prints the events of a run, those past and those to come. It may be submitted later."""
    unheard = (
        f"no event of run {run_id} of session {session!r} so far: it may be queued (see `atto workers`), may "
        "have ended so long ago that its events have expired (see `atto sessions show`), or may not exist; "
        "Ctrl-C ends the wait"
    )

    async def work() -> int:
        async with broker.jetstream() as jetstream:
            await _check_namespace(jetstream, Subjects(broker.namespace))
        async with Client(broker.nats, namespace=broker.namespace, **broker.options()) as client:
            attached = client.attach(session, run_id, after=after)
            return await printed(attached, output, unheard=unheard, is_there=False)

    return asyncio.run(work())


async def _check_namespace(jetstream: JetStream, subjects: Subjects) -> None:
    """Raises `TopologyMissing` if the namespace was never declared. The stream of events is asked first, for
    of the others a client may know nothing.
    """
    try:
        await jetstream.read_last(subjects.events_stream, [subjects.event("none", "none")])
    except NoResponders:
        await check_declared(jetstream, subjects)
    except BrokerUnavailable:
        return  # it elects a leader, perhaps


def cancel(session: Session, run_id: RunId, *, broker: Broker = BROKER, output: Output = OUTPUT) -> int:
    """Asks for a run to be cancelled; no-op if it has ended."""

    async def work() -> None:
        async with Client(broker.nats, namespace=broker.namespace, **broker.options()) as client:
            await client.cancel(session, run_id)

    asyncio.run(work())
    output.show({"session": session, "run_id": run_id}, f"cancellation of {quoted(run_id)} sent")
    return 0


async def printed(run: Run, output: Output, *, unheard: str = "", is_there: bool = True) -> int:
    """Prints a run to its end; the exit code.

    `unheard`: what to say where no event comes for long. `is_there`: whether there is such a run before an
    event has come of it.
    """
    transcript = Transcript()
    last: AnyEvent | None = None
    silence = asyncio.get_running_loop().call_later(SILENCE, note, unheard) if unheard else None
    try:
        async for last in run:
            if silence is not None:
                silence.cancel()
            if output.as_json:
                output.show(last, "")
            else:
                transcript.show(last)
    except asyncio.CancelledError:
        if is_there or last is not None:
            where = f"{shlex.quote(run.session)} {run.run_id}"
            note(f"the run goes on: atto attach {where}, or atto cancel {where}")
        raise
    finally:
        if silence is not None:
            silence.cancel()
    return 0 if isinstance(last, RunCompleted) else FAILED
