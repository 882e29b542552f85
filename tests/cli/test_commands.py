"""The real entry point, as a subprocess, against the real broker."""

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from atto.broker.server import EmbeddedBroker

ENTRY = [sys.executable, "-c", "from atto_workers.cli import main; main()"]
AGENT = """
from atto import Agent
from atto.models import ScriptedModel
agent = Agent("tester", ScriptedModel.of("ANSWER-CANARY"))
"""


async def _atto(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *ENTRY,
        *arguments,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def _get(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_a_worker_serves_and_drains_and_says_nothing_of_prompts(
    broker: EmbeddedBroker, namespace: str, tmp_path: Path
):
    (tmp_path / "app.py").write_text(AGENT)
    (tmp_path / "atto.toml").write_text('namespace = "from-toml"\nlog-format = "json"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"ATTO_NATS": broker.url, "ATTO_NAMESPACE": namespace}
    worker = await asyncio.create_subprocess_exec(
        *ENTRY,
        *("worker", "app:agent", "--log-level", "debug", "--health-port", str(port)),
        cwd=tmp_path,
        env={**os.environ, **env},
        stderr=asyncio.subprocess.PIPE,
    )
    logs: list[bytes] = []
    try:
        assert worker.stderr is not None
        async with asyncio.timeout(60):
            while b"owns" not in b"".join(logs):
                line = await worker.stderr.readline()
                assert line, b"".join(logs).decode()
                logs.append(line)
        assert await asyncio.to_thread(_get, port, "/healthz") == 200
        assert await asyncio.to_thread(_get, port, "/readyz") == 200

        code, out, err = await _atto("run", "ann", "PROMPT-CANARY", "--json", cwd=tmp_path, **env)
        assert code == 0, err
        assert [json.loads(line)["type"] for line in out.splitlines()][-1] == "run_completed"
        code, out, _ = await _atto("run", "ann", "hi", cwd=tmp_path, **env)
        assert (code, out) == (0, "ANSWER-CANARY\n")

        code, out, err = await _atto("sessions", "ls", "--json", cwd=tmp_path, **env)
        assert json.loads(out) == {"session": "ann"}, err
        code, out, err = await _atto("sessions", "show", "ann", "--json", cwd=tmp_path, **env)
        assert json.loads(out)["session"] == "ann", err
        code, out, err = await _atto("sessions", "export", "ann", cwd=tmp_path, **env)
        (tmp_path / "ann.jsonl").write_text(out)
        code, _, err = await _atto("sessions", "import", "ann.jsonl", "--name", "bob", cwd=tmp_path, **env)
        assert code == 0, err
        assert (await _atto("sessions", "rm", "bob", cwd=tmp_path, **env))[0] == 0
        assert (await _atto("sessions", "rm", "bob", cwd=tmp_path, **env))[0] == 5
        assert (await _atto("dlq", "ls", "--json", cwd=tmp_path, **env))[0] == 0
    finally:
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            _, rest = await worker.communicate()
    assert worker.returncode == 0
    text = b"".join(logs) + rest
    assert b"CANARY" not in text
    assert all(json.loads(line)["event"] for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--help",), 0), (("nonsense",), 2), (("worker", "nowhere:agent"), 1), (("completion", "bash"), 0)],
)
async def test_exit_codes(arguments: tuple[str, ...], code: int, tmp_path: Path):
    assert (await _atto(*arguments, cwd=tmp_path))[0] == code


async def test_an_error_is_one_json_object(tmp_path: Path):
    code, _, err = await _atto("sessions", "rm", "x", "--store", "ftp://x", "--json", cwd=tmp_path)
    assert (code, json.loads(err)["error"]["code"]) == (1, "unknown_store")


async def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path):
    async def store_error(*flags: str, **environment: str) -> str:
        return (await _atto("sessions", "ls", *flags, cwd=tmp_path, **environment))[2]

    (tmp_path / "atto.toml").write_text('store = "toml://x"\n')
    assert "'toml'" in await store_error()
    assert "'env'" in await store_error(ATTO_STORE="env://x")
    assert "'flag'" in await store_error("--store", "flag://x", ATTO_STORE="env://x")


async def test_no_broker_is_code_3_and_one_line(tmp_path: Path):
    code, _, err = await _atto("run", "ann", "hi", "--nats", "nats://127.0.0.1:1", cwd=tmp_path)
    assert (code, err.count("\n")) == (3, 1)
