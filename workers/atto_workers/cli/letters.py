"""`atto dlq`."""

import asyncio
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from atto.protocol.errors import DeadLetterUnusable
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output, Session, in_range
from atto_workers.dead_letters import DeadLetters
from atto_workers.terminal import quoted, shown, shown_text

app = App(name="dlq", help="Turns that could not be run.")

Number = Annotated[int, Parameter(help="As `ls` shows it.", validator=in_range(1))]


@app.command
def ls(*, session: Session | None = None, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Lists the dead letters, oldest first."""

    async def work() -> None:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            async for letter in letters.list(session):
                line = f"{letter.number}  {letter.code}  {letter.token}  {letter.reason}"
                told = {
                    name: value for name, value in msgspec.structs.asdict(letter).items() if name != "body"
                }
                output.show(told, shown(line))

    asyncio.run(work())


@app.command(name="show")
def show_(number: Number, *, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Shows a dead letter with its turn (`body` is base64 in JSON)."""

    async def work() -> None:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            letter = await letters.show(number)
        if letter is None:
            raise DeadLetterUnusable(f"there is no dead letter {number}")
        output.show(letter, f"{shown(f'{letter.code}: {letter.reason}')}\n{shown_text(_text(letter.body))}")

    asyncio.run(work())


@app.command
def requeue(number: Number, *, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Submits the turn again, as a new run."""

    async def work() -> str:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            return await letters.requeue(number)

    run_id = asyncio.run(work())
    output.show({"run_id": run_id}, quoted(run_id))


@app.command
def drop(number: Number, *, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Removes a dead letter for good."""

    async def work() -> None:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            if await letters.show(number) is None:
                raise DeadLetterUnusable(f"there is no dead letter {number}")
            await letters.drop(number)

    asyncio.run(work())
    output.show({"number": number}, f"dropped {number}")


def _text(body: bytes) -> str:
    """As it came, if it is text: a turn mostly is."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return repr(body)
