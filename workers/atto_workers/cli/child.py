"""`python -m atto_workers.cli.child`: a worker that another process started and asks how it does.

The first line on standard input is its settings. Each further one is a question, `<number> ready` or
`<number> alive`, whose answer is one line of JSON, `[number, problem]`, with null for no problem; number 0 is
said unasked once turns are taken. When the input ends the parent is dead, and the worker drains.
"""

import asyncio
import contextlib
import os
import signal
import sys
from io import FileIO

import msgspec

from atto_workers.cli.exits import INTERRUPTED
from atto_workers.cli.failures import report
from atto_workers.cli.options import OUTPUT
from atto_workers.cli.worker import WorkerSettings, fast_loop
from atto_workers.worker import Worker


def main() -> int:
    """Runs the worker; the exit code is that of `atto worker`."""
    questions, answers = _own_pipes()
    output = OUTPUT
    try:
        settings = msgspec.json.decode(questions.readline(), type=WorkerSettings)
        output = settings.output
        worker = settings.make()
        with asyncio.Runner(loop_factory=fast_loop()) as runner:
            runner.run(_serve(worker, questions, answers))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where an error becomes an exit code
        return report(error, output)
    return 0


def _own_pipes() -> tuple[FileIO, FileIO]:
    """The pipes to the parent, out of the reach of what the agent's code reads and prints."""
    questions = FileIO(os.dup(0), "rb")
    answers = FileIO(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return questions, answers


async def _serve(worker: Worker, questions: FileIO, answers: FileIO) -> None:
    answering = asyncio.create_task(_answer(worker, questions, answers), name="answers to the parent")
    try:
        await worker.serve(on_ready=lambda: _say(answers, 0, None))
    finally:
        answering.cancel()
        await asyncio.wait([answering])


async def _answer(worker: Worker, questions: FileIO, answers: FileIO) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), questions
    )
    try:
        while line := await reader.readline():
            number, _, question = line.decode().strip().partition(" ")
            _say(answers, int(number), await worker.unready() if question == "ready" else worker.broken())
        signal.raise_signal(signal.SIGTERM)
    finally:
        transport.close()


def _say(answers: FileIO, number: int, problem: str | None) -> None:
    with contextlib.suppress(OSError):  # the parent is dead, which the end of the questions tells
        answers.write(msgspec.json.encode((number, problem)) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
