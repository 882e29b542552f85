"""`atto doctor`: finds what is wrong, says how to mend it, changes nothing."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from tests.cli.commands import Done, atto, called
from tests.integration.conftest import worker  # noqa: F401 - a fixture
from tests.permissions.deployment import declare, login, serving

Findings = dict[str, dict[str, Any]]


async def _examined(
    *flags: str, cwd: Path, env: dict[str, str], by: Callable[..., Awaitable[Done]] = called
) -> tuple[int, Findings]:
    done = await by("doctor", "--json", *flags, cwd=cwd, **env)
    findings = [json.loads(line) for line in done.out.splitlines()]
    assert all(finding.get("mend") for finding in findings if finding["status"] == "failure"), findings
    return done.code, {finding["check"]: finding for finding in findings}


async def test_all_is_well(worker, jetstream: JetStream, namespace: str, env, tmp_path: Path):  # noqa: F811
    async with worker("Hello."):
        code, findings = await _examined(cwd=tmp_path, env=env, by=atto)
        assert (code, {finding["status"] for finding in findings.values()}) == (0, {"ok"}), findings
        wanted = {"broker", "jetstream", "limits", "namespace", "clock", "permissions", "store", "workers"}
        assert findings.keys() == wanted
        code, findings = await _examined("--role", "client", cwd=tmp_path, env=env)
        assert (code, findings["permissions"]["status"]) == (0, "ok")
    subjects = Subjects(namespace)
    for stream, subject in (
        (subjects.turns_stream, ">"),
        (subjects.events_stream, ">"),
        (subjects.cancels_stream, ">"),
        (subjects.dead_stream, ">"),
    ):
        assert await jetstream.last(stream, subject) is None, stream  # the probes left nothing


async def test_no_broker(tmp_path: Path):
    nowhere = {"ATTO_NATS": "nats://127.0.0.1:1", "ATTO_CONNECT_TIMEOUT": "0.3"}
    code, findings = await _examined(cwd=tmp_path, env=nowhere)
    assert (code, findings.keys()) == (3, {"broker"})


async def test_a_namespace_that_was_never_declared(env: dict[str, str], tmp_path: Path):
    code, findings = await _examined(cwd=tmp_path, env=env)
    assert (code, findings["namespace"]["status"]) == (4, "failure")
    assert findings["store"]["status"] == "ok"


async def test_a_stream_that_was_changed(jetstream: JetStream, namespace: str, env, tmp_path: Path):
    await Topology(namespace, partitions=4).declare(jetstream)
    stream = Subjects(namespace).turns_stream
    config = json.loads(await jetstream.api(f"STREAM.INFO.{stream}"))["config"]
    await jetstream.api(f"STREAM.UPDATE.{stream}", {**config, "discard_new_per_subject": False})
    code, findings = await _examined(cwd=tmp_path, env=env)
    assert (code, findings["namespace"]["status"]) == (4, "failure")
    assert findings["workers"]["status"] == "warning"


@pytest.mark.parametrize(
    ("store", "status", "code"),
    [
        ("sqlite:///none.db", "ok", 0),
        ("memory:", "warning", 0),
        ("sqlite:///there/is/none.db", "failure", 5),
        ("nowhere", "failure", 2),
    ],
)
async def test_stores_that_are_not_there(
    store: str, status: str, code: int, env: dict[str, str], tmp_path: Path
):
    _, findings = await _examined("--store", store, cwd=tmp_path, env=env)
    assert (findings["store"]["status"], findings["store"].get("code", 0)) == (status, code)
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_is_another_programs(env: dict[str, str], tmp_path: Path):
    (tmp_path / "other.db").write_text("no database, but long enough to be one\n" * 100)
    _, findings = await _examined("--store", "sqlite:///other.db", cwd=tmp_path, env=env)
    assert (findings["store"]["status"], findings["store"]["code"]) == ("failure", 5)


async def test_what_the_server_refuses_is_named(namespace: str, tmp_path: Path):
    denied = f"$JS.API.CONSUMER.DELETE.{namespace}-TURNS.*"
    rights = f'{{ publish: {{ deny: ["{denied}"] }}, subscribe: {{ deny: ["{namespace}.workers"] }} }}'
    config = f"authorization {{ users: [{{ user: w, password: p, permissions: {rights} }}] }}"
    async with EmbeddedBroker(config=config) as broker:
        env = {"ATTO_NATS": broker.url, "ATTO_NAMESPACE": namespace, "ATTO_USER": "w", "ATTO_PASSWORD": "p"}
        code, findings = await _examined(cwd=tmp_path, env=env)
    assert (code, findings["permissions"]["status"]) == (4, "failure")
    detail = findings["permissions"]["detail"]
    assert f"subscription {namespace}.workers" in detail.lower()
    assert "consumer.delete" in detail.lower()
    assert detail.count(",") == 1


async def test_a_broker_for_small_messages_only_is_told(namespace: str, tmp_path: Path):
    async with EmbeddedBroker(config="max_payload: 65536") as broker:
        env = {"ATTO_NATS": broker.url, "ATTO_NAMESPACE": namespace}
        _, findings = await _examined(cwd=tmp_path, env=env)
    assert findings["limits"]["status"] == "warning"


@pytest.mark.parametrize("file", ["tenant.conf", "users.conf"])
async def test_the_shipped_permissions_allow_all_that_a_role_is_examined_for(tmp_path: Path, file: str):
    (tmp_path / "config").mkdir()
    async with serving(tmp_path / "config", file) as broker:
        await declare(broker.url, **login("atto-admin"))
        for role, examined, wanted in (
            ("worker", "worker", (0, "ok")),
            ("client", "client", (0, "ok")),
            ("worker", "client", (3, "failure")),
        ):
            given = login(f"atto-{role}")
            env = {"ATTO_NATS": broker.url, "ATTO_USER": given["user"], "ATTO_PASSWORD": given["password"]}
            env |= {"ATTO_INBOX_PREFIX": given["inbox_prefix"]}
            code, findings = await _examined("--role", examined, cwd=tmp_path, env=env)
            assert (code, findings["permissions"]["status"]) == wanted, findings
