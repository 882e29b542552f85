"""`atto turns`: what waits or runs is seen and removed, whatever it is."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.events import RunCancelled
from atto.protocol.subjects import Subjects
from atto_client import Client
from atto_workers import Topology
from tests.cli.commands import called
from tests.raw import raw_client

Env = dict[str, str]

HOSTILE = (
    b"\xff\xfe{",
    b"",
    b"\x1b[2J\x1b]0;owned\x07",
    b"[" * 5000,
    b'{"input": "\\u001b[2J", "run_id": "r\\u001b[2J"}',
    b'{"input": "x", "v": 999, "run_id": "later"}',
)


async def _listed(*flags: str, cwd: Path, env: Env) -> list[dict[str, Any]]:
    done = await called("turns", "ls", "--json", *flags, cwd=cwd, **env)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


async def test_turns_are_listed_and_removed_by_number_and_by_run_id(
    broker: EmbeddedBroker, namespace: str, jetstream: JetStream, env: Env, tmp_path: Path
):
    await Topology(namespace).declare(jetstream)
    async with Client(broker.url, namespace=namespace) as client, asyncio.timeout(60):
        await client.submit("ann", "one\ntwo", run_id="r1")
        await client.submit("bob", "three", run_id="r2")
        assert [turn["run_id"] for turn in await _listed(cwd=tmp_path, env=env)] == ["r1", "r2"]
        [turn] = await _listed("--session", "ann", cwd=tmp_path, env=env)
        assert (turn["session"], turn["text"], turn["worker"]) == ("ann", "one", None)
        shown = (await called("turns", "ls", cwd=tmp_path, **env)).out
        assert [line.split()[0] for line in shown.splitlines()] == ["1", "2"]
        assert shown.count("waits for a worker") == 2
        assert (await called("turns", "rm", "1", cwd=tmp_path, **env)).out == "removed 1: run r1 of ann\n"
        done = await called("turns", "rm", "r2", "--json", cwd=tmp_path, **env)
        assert (done.code, json.loads(done.out)["number"]) == (0, 2), done.err
        for run in ("r1", "r2"):
            session = {"r1": "ann", "r2": "bob"}[run]
            [event] = [event async for event in client.attach(session, run)]
            assert isinstance(event, RunCancelled)
        assert await _listed(cwd=tmp_path, env=env) == []
        assert (await called("turns", "ls", cwd=tmp_path, **env)).out == ""


async def test_whatever_lies_there_is_listed_in_one_plain_line_and_removed(
    broker: EmbeddedBroker, namespace: str, jetstream: JetStream, env: Env, tmp_path: Path
):
    await Topology(namespace).declare(jetstream)
    async with raw_client(broker.url) as raw:
        for body in HOSTILE:
            raw.publish(namespace.encode() + b".turn.ann", body)
        for token in (b"\xff\xfe", b"a\x0bb", b"*", b"=" * 2000):
            raw.publish(namespace.encode() + b".turn." + token, b"{}")
        assert await raw.flush() == []
    listed = await _listed(cwd=tmp_path, env=env)
    assert len(listed) == len(HOSTILE) + 4
    shown = (await called("turns", "ls", cwd=tmp_path, **env)).out
    assert len(shown.split("\n")) == len(listed) + 1
    assert not [sign for sign in shown if sign != "\n" and not sign.isprintable()]
    for turn in listed:
        done = await called("turns", "rm", str(turn["number"]), cwd=tmp_path, **env)
        assert (done.code, done.err) == (0, "")
        assert done.out[:-1].isprintable()
    assert await _listed(cwd=tmp_path, env=env) == []


@pytest.mark.parametrize("which", ["17", "no-such-run", "99999999999999999999", "0", "-- -1"])
@pytest.mark.parametrize("as_json", [True, False])
async def test_a_turn_that_is_not_there_is_said(
    which: str, as_json: bool, namespace: str, jetstream: JetStream, env: Env, tmp_path: Path
):
    await Topology(namespace).declare(jetstream)
    flags = ["--json"] if as_json else []
    done = await called("turns", "rm", *flags, *which.split(), cwd=tmp_path, **env)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done.err
    if as_json:
        assert json.loads(done.err)["error"]["code"] == "no_such_turn"
    assert "there is no turn" in done.err


async def test_one_run_id_in_two_sessions_is_removed_by_number(
    broker: EmbeddedBroker, namespace: str, jetstream: JetStream, env: Env, tmp_path: Path
):
    await Topology(namespace).declare(jetstream)
    async with Client(broker.url, namespace=namespace) as client:
        await client.submit("ann", "x", run_id="r")
        await client.submit("bob", "x", run_id="r")
    done = await called("turns", "rm", "r", cwd=tmp_path, **env)
    assert (done.code, "1 of ann, 2 of bob" in done.err) == (1, True), done.err
    assert len(await _listed(cwd=tmp_path, env=env)) == 2


@pytest.mark.parametrize("command", ["ls", "rm 1", "rm r"])
async def test_a_namespace_that_was_never_declared_is_said(
    command: str, namespace: str, env: Env, tmp_path: Path
):
    done = await called("turns", *command.split(), cwd=tmp_path, **env)
    assert (done.code, done.err.count("\n"), namespace in done.err) == (4, 1, True), done.err


async def test_an_answer_that_waits_is_listed_too(
    namespace: str, jetstream: JetStream, env: Env, tmp_path: Path
):
    await Topology(namespace).declare(jetstream)
    answer = b'{"run_id": "a", "resume": {"run_id": "r", "answers": {"w": {"approve": true}}}}'
    await jetstream.publish(Subjects(namespace).answer("ann"), answer)
    [turn] = await _listed(cwd=tmp_path, env=env)
    assert (turn["run_id"], turn["text"]) == ("a", "answer to run r: w")
