"""What a chunk of a model's stream costs, by adapter, against the iterator of the adapter's SDK.

bulk     one stream, everything there at once
spread   100 streams at once, one chunk a read
steady   500 streams at once, 10 chunks a second each: the share of a core that they take
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from atto.models import Model, ModelRequest
from atto.protocol.messages import Message
from benchmarks.command import table
from benchmarks.streaming_apis import APIS, KEY

Ask = Callable[[], Awaitable[object]]
_REQUEST = ModelRequest(messages=(Message.user("hi"),))
_ROUNDS = 3


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks streaming", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in seconds; shows that it works, not how fast")
    parser.add_argument("--record", action="store_true", help="has no effect: docs/models.md has the figures")
    quick = parser.parse_args(arguments).quick
    found = asyncio.run(_all(quick))
    header = ("µs a chunk", "bulk", "SDK's", "spread", "SDK's", "500 steady", "SDK's")
    table(header, [(api, *(f"{value:,.1f}" for value in values.values())) for api, values in found.items()])
    print("steady: per cent of a core")
    print(json.dumps({"benchmark": "streaming", "quick": quick, "found": found}))
    return 0


async def _all(quick: bool) -> dict[str, dict[str, float]]:
    return {api: await measure(api, quick) for api in APIS}


async def measure(api: str, quick: bool) -> dict[str, float]:
    chunks = 200 if quick else 2000
    found: dict[str, float] = {}
    for name, streams, length, pause in (
        ("bulk", 1, chunks, -1.0),
        ("spread", 10 if quick else 100, chunks // 40, 0.0),
    ):
        async with server(api, length, pause) as url, adapter(api, url) as ours:
            theirs = APIS[api].sdk(url)
            for ask, label in ((ours, name), (theirs, f"{name}_sdk")):
                await ask()  # imports, connections
                costs = [await _cpu(ask, streams) for _ in range(_ROUNDS)]
                found[label] = statistics.median(costs) * 1e6 / (streams * length)
    length, streams = (5, 20) if quick else (40, 500)
    async with server(api, length, 0.1) as url, adapter(api, url) as ours:
        for ask, label in ((ours, "steady"), (APIS[api].sdk(url), "steady_sdk")):
            await _cpu(ask, streams)  # opens the connections
            began = time.perf_counter()
            cpu = await _cpu(ask, streams)
            found[label] = 100 * cpu / (time.perf_counter() - began)
    return found


async def _cpu(ask: Ask, streams: int) -> float:
    """Seconds of CPU of this process."""
    began = time.process_time()
    await asyncio.gather(*(ask() for _ in range(streams)))
    return time.process_time() - began


@contextlib.asynccontextmanager
async def adapter(api: str, url: str) -> AsyncGenerator[Ask]:
    model: Model = APIS[api].dialect().make_model(url, api_key=KEY)

    async def ask() -> None:
        async with contextlib.aclosing(model.stream(_REQUEST)) as chunks:
            async for _ in chunks:
                pass

    yield ask
    close = getattr(model, "aclose", None)
    if close is not None:
        await close()


@contextlib.asynccontextmanager
async def server(api: str, chunks: int, pause: float) -> AsyncGenerator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.streaming_server", api, str(chunks), str(pause)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no output")
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()
