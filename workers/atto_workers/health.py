"""`/healthz` and `/readyz` of a worker, answered by a thread: it can tell that the event loop is blocked.

The thread has an event loop of its own, so that a connection costs no thread, and ends when its time is over,
however slowly it speaks.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

PATIENCE = 2.0
"""Seconds within which the event loop and the store must answer a probe."""
REQUEST_PATIENCE = 5.0
"""Seconds that a connection has, from its first byte to the answer's last."""
CONNECTIONS = 64
"""Connections at one time; a further one takes the place of the oldest."""
REMEMBERED = 1.0
"""Seconds for which `/readyz` repeats its answer: however many ask, the store is read once a second."""

_LONGEST_REQUEST = 8 << 10  # bytes
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

Question = Callable[[], Awaitable[str | None]]


@asynccontextmanager
async def health_server(
    port: int,
    unready: Question,
    *,
    alive: Question | None = None,
    host: str = "127.0.0.1",
) -> AsyncGenerator[int]:
    """Serves both endpoints until it is left, and yields the port (0 takes a free one).

    `/healthz` is 200 while the event loop answers within `PATIENCE` (and `alive` returns None); `/readyz` is
    200 when `unready` returns None. Else it is 503 with the reason, also if the question raises. Raises
    `OSError` if the port is taken.
    """
    asked = asyncio.get_running_loop()
    server = _Server(
        {"/readyz": _Answer(asked, unready, REMEMBERED), "/healthz": _Answer(asked, alive or _alive)}
    )
    bound: asyncio.Future[int] = asked.create_future()
    stop = asyncio.Event()
    own = asyncio.new_event_loop()

    def tell(error: BaseException | None, port: int = 0) -> None:
        if error is not None:
            bound.set_exception(error)
        else:
            bound.set_result(port)

    async def serve() -> None:
        try:
            listening = await asyncio.start_server(server.answer, host, port, limit=_LONGEST_REQUEST)
        except BaseException as error:  # noqa: BLE001 - told to the one who waits
            asked.call_soon_threadsafe(tell, error)
            return
        asked.call_soon_threadsafe(tell, None, listening.sockets[0].getsockname()[1])
        await stop.wait()
        listening.close()
        await server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: own) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="atto-health", daemon=True)
    thread.start()
    try:
        yield await bound
    finally:
        with suppress(RuntimeError):  # it has ended, for the port was taken
            own.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join)


class _Server:
    """Answers connections on the thread's loop."""

    def __init__(self, answers: "dict[str, _Answer]") -> None:
        self._answers = answers
        self._open: dict[asyncio.Task[None], None] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: streams make one for each connection
        if len(self._open) >= CONNECTIONS:
            next(iter(self._open)).cancel()
        self._open[task] = None
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(REQUEST_PATIENCE):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._response(head))
                    await writer.drain()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._open.pop(task, None)
            writer.close()

    async def close(self) -> None:
        """Ends what is still open."""
        for task in (still_open := list(self._open)):
            task.cancel()
        if still_open:
            await asyncio.wait(still_open)

    async def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].decode("latin-1").partition("?")[0]
        answer = self._answers.get(path)
        if method not in {b"GET", b"HEAD"}:
            status, text = 405, "ask with GET"
        elif answer is None:
            status, text = 404, "there are /healthz and /readyz"
        else:
            problem = await answer.get()
            status, text = (200, "ok") if problem is None else (503, problem)
        body = text.encode(errors="replace") + b"\n"
        headers = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return headers.encode() + (b"" if method == b"HEAD" else body)


class _Answer:
    """The answer of the worker's loop to a question: asked once for all who ask meanwhile or soon after."""

    def __init__(self, asked: asyncio.AbstractEventLoop, question: Question, remembered: float = 0.0) -> None:
        self._asked = asked
        self._question = question
        self._remembered = remembered
        self._asking: asyncio.Task[str | None] | None = None
        self._until = 0.0

    async def get(self) -> str | None:
        loop = asyncio.get_running_loop()
        if self._asking is None or (self._asking.done() and loop.time() >= self._until):
            self._asking = loop.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str | None:
        async def asked() -> str | None:
            return await self._question()

        coroutine = asked()
        try:
            answer = asyncio.run_coroutine_threadsafe(coroutine, self._asked)
        except RuntimeError:
            coroutine.close()
            return "the event loop has ended"
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            return f"no answer from the event loop within {PATIENCE:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is no
            return f"{type(error).__name__} when asked"
        finally:
            self._until = asyncio.get_running_loop().time() + self._remembered


async def _alive() -> str | None:
    return None
