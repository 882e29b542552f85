"""`/healthz` and `/readyz` of a worker, answered by a thread: it can tell that the event loop is blocked."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 2.0
"""Seconds within which the event loop and the store must answer a probe."""


@asynccontextmanager
async def health_server(
    port: int,
    unready: Callable[[], Awaitable[str | None]],
    *,
    alive: Callable[[], Awaitable[str | None]] | None = None,
    host: str = "127.0.0.1",
) -> AsyncGenerator[int]:
    """Serves both endpoints until it is left, and yields the port (0 takes a free one).

    `/healthz` is 200 while the event loop answers within `PATIENCE` (and `alive` returns None); `/readyz` is
    200 when `unready` returns None. Else it is 503 with the reason, also if the question raises. Raises
    `OSError` if the port is taken.
    """
    loop = asyncio.get_running_loop()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in {"/healthz", "/readyz"}:
                self._answer(404, "there are /healthz and /readyz")
                return
            problem = _asked(loop, unready if self.path == "/readyz" else alive or _alive)
            self._answer(200 if problem is None else 503, problem or "ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Probes are not news."""

        def _answer(self, status: int, text: str) -> None:
            body = text.encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="atto-health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(server.server_close)


async def _alive() -> str | None:
    return None


def _asked(loop: asyncio.AbstractEventLoop, question: Callable[[], Awaitable[str | None]]) -> str | None:
    async def asked() -> str | None:
        return await question()

    coroutine = asked()
    try:
        answer = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        return "the event loop has ended"
    try:
        return answer.result(PATIENCE)
    except TimeoutError:
        answer.cancel()
        return f"no answer from the event loop within {PATIENCE:g} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer is no
        return f"{type(error).__name__} when asked"
