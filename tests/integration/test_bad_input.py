"""Whatever comes in: a clear error or a dead letter with its reason, and the session goes on."""

import json

import pytest
from nats.aio.client import Client as Connection

from atto.broker.jetstream import JetStream
from atto.models import ScriptedModel
from atto.protocol.errors import InvalidRunId, InvalidSessionId, InvalidTurn
from atto.protocol.ids import encode_session
from atto.protocol.subjects import Subjects
from atto_client import TurnTooLarge


async def dead_letters(jetstream: JetStream, namespace: str) -> list[tuple[str, dict[str, str], bytes]]:
    """Session or token, headers and body of each letter."""
    stream = Subjects(namespace).dead_stream
    info = json.loads(await jetstream.api(f"STREAM.INFO.{stream}"))
    manager = jetstream.connection.jetstream()
    letters = []
    for sequence in range(1, info["state"]["last_seq"] + 1):
        message = await manager.get_msg(stream, sequence)
        letters.append((message.subject.split(".", 2)[2], message.headers or {}, message.data or b""))
    return letters


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_turn"),
        (b"{", "invalid_turn"),
        (b"[]", "invalid_turn"),
        (b'"hi"', "invalid_turn"),
        (b"\xff\xfe", "invalid_turn"),
        (b'{"input": ""}', "invalid_turn"),
        (b'{"input": 5}', "invalid_turn"),
        (b'{"text": "hi"}', "invalid_turn"),
        (b'{"input": [{"type": "image"}]}', "invalid_turn"),
        (b'{"input": "hi", "expires": "2030-01-01T00:00:00"}', "invalid_turn"),
        (b'{"input": "hi", "v": 3}', "unsupported_version"),
        (b'{"v": 9, "prompt": {"new": "shape"}}', "unsupported_version"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_turn"),
        (b'{"input": "hi", "run_id": "' + b"x" * 200 + b'"}', "invalid_run_id"),
    ],
)
async def test_a_turn_that_cannot_be_read_fails_is_kept_and_does_not_stop_the_session(
    worker, client, connection: Connection, jetstream: JetStream, namespace: str, body, code
):
    async with worker(lambda request: request.messages[-1].text):
        heard = await connection.subscribe(f"{namespace}.event.s.*")
        await connection.flush()
        await jetstream.publish(f"{namespace}.turn.s", body)
        assert (await (await client.submit("s", "next")).result()).text == "next"
        letters = await dead_letters(jetstream, namespace)
        failures = []
        while heard.pending_msgs:
            batch = json.loads((await heard.next_msg()).data)
            failures += [event for event in batch["events"] if event["type"] == "run_failed"]
        await heard.unsubscribe()
    assert [(where, headers["Atto-Code"], data) for where, headers, data in letters] == [("s", code, body)]
    assert letters[0][1]["Atto-Reason"]
    if code != "invalid_run_id":  # then the run cannot be named
        assert [(event["code"], event["seq"]) for event in failures] == [(code, 1)]


@pytest.mark.parametrize("token", ["*", ">", "ünïcode", "a=2", "=61", "x" * 129, "emoji-🎈"])
async def test_a_session_token_that_is_not_encoded_is_a_dead_letter(
    worker, client, jetstream: JetStream, namespace: str, token
):
    async with worker(lambda _: "fine"):
        await jetstream.publish(f"{namespace}.turn.{token}", b'{"input": "hi"}')
        assert (await (await client.submit("s", "next")).result()).text == "fine"
        letters = []
        while not letters:
            letters = await dead_letters(jetstream, namespace)
    [(_, headers, data)] = letters
    assert headers["Atto-Code"] == "invalid_session_id"
    assert data == b'{"input": "hi"}'


@pytest.mark.parametrize(
    "session", ["*", ">", "a.b", "with spaces", "🎈" * 32, "x" * 128, "=", "a\r\nb", "\0"]
)
async def test_any_session_id_of_at_most_128_bytes_works(worker, client, session):
    async with worker(lambda _: "fine"):
        assert (await client.run(session, "hi").result()).text == "fine"
        assert (await client.snapshot(session)).version == 1
    assert encode_session(session).isascii()


@pytest.mark.parametrize("session", ["", "x" * 129, "x" * 5000, "🎈" * 33, "\ud800"])
async def test_any_other_session_id_is_refused_before_anything_is_sent(client, session):
    with pytest.raises(InvalidSessionId):
        client.run(session, "hi")
    with pytest.raises(InvalidSessionId):
        await client.submit(session, "hi")
    with pytest.raises(InvalidSessionId):
        client.attach(session, "run")
    with pytest.raises(InvalidSessionId):
        await client.snapshot(session)


async def test_input_that_is_no_turn_is_refused_before_anything_is_sent(client):
    with pytest.raises(InvalidTurn, match="empty"):
        await client.submit("s", "")
    with pytest.raises(InvalidTurn, match="empty"):
        client.run("s", [])
    with pytest.raises(InvalidTurn):
        client.run("s", [{"type": "text"}])
    with pytest.raises(InvalidTurn, match="surrogates not allowed"):
        client.run("s", "\ud800")
    with pytest.raises(InvalidRunId):
        client.run("s", "hi", run_id="")


async def test_a_turn_beyond_the_brokers_message_size_is_refused_with_what_to_do(worker, client):
    async with worker(lambda _: "fine"):
        with pytest.raises(TurnTooLarge, match="by URL"):
            await client.submit("s", "x" * 1_100_000)
        assert (await client.run("s", "hi").result()).text == "fine"


async def test_a_huge_tool_result_is_an_error_that_the_model_sees(worker, client):
    from atto import Agent, tool
    from atto.models import call

    @tool
    def dump() -> str:
        """Gives more than travels."""
        return "x" * 2_000_000

    def model(request):
        last = request.messages[-1]
        return call("dump") if last.role == "user" else last.content[0].content

    async with worker(Agent("dumper", ScriptedModel.of(model), tools=[dump])):
        result = await client.run("s", "go").result()
    assert "ask for less" in result.text
