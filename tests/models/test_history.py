from atto.models.history import ORPHANED, as_text, repaired
from atto.protocol.messages import FilePart, ImagePart, Message, TextPart, ToolCallPart, ToolResultPart

USER = Message.user("hi")
CALLS = Message("assistant", (ToolCallPart("a", "f"), ToolCallPart("b", "g")))
A, B = ToolResultPart("a", "f", "1"), ToolResultPart("b", "g", "2")
LOST = ToolResultPart("b", "g", ORPHANED, is_error=True)


def test_a_whole_history_stays_as_it_is():
    history = (USER, CALLS, Message("tool", (A, B)), Message.assistant("done"))
    assert repaired(history) == list(history)


def test_a_call_without_a_result_gets_an_error():
    assert repaired((USER, CALLS, Message("tool", (A,)), USER)) == [
        USER,
        CALLS,
        Message("tool", (A, LOST)),
        USER,
    ]
    assert repaired((CALLS,))[1].content[1] == LOST


def test_results_in_several_messages_are_put_in_the_order_of_the_calls():
    assert repaired((CALLS, Message("tool", (B,)), Message("tool", (A,)))) == [CALLS, Message("tool", (A, B))]


def test_a_result_without_a_call_is_left_out():
    assert repaired((Message("tool", (A,)), USER, Message("tool", (B,)))) == [USER]


def test_ids_that_come_again_in_a_later_step_are_replaced_and_answered_each():
    again = ToolResultPart("a", "f", "again")
    history = (CALLS, Message("tool", (A, B)), CALLS, Message("tool", (again, B)))
    first, told, second, told_again = repaired(history)
    assert (first, told) == (CALLS, Message("tool", (A, B)))
    ids = [call.id for call in second.tool_calls]
    assert len({"a", "b", *ids}) == 4
    assert all(len(made) == 9 and made.isalnum() for made in ids)
    assert [(part.call_id, part.content) for part in told_again.content] == [(ids[0], "again"), (ids[1], "2")]
    assert repaired((*history, USER))[:4] == [first, told, second, told_again]


def test_media_are_named_where_only_text_can_go():
    parts = (
        TextPart("see"),
        ImagePart(url="https://x/y.png"),
        FilePart(data=b"123", media_type="application/pdf", name="a.pdf"),
    )
    assert (
        as_text(parts) == "see\n[image, https://x/y.png]\n[file, a.pdf, application/pdf, 3 bytes, not shown]"
    )
    assert as_text("plain") == "plain"
