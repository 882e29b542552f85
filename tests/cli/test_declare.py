"""`atto declare`: makes a namespace, and changes what it is told to."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.subjects import Subjects
from atto_workers.topology import stream_info
from tests.cli.commands import background, called, free_port
from tests.replicated import Replicated

Env = dict[str, str]


async def _declared(*flags: str, cwd: Path, env: Env) -> dict[str, Any]:
    done = await called("declare", "--json", *flags, cwd=cwd, **env)
    assert done.code == 0, done.err
    return json.loads(done.out)


async def test_what_is_not_given_stays_as_it_is(
    env: Env, namespace: str, jetstream: JetStream, tmp_path: Path
):
    made = await _declared("--partitions", "8", "--max-turns", "100", cwd=tmp_path, env=env)
    ages = {"events_max_age": 86400.0, "events_kept": [600.0, 86400.0, 604800.0]}
    assert made == {"namespace": namespace, "partitions": 8, "backlog": 32, "replicas": 1, **ages}
    assert (await _declared("--backlog", "5", cwd=tmp_path, env=env))["backlog"] == 5
    again = await called("declare", cwd=tmp_path, **env)
    assert again.out == f"namespace {namespace}: 8 partitions, backlog 5, replicas 1\n"
    turns = await stream_info(jetstream, Subjects(namespace).turns_stream)
    assert turns is not None
    assert turns.config["max_msgs"] == 100
    assert await stream_info(jetstream, f"KV_{Subjects(namespace).sessions_bucket}") is not None


async def test_sessions_elsewhere_need_no_bucket(
    env: Env, namespace: str, jetstream: JetStream, tmp_path: Path
):
    await _declared("--store", "sqlite:///kept.db", cwd=tmp_path, env=env)
    assert (tmp_path / "kept.db").exists()
    assert await stream_info(jetstream, f"KV_{Subjects(namespace).sessions_bucket}") is None


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--partitions", "9"), 4, "was declared with 8 partitions, not 9"),
        (("--replicas", "0"), 2, "replicas must be at least 1"),
        (("--replicas", "3"), 3, "not supported in non-clustered mode"),
        (("--namespace", "a b"), 2, "namespace 'a b'"),
        (("--store", "nowhere"), 2, "there is no store"),
    ],
)
async def test_what_cannot_be_is_told(env: Env, tmp_path: Path, flags: tuple[str, ...], code: int, said: str):
    await _declared("--partitions", "8", cwd=tmp_path, env=env)
    done = await called("declare", *flags, cwd=tmp_path, **env)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert said in done.err


async def test_a_broker_that_starts_later_is_waited_for(tmp_path: Path):
    port = free_port()
    env = {"ATTO_NATS": f"nats://127.0.0.1:{port}", "ATTO_CONNECT_TIMEOUT": "0.1"}
    assert (await called("declare", cwd=tmp_path, **env)).code == 3
    async with background("declare", "--wait", "30", cwd=tmp_path, **env) as command:
        await command.until("not yet: cannot connect")
        async with EmbeddedBroker(port=port):
            assert await command.ended() == 0


async def test_doctor_says_what_has_one_copy_in_a_cluster_and_declare_mends_it(tmp_path: Path):
    async with asyncio.timeout(60), Replicated(tmp_path) as brokers:
        env = {"ATTO_NATS": ",".join(brokers.urls)}
        await _declared("--partitions", "4", cwd=tmp_path, env=env)
        single = await _copies(cwd=tmp_path, env=env)
        assert single["status"] == "warning"
        assert "KV_atto-sessions" in single["detail"]
        assert single["mend"] == "atto declare --replicas 3"
        assert (await _declared("--replicas", "3", cwd=tmp_path, env=env))["replicas"] == 3
        assert await _copies(cwd=tmp_path, env=env) == {}


async def _copies(*, cwd: Path, env: Env) -> dict[str, Any]:
    """What `atto doctor` says of replicas."""
    done = await called("doctor", "--json", cwd=cwd, **env)
    findings = [json.loads(line) for line in done.out.splitlines()]
    assert "namespace" in {finding["check"] for finding in findings}
    return next((finding for finding in findings if finding["check"] == "replicas"), {})
