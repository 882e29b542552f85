import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.models import (
    Assembler,
    FinishChunk,
    PartDone,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    UsageChunk,
)
from atto.models.assemble import parse_arguments
from atto.protocol.codec import MAX_DEPTH, decode_batch, encode
from atto.protocol.errors import ModelError
from atto.protocol.events import EventBatch, ModelCompleted
from atto.protocol.messages import Origin, ReasoningPart, TextPart, ToolCallPart, Usage

STOP = FinishChunk("stop")


def assemble(*chunks):
    assembler = Assembler(Origin("p", "m"))
    for chunk in chunks:
        assembler.add(chunk)
    return assembler.finish()


def content(*chunks):
    return assemble(*chunks, STOP).message.content


texts = st.text(st.characters(exclude_categories=["Cs"]))
chunks_of_any_kind = st.one_of(
    st.builds(TextChunk, texts),
    st.builds(ReasoningChunk, texts),
    st.builds(
        ToolCallChunk,
        st.integers(0, 3),
        id=st.sampled_from(["", "a", "b"]),
        name=st.sampled_from(["", "f"]),
        arguments=st.sampled_from(["", "{", "}", '"k":1', "[]", "{}"]),
    ),
    st.builds(PartDone, st.sampled_from([None, {"n": 1}]), st.sampled_from([None, 0, 1])),
    st.builds(UsageChunk, st.builds(Usage, st.integers(0, 99))),
)


@given(st.lists(chunks_of_any_kind))
def test_whatever_comes_the_message_is_sound(chunks):
    message = assemble(*chunks, STOP).message
    reasoning = "".join(part.text for part in message.content if isinstance(part, ReasoningPart))
    ids = [call.id for call in message.tool_calls]
    assert message.text == "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
    assert reasoning == "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk))
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert all(call.malformed is not None or call.name for call in message.tool_calls)
    batch = EventBatch(events=(ModelCompleted(seq=1, step=1, message=message),))
    assert decode_batch(encode(batch)) == batch


def test_consecutive_chunks_make_one_part_each_in_order_of_beginning():
    assert content(
        ReasoningChunk("hm"), ReasoningChunk("m"), TextChunk("a"), TextChunk("b"), ReasoningChunk("x")
    ) == (ReasoningPart("hmm"), TextPart("ab"), ReasoningPart("x"))


def test_tool_calls_are_joined_by_slot():
    first, second = assemble(
        ToolCallChunk(4, id="x", name="f", arguments='{"a"'),
        ToolCallChunk(9, id="y", name="g"),
        ToolCallChunk(4, arguments=":1}"),
        STOP,
    ).message.tool_calls
    assert first == ToolCallPart("x", "f", {"a": 1})
    assert second == ToolCallPart("y", "g", {})


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "{}}", '{"a":1e999}', '{"a":NaN}', "nonsense"])
def test_what_is_no_json_object_is_malformed(text):
    (call,) = content(ToolCallChunk(0, id="x", name="f", arguments=text))
    assert call == ToolCallPart("x", "f", malformed=text)


def test_arguments_too_deep_to_travel_in_an_event_are_malformed():
    def nested(levels):
        return '{"a":' * levels + "1" + "}" * levels

    deepest = max(levels for levels in range(1, MAX_DEPTH + 1) if parse_arguments(nested(levels)) is not None)
    message = assemble(ToolCallChunk(0, name="f", arguments=nested(deepest)), STOP).message
    batch = EventBatch(events=(ModelCompleted(seq=1, step=1, message=message),))
    assert decode_batch(encode(batch)) == batch
    assert deepest >= MAX_DEPTH - 10
    (call,) = content(ToolCallChunk(0, name="f", arguments=nested(100_000)))
    assert call.malformed is not None


def test_numbers_of_any_size_survive():
    (call,) = content(ToolCallChunk(0, name="f", arguments=f'{{"a":{10**300}}}'))
    assert json.loads(msgspec.json.encode(call))["arguments"]["a"] == 10**300


def test_half_a_character_in_malformed_arguments_can_be_encoded():
    (call,) = content(ToolCallChunk(0, name="f", arguments='{"a":"\ud83d'))
    assert msgspec.json.encode(call)


def test_ids_are_made_up_where_missing_and_made_unique_where_doubled():
    first, second, third, fourth = (
        call.id
        for call in content(
            *(ToolCallChunk(slot, id=i, name="f") for slot, i in enumerate(["x", "", "x", ""]))
        )
    )
    assert first == "x"
    assert all(len(made) == 9 and made.isalnum() for made in (second, third, fourth))
    assert len({first, second, third, fourth}) == 4


def test_a_call_without_a_name_is_malformed():
    (call,) = content(ToolCallChunk(0, id="x", arguments="{}"))
    assert (call.name, call.malformed) == ("", "{}")


def test_native_is_attached_and_closes_the_part():
    assert content(
        TextChunk("a"), PartDone("n1"), TextChunk("b"), PartDone("n2"), TextChunk(""), PartDone("signed")
    ) == (TextPart("a", native="n1"), TextPart("b", native="n2"), TextPart("", native="signed"))


def test_native_without_chunks_is_an_opaque_reasoning_part():
    assert content(PartDone({"redacted": 1}), TextChunk("a")) == (
        ReasoningPart("", native={"redacted": 1}),
        TextPart("a"),
    )


def test_native_of_a_tool_call_goes_by_slot_and_frees_it():
    first, second = content(
        ToolCallChunk(0, id="x", name="f"), PartDone("n", slot=0), ToolCallChunk(0, id="y", name="g")
    )
    assert (first.native, second.name) == ("n", "g")


def test_the_last_usage_and_the_first_finish_count():
    assembled = assemble(
        UsageChunk(Usage(1)), UsageChunk(Usage(2)), FinishChunk("length"), FinishChunk("stop")
    )
    assert (assembled.usage, assembled.finish) == (Usage(2), "length")
    assert assembled.message.origin == Origin("p", "m")


def test_an_empty_answer_is_an_empty_message():
    assert content() == ()
    assert content(TextChunk(""), ReasoningChunk(""), PartDone(None)) == ()


def test_a_stream_without_a_finish_was_cut():
    with pytest.raises(ModelError, match="without its terminal marker") as caught:
        assemble(TextChunk("a"))
    assert caught.value.transient
