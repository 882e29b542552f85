"""`atto dlq`."""

import asyncio

import msgspec
from cyclopts import App

from atto.protocol.errors import DeadLetterUnusable
from atto_workers.cli.options import BROKER, Broker, show
from atto_workers.cli.runs import Json
from atto_workers.dead_letters import DeadLetters

app = App(name="dlq", help="Turns that could not be run.")


@app.command
def ls(*, session: str | None = None, broker: Broker = BROKER, as_json: Json = False) -> None:
    """Lists the dead letters, oldest first."""

    async def work() -> None:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            async for letter in letters.list(session):
                line = f"{letter.number}  {letter.code}  {letter.token}  {letter.reason}"
                show(msgspec.structs.replace(letter, body=b""), line, as_json=as_json)

    asyncio.run(work())


@app.command(name="show")
def show_(number: int, *, broker: Broker = BROKER, as_json: Json = False) -> None:
    """Shows a dead letter with its turn (`body` is base64 in JSON)."""

    async def work() -> None:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            letter = await letters.show(number)
        if letter is None:
            raise DeadLetterUnusable(f"there is no dead letter {number}")
        show(letter, f"{letter.code}: {letter.reason}\n{letter.body!r}", as_json=as_json)

    asyncio.run(work())


@app.command
def requeue(number: int, *, broker: Broker = BROKER, as_json: Json = False) -> None:
    """Submits the turn again, as a new run."""

    async def work() -> str:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            return await letters.requeue(number)

    run_id = asyncio.run(work())
    show({"run_id": run_id}, run_id, as_json=as_json)


@app.command
def drop(number: int, *, broker: Broker = BROKER, as_json: Json = False) -> None:
    """Removes a dead letter for good."""

    async def work() -> None:
        async with DeadLetters.of(broker.nats, namespace=broker.namespace, **broker.options()) as letters:
            await letters.drop(number)

    asyncio.run(work())
    show({"number": number}, f"dropped {number}", as_json=as_json)
