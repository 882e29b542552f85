import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.protocol.errors import InvalidRunId, InvalidSessionId
from atto.protocol.ids import decode_run, decode_session
from atto.protocol.subjects import StoredTurn, Subjects
from tests.protocol.strategies import ids

namespaces = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)


def matches(pattern: str, subject: str) -> bool:
    """NATS: `*` stands for one token."""
    wanted, given_ = pattern.split("."), subject.split(".")
    return len(wanted) == len(given_) and all(a in ("*", b) for a, b in zip(wanted, given_, strict=True))


@given(namespaces, ids(), ids())
def test_every_subject_is_matched_by_its_stream_and_by_no_other(namespace, session, run):
    subjects = Subjects(namespace)
    made = {
        subjects.turns: subjects.turn(session),
        subjects.answers: subjects.answer(session),
        subjects.events: subjects.event(session, run),
        subjects.cancels: subjects.cancel(session, run),
        subjects.dead_letters: subjects.dead(session),
        subjects.snapshots: subjects.snapshot(session),
    }
    for pattern, subject in made.items():
        assert [other for other in made if matches(other, subject)] == [pattern]


@given(namespaces, ids(), st.integers(0, 1023))
def test_a_stored_turn_tells_its_partition_and_session(namespace, session, partition):
    subjects = Subjects(namespace)
    token = subjects.turn(session).rpartition(".")[2]
    for kind in ("turn", "answer"):
        stored = f"{namespace}.{kind}.{partition}.{token}"
        assert sum(matches(pattern, stored) for pattern in subjects.partition(partition)) == 1
        assert subjects.stored_turn(stored) == StoredTurn(partition, token, is_answer=kind == "answer")
        assert decode_session(subjects.stored_turn(stored).token) == session


@pytest.mark.parametrize("token", ["*", ">"])
def test_a_turn_that_the_server_could_not_place_has_no_partition(token):
    assert Subjects("ns").stored_turn(f"ns.turn.{token}") == StoredTurn(None, token)


@given(namespaces, ids(), ids())
def test_a_cancellation_tells_its_session_and_run(namespace, session, run):
    subjects = Subjects(namespace)
    session_token, run_token = subjects.cancelled(subjects.cancel(session, run))
    assert decode_session(session_token) == session
    assert decode_run(run_token) == run


@given(namespaces, namespaces, ids(), ids())
def test_namespaces_share_nothing(one, other, session, run):
    if one == other:
        return
    left, right = Subjects(one), Subjects(other)
    assert left.turn(session) != right.turn(session)
    assert not matches(left.events, right.event(session, run))
    assert left.turns_stream != right.turns_stream
    assert left.sessions_bucket != right.sessions_bucket


@pytest.mark.parametrize("namespace", ["", "a.b", "*", ">", "a b", "é", "x" * 33, "ns\n", "ns\x00"])
def test_a_namespace_that_is_no_token_is_refused(namespace):
    with pytest.raises(ValueError, match="namespace"):
        Subjects(namespace)


@given(st.text(st.characters(), max_size=200))
def test_no_text_escapes_from_its_place_in_a_subject(text):
    subjects = Subjects("ns")
    assert matches("ns.dead.*", subjects.dead(text))
    assert "*" not in subjects.dead(text)
    for make, refused in ((subjects.turn, InvalidSessionId), (subjects.snapshot, InvalidSessionId)):
        try:
            subject = make(text)
        except refused:
            continue
        assert subject.count(".") == 2
    try:
        subject = subjects.event("session", text)
    except InvalidRunId:
        return
    assert matches(subjects.events, subject)


def test_the_destination_of_the_servers_transform_is_spelled_for_nats():
    subjects = Subjects("ns")
    assert subjects.submitted == "ns.*.*"
    assert subjects.partitioned(64) == "ns.{{wildcard(1)}}.{{partition(64,2)}}.{{wildcard(2)}}"
