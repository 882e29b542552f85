"""What an operator asks: who is here, who owns what, what could not be run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_client import Client
from atto_workers import Worker
from atto_workers.topology import stream_info
from tests.cli.commands import called
from tests.integration.conftest import client, worker  # noqa: F401 - fixtures


async def test_partitions_have_owners_and_then_none_but_what_waits(
    worker: Callable[..., Worker],  # noqa: F811
    client: Client,  # noqa: F811
    env: dict[str, str],
    tmp_path: Path,
):
    async with worker("Hello.") as running:
        views = await _lines("partitions", cwd=tmp_path, env=env)
        assert [view["partition"] for view in views] == [0, 1, 2, 3, None]
        assert {view["worker"] for view in views} == {running.id}
        [view] = await _lines("workers", cwd=tmp_path, env=env)
        assert (view["worker"], view["status"], view["partitions"]) == (running.id, "member", 5)
        assert view["agent"] == "tester"
        done = await called("partitions", cwd=tmp_path, **env)
        assert done.out.count(running.id) == 5
        assert "stray" in done.out
    await client.submit("ann", "waits for a worker")
    views = await _lines("partitions", cwd=tmp_path, env=env)
    assert {view["worker"] for view in views} == {None}
    assert sorted(view["lag"] for view in views) == [0, 0, 0, 0, 1]
    assert await _lines("workers", cwd=tmp_path, env=env) == []


async def test_a_dead_letter_is_listed_shown_put_back_and_dropped(
    worker: Callable[..., Worker],  # noqa: F811
    jetstream: JetStream,
    env: dict[str, str],
    tmp_path: Path,
):
    async with worker("Hello."):
        for body in (b'{"input": "hi", "v": 999}', b"no JSON"):
            await jetstream.publish(Subjects(env["ATTO_NAMESPACE"]).turn("ann"), body)
        letters = []
        while len(letters) < 2:
            letters = await _lines("dlq", "ls", cwd=tmp_path, env=env)
        assert {letter["token"] for letter in letters} == {"ann"}
        number = next(str(letter["number"]) for letter in letters if letter["code"] == "invalid_turn")
        [shown] = await _lines("dlq", "show", number, cwd=tmp_path, env=env)
        assert str(shown["number"]) == number
        assert shown["body"]
        assert "body" not in letters[0]
        assert (await called("dlq", "show", number, cwd=tmp_path, **env)).out.endswith("\nno JSON\n")

        done = await called("dlq", "requeue", number, "--json", cwd=tmp_path, **env)
        assert done.code == 1
        assert json.loads(done.err)["error"]["code"] == "dead_letter_unusable"
        for letter in letters:
            done = await called("dlq", "drop", str(letter["number"]), "--json", cwd=tmp_path, **env)
            assert json.loads(done.out) == {"number": letter["number"]}
        assert await _lines("dlq", "ls", cwd=tmp_path, env=env) == []
        assert (await called("dlq", "show", number, cwd=tmp_path, **env)).code == 1
        assert (await called("dlq", "drop", number, cwd=tmp_path, **env)).code == 1


async def _lines(*arguments: str, cwd: Path, env: dict[str, str]) -> list[dict[str, object]]:
    done = await called(*arguments, "--json", cwd=cwd, **env)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.parametrize(
    "command",
    [
        *("dlq ls", "dlq show 1", "dlq drop 1", "dlq requeue 1"),
        *("sessions ls", "sessions show ann", "sessions rm ann", "sessions export ann"),
    ],
)
async def test_looking_into_a_namespace_that_is_not_there_says_so_and_makes_none(
    command: str, jetstream: JetStream, namespace: str, env: dict[str, str], tmp_path: Path
):
    done = await called(*command.split(), cwd=tmp_path, **env)
    assert (done.code, done.err.count("\n"), namespace in done.err) == (4, 1, True), done.err
    assert await stream_info(jetstream, f"KV_{Subjects(namespace).sessions_bucket}") is None


async def test_a_key_that_outlived_its_worker_is_no_worker(
    worker: Callable[..., Worker],  # noqa: F811
    jetstream: JetStream,
    namespace: str,
    env: dict[str, str],
    tmp_path: Path,
):
    async with worker("Hello.") as running:
        key = f"$KV.{Subjects(namespace).members_bucket}.gone"
        await jetstream.publish(
            key, b'{"host":"here","pid":1}'
        )  # as a broker that was killed may bring it back
        views = await _lines("workers", cwd=tmp_path, env=env)
    assert [view["worker"] for view in views] == [running.id]
