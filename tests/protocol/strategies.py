"""Hypothesis strategies for everything that travels. Each value survives a round trip through JSON."""

from datetime import UTC, timedelta, timezone

from hypothesis import strategies as st

from atto.protocol import events as e
from atto.protocol.messages import (
    AnyPart,
    FilePart,
    ImagePart,
    InputPart,
    Message,
    Origin,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from atto.protocol.sessions import RunRecord, SnapshotPage
from atto.protocol.turns import Answer, Cancel, Resume, Turn
from atto.protocol.waits import Wait, WaitingCall

texts = st.text(max_size=20)
words = st.text(min_size=1, max_size=20)
counts = st.integers(0, 2**53)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(timezones=st.just(UTC) | offsets)


def ids(max_bytes: int = 128) -> st.SearchStrategy[str]:
    """Every valid session id and run id, the awkward ones first."""
    awkward = st.sampled_from(
        ["*", ">", "a.b", "=", "=41", "-", "a b", "\x00", "\r\n", "ann@example.com", "é", "🤖"]
    )
    any_text = st.text(min_size=1, max_size=max_bytes).filter(lambda text: len(text.encode()) <= max_bytes)
    plain = st.from_regex(rf"[A-Za-z0-9_-]{{1,{max_bytes}}}", fullmatch=True)
    return awkward | plain | any_text


natives = st.none() | json_values
_urls = {"url": texts, "data": st.none(), "media_type": st.none() | texts}
_inline = {"url": st.none(), "data": st.binary(max_size=20), "media_type": texts}
text_parts = st.builds(TextPart, texts, native=natives)
images = st.builds(ImagePart, **_urls, native=natives) | st.builds(ImagePart, **_inline, native=natives)
_names = st.none() | texts
files = st.builds(FilePart, **_urls, name=_names, native=natives) | st.builds(
    FilePart, **_inline, name=_names, native=natives
)
input_parts: st.SearchStrategy[InputPart] = text_parts | images | files
contents = texts | st.lists(input_parts, max_size=3).map(tuple)
tool_calls = st.builds(ToolCallPart, words, words, json_objects, malformed=st.none() | texts, native=natives)
tool_results = st.builds(ToolResultPart, words, words, contents, st.booleans(), native=natives)
reasonings = st.builds(ReasoningPart, texts, native=natives)
parts: st.SearchStrategy[AnyPart] = input_parts | reasonings | tool_calls | tool_results
origins = st.builds(Origin, words, words, texts)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
roles = st.sampled_from(["user", "assistant", "tool"])
messages = st.builds(Message, roles, st.lists(parts, max_size=4).map(tuple), st.none() | origins)

answers = st.one_of(
    st.builds(Answer, approve=st.just(True), arguments=st.none() | json_objects),
    st.builds(Answer, approve=st.just(False), say=texts),
    st.builds(Answer, value=json_values),
    st.builds(Answer, error=texts),
    st.builds(Answer, cancel=texts),
    st.just(Answer(expired=True)),
)
_turn = {
    "run_id": st.none() | ids(),
    "expires": st.none() | times,
    "metadata": st.dictionaries(texts, texts, max_size=3),
}
turns = st.builds(
    Turn,
    input=words | st.lists(input_parts, min_size=1, max_size=3).map(tuple),
    agent=texts,
    on_busy=st.sampled_from(("enqueue", "reject", "interrupt", "steer")),
    **_turn,
) | st.builds(
    Turn,
    resume=st.builds(Resume, run_id=ids(), answers=st.dictionaries(words, answers, min_size=1, max_size=3)),
    **_turn,
)
cancels = st.builds(Cancel, reason=texts)
snapshot_pages = st.builds(
    SnapshotPage,
    version=counts,
    messages=st.lists(messages, max_size=3).map(tuple),
    state=json_objects,
    runs=st.lists(
        st.builds(
            RunRecord,
            run_id=ids(),
            version=counts,
            begin=counts,
            end=counts,
            ended=st.sampled_from(("completed", "suspended", "cancelled", "failed")),
            code=texts,
            reason=texts,
            absorbed=st.lists(ids(), max_size=2).map(tuple),
            root=texts,
        ),
        max_size=3,
    ).map(tuple),
    last=st.booleans(),
    error=texts,
)

seqs = st.integers(1, 2**53)
steps = st.integers(1, 1000)
changes = st.builds(e.StateChange, set=json_objects, unset=st.lists(texts, max_size=3).map(tuple))
paths = st.sampled_from(["", "writer", "2:call_7", "plan/1:call_1"])
firsts = st.integers(0, 2**53)
_said = {"seq": seqs, "path": paths}
_recorded = {**_said, "first": firsts}
waits = st.builds(
    Wait,
    id=words,
    kind=st.sampled_from(("approval", "question", "tool", "timer")),
    path=paths,
    ask=texts,
    call=st.none() | st.builds(WaitingCall, words, words, json_objects),
    schema=st.none() | json_objects,
    until=st.none() | times,
)
deltas = st.builds(e.TextDelta, **_said, step=steps, text=texts)
terminal_events: st.SearchStrategy[e.TerminalEvent] = st.one_of(
    st.builds(
        e.RunCompleted,
        **_recorded,
        time=times,
        message=messages,
        version=counts,
        usage=usages,
        output=json_values,
        agent=texts,
    ),
    st.builds(
        e.RunFailed,
        **_recorded,
        time=times,
        code=words,
        message=texts,
        retryable=st.booleans(),
        version=counts,
        waits=st.lists(words, max_size=2).map(tuple),
    ),
    st.builds(e.RunCancelled, **_recorded, time=times, reason=texts, version=counts),
    st.builds(
        e.RunSuspended,
        **_recorded,
        time=times,
        version=counts,
        root=words,
        waits=st.lists(waits, max_size=2).map(tuple),
    ),
    st.builds(e.RunAbsorbed, **_recorded, time=times, into=words),
)
events: st.SearchStrategy[e.AnyEvent] = st.one_of(
    st.builds(
        e.RunStarted, **_recorded, time=times, agent=words, attempt=counts, app=texts, root=texts, trace=texts
    ),
    st.builds(e.InputTaken, **_recorded, step=steps, content=contents, run_id=texts),
    deltas,
    st.builds(e.ReasoningDelta, **_said, step=steps, text=texts),
    st.builds(e.ModelCompleted, **_recorded, step=steps, message=messages, usage=usages, finish=texts),
    st.builds(
        e.ToolStarted,
        **_recorded,
        step=steps,
        call_id=words,
        name=words,
        arguments=json_objects,
        malformed=st.none() | texts,
    ),
    st.builds(
        e.ToolCompleted,
        **_recorded,
        step=steps,
        call_id=words,
        name=words,
        content=contents,
        is_error=st.booleans(),
        change=changes,
    ),
    st.builds(e.StepRestarted, **_recorded, step=steps, reason=texts),
    st.builds(e.StepCompleted, **_recorded, name=words, value=json_values),
    st.builds(e.AgentStarted, **_recorded, agent=words, speaks=st.booleans()),
    st.builds(e.AgentCompleted, **_recorded, message=messages, usage=usages, change=changes),
    st.builds(e.HandedOff, **_recorded, source=words, target=words),
    st.builds(e.WaitStarted, **_recorded, wait=waits),
    st.builds(e.WaitCompleted, **_recorded, id=words, answer=answers, run_id=texts),
    st.builds(
        e.HistoryCompacted,
        **_recorded,
        step=steps,
        upto=counts,
        cleared=counts,
        summary=texts,
        before=counts,
        after=counts,
        usage=usages,
    ),
    st.builds(e.Custom, **_recorded, data=json_values),
    st.builds(e.RunInterrupted, **_recorded, reason=texts),
    terminal_events,
)
"""Of every type that this release writes."""

batches = st.builds(e.EventBatch, attempt=counts, since=seqs, events=st.lists(events, max_size=4).map(tuple))
