"""The health endpoints are answered by a thread, so a blocked event loop is noticed."""

import asyncio
import threading
import time
import urllib.error
import urllib.request

import pytest

from atto_workers import health


def _get(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_not_ready_is_503_and_alive_is_200():
    async def unready() -> str | None:
        return "not yet"

    async with health.health_server(0, unready) as port:
        assert await asyncio.to_thread(_get, port, "/readyz") == 503
        assert await asyncio.to_thread(_get, port, "/healthz") == 200
        assert await asyncio.to_thread(_get, port, "/") == 404


async def test_a_blocked_loop_is_not_healthy(monkeypatch: pytest.MonkeyPatch):
    async def unready() -> str | None:
        return None

    monkeypatch.setattr(health, "PATIENCE", 0.2)
    seen: list[int] = []
    async with health.health_server(0, unready) as port:
        probe = threading.Thread(target=lambda: seen.append(_get(port, "/healthz")))
        probe.start()
        time.sleep(0)
        probe.join(5)  # blocks the loop, which is what is tested
    assert seen == [503]
