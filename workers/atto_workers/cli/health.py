"""The health endpoints of `atto worker`, where its options say."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from atto_workers.health import health_server


@asynccontextmanager
async def health_answered(
    host: str,
    port: int | None,
    unready: Callable[[], Awaitable[str | None]],
    *,
    alive: Callable[[], Awaitable[str | None]] | None = None,
) -> AsyncGenerator[None]:
    """As `health_server`; without a port nothing is answered.

    Raises `OSError`, with the address, if it cannot be had.
    """
    async with AsyncExitStack() as stack:
        if port is not None:
            try:
                await stack.enter_async_context(health_server(port, unready, alive=alive, host=host))
            except OSError as error:
                raise OSError(
                    f"cannot answer at --health-host {host} --health-port {port}: {error.strerror}"
                ) from error
        yield
