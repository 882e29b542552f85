import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from referencing import Registry

from atto.protocol import schemas
from atto.protocol.codec import decode_batch, decode_cancel, decode_turn, encode
from atto.protocol.errors import InvalidTurn
from atto.protocol.sessions import SnapshotPage
from tests.protocol import strategies

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"


def validator(name: str) -> jsonschema.Draft202012Validator:
    """An empty registry: what a schema refers to must lie in it."""
    schema = json.loads(schemas.generate()[name])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, registry=Registry())


TURN, BATCH, CANCEL, PAGE = map(
    validator, ["turn.json", "event-batch.json", "cancel.json", "snapshot-page.json"]
)


def test_the_published_schemas_are_those_of_the_types():
    published = {file.name: file.read_bytes() for file in PUBLISHED.iterdir()}
    assert published == schemas.generate(), "run `just schemas`"


def test_the_command_writes_every_schema(tmp_path):
    schemas.write(tmp_path / "new")
    assert {file.name: file.read_bytes() for file in (tmp_path / "new").iterdir()} == schemas.generate()


@pytest.mark.parametrize("name", schemas.generate())
def test_a_schema_stands_for_itself(name):
    schema = json.loads(schemas.generate()[name])
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"].startswith("atto ")
    assert "$id" not in schema


@given(strategies.turns)
@settings(max_examples=50)
def test_every_turn_is_valid(turn):
    TURN.validate(json.loads(encode(turn)))


@given(strategies.batches)
@settings(max_examples=50)
def test_every_event_batch_is_valid(batch):
    BATCH.validate(json.loads(encode(batch)))


@given(strategies.cancels)
def test_every_cancellation_is_valid(cancel):
    CANCEL.validate(json.loads(encode(cancel)))


@given(strategies.snapshot_pages)
@settings(max_examples=50)
def test_every_page_of_a_snapshot_is_valid(page):
    PAGE.validate(json.loads(encode(page)))


IMAGE = {"type": "image", "url": "https://example.com/cat.png"}
COMPLETED = {
    "type": "run_completed",
    "seq": 3,
    "time": "2026-01-02T03:04:05Z",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
    "version": 1,
}


@pytest.mark.parametrize(
    ("schema", "decode", "document"),
    [
        (TURN, decode_turn, {"input": "hi"}),
        (TURN, decode_turn, {"input": "hi", "v": 2, "run_id": "r", "expires": "2030-01-01T00:00:00+01:00"}),
        (TURN, decode_turn, {"input": [{"type": "text", "text": ""}, IMAGE], "metadata": {"a": "b"}}),
        (TURN, decode_turn, {"resume": {"run_id": "r", "answers": {"w": {"approve": False, "say": "no"}}}}),
        (TURN, decode_turn, {"input": "hi", "agent": "a", "on_busy": "steer"}),
        (TURN, decode_turn, {"input": "hi", "a_field": "of a newer release"}),
        (TURN, decode_turn, {"input": [{"type": "file", "data": "AAAA", "media_type": "a/b", "name": "n"}]}),
        (CANCEL, decode_cancel, {}),
        (CANCEL, decode_cancel, {"reason": "changed my mind"}),
        (BATCH, decode_batch, {"events": [COMPLETED]}),
        (BATCH, decode_batch, {"events": [{"type": "of_a_newer_release", "seq": 1, "more": {}}]}),
    ],
)
def test_what_is_accepted_is_valid(schema, decode, document):
    decode(encode(document))
    schema.validate(document)


def completed(content, role="assistant"):
    return {**COMPLETED, "message": {"role": role, "content": content}}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "of_a_newer_release", "seq": 1, "path": "a", "first": 1, "message": {"content": 5}},
        completed([{"type": "of_a_newer_release", "text": 5}]),
        completed([], role="of_a_newer_release"),
        {
            "type": "tool_completed",
            "seq": 2,
            "step": 1,
            "call_id": "c",
            "name": "n",
            "content": [{"type": "x"}],
        },
        {"type": "wait_started", "seq": 2, "wait": {"id": "w", "kind": "of_a_newer_release"}},
    ],
)
def test_what_a_newer_release_may_write_is_valid_for_readers(event):
    BATCH.validate({"events": [event]})
    PAGE.validate({"messages": [event["message"]]} if event["type"] == "run_completed" else {})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "text_delta", "seq": 1},
        {"seq": 1},
        {"type": "of_a_newer_release"},
        completed([{"text": "no type"}]),
        completed([{"type": "text", "text": 5}]),
        completed([{"type": "tool_call"}]),
    ],
)
def test_what_is_known_is_still_checked(event):
    assert not BATCH.is_valid({"events": [event]})


def test_bounds_of_run_ids():
    for run_id in ("", "r", "r" * 128):
        TURN.validate({"input": "hi", "run_id": run_id})
    assert not TURN.is_valid({"input": "hi", "run_id": "r" * 129})
    answers = {"w": {"approve": True}}
    assert not TURN.is_valid({"resume": {"run_id": "", "answers": answers}})
    assert not TURN.is_valid({"resume": {"run_id": "r" * 129, "answers": answers}})


@pytest.mark.parametrize(
    ("schema", "decode", "document"),
    [
        (TURN, decode_turn, {}),
        (TURN, decode_turn, []),
        (TURN, decode_turn, {"input": ""}),
        (TURN, decode_turn, {"input": []}),
        (TURN, decode_turn, {"input": 5}),
        (TURN, decode_turn, {"input": "hi", "v": 3}),
        (TURN, decode_turn, {"input": "hi", "resume": {"run_id": "r", "answers": {"w": {"approve": True}}}}),
        (TURN, decode_turn, {"resume": {"run_id": "r", "answers": {}}}),
        (TURN, decode_turn, {"resume": {"run_id": "r", "answers": {"w": {}}}}),
        (TURN, decode_turn, {"resume": {"run_id": "r", "answers": {"w": {"approve": True, "value": 1}}}}),
        (TURN, decode_turn, {"input": "hi", "on_busy": "maybe"}),
        (TURN, decode_turn, {"input": "hi", "run_id": 5}),
        (TURN, decode_turn, {"input": "hi", "expires": "2030-01-01T00:00:00"}),
        (TURN, decode_turn, {"input": "hi", "metadata": {"a": 1}}),
        (TURN, decode_turn, {"input": [{"type": "tool_call", "id": "1", "name": "x"}]}),
        (TURN, decode_turn, {"input": [{"type": "image"}]}),
        (TURN, decode_turn, {"input": [{**IMAGE, "data": "AAAA", "media_type": "image/png"}]}),
        (TURN, decode_turn, {"input": [{"type": "image", "data": "AAAA"}]}),
        (CANCEL, decode_cancel, {"reason": 5}),
        (BATCH, decode_batch, {}),
        (BATCH, decode_batch, {"events": [{"type": "text_delta", "seq": 1, "step": 1}]}),
        (BATCH, decode_batch, {"events": [{"type": "of_a_newer_release"}]}),
        (BATCH, decode_batch, {"events": [COMPLETED], "v": 3}),
    ],
)
def test_what_is_refused_is_not_valid(schema, decode, document):
    with pytest.raises(InvalidTurn):
        decode(encode(document))
    assert not schema.is_valid(document)


def test_a_page_of_a_snapshot_has_messages():
    page = {
        "version": 1,
        "messages": [COMPLETED["message"]],
        "state": {"a": 1},
        "runs": [{"run_id": "r", "version": 1, "begin": 0, "end": 1}],
    }
    msgspec.convert(page, SnapshotPage)
    PAGE.validate(page)
    assert not PAGE.is_valid({**page, "messages": [{"role": "user"}]})
