"""Idle sessions stay in memory for a while, within a bound, and only while the partition is ours."""

from atto.protocol.messages import Message, Origin, ToolCallPart, ToolResultPart
from atto.protocol.sessions import Commit, Snapshot
from atto_workers.delivery import Claim, ClaimState
from atto_workers.passivation import PACK_AFTER, PACKED_AT_MOST, IdleSessions, Resident


def claimed() -> Claim:
    return Claim(0, "p0-worker-nonce", 0)


def resident(claim: Claim, size: int = 100) -> Resident:
    found = Resident(claim)
    found.snapshot = Snapshot(session="s").after(Commit(run_id="r", messages=(Message.user("x" * size),)))
    return found


def test_a_session_is_there_until_it_has_been_idle_for_too_long():
    now = 0.0
    idle, claim = IdleSessions(idle_limit=10, clock=lambda: now), claimed()
    idle.put("a", resident(claim))
    now = 5.0
    idle.put("b", resident(claim))
    idle.sweep()
    assert len(idle) == 2
    now = 10.0
    idle.sweep()
    assert len(idle) == 1
    assert idle.take("a", claim).snapshot is None
    assert idle.take("b", claim).snapshot is not None
    assert len(idle) == 0


def test_the_least_recently_used_go_first_when_memory_ends():
    idle, claim = IdleSessions(memory_limit=2500), claimed()
    for token in "abc":
        idle.put(token, resident(claim, 1000))
    assert len(idle) == 2
    again = idle.take("b", claim)
    idle.put("b", again)
    idle.put("d", resident(claim, 1000))
    assert idle.take("c", claim).snapshot is None
    assert idle.take("b", claim).snapshot is not None


def test_a_session_is_weighed_once_however_often_it_comes_and_goes():
    idle, claim = IdleSessions(), claimed()
    kept = resident(claim, 1000)
    sizes = set()
    for _ in range(5):
        idle.put("a", kept)
        kept = idle.take("a", claim)
        sizes.add(kept.size)
    assert len(sizes) == 1
    kept.snapshot = kept.snapshot.after(Commit(run_id="r2", messages=(Message.user("y" * 1000),)))
    idle.put("a", kept)
    assert 2000 < kept.size < 2200


def test_a_partition_that_is_lost_takes_its_sessions_along():
    idle, lost, kept = IdleSessions(), claimed(), claimed()
    idle.put("a", resident(lost))
    idle.put("b", resident(kept))
    idle.drop(lost)
    assert idle.take("a", lost).snapshot is None
    assert idle.take("b", kept).snapshot is not None
    lost.state = ClaimState.LOST
    idle.put("a", resident(lost))
    assert len(idle) == 0


def test_a_claim_does_not_see_what_an_earlier_one_kept():
    idle, earlier, later = IdleSessions(), claimed(), claimed()
    idle.put("a", resident(earlier))
    assert idle.take("a", later).snapshot is None


def test_what_has_been_idle_for_a_while_is_packed_and_comes_back_whole():
    now = 0.0
    idle, claim = IdleSessions(clock=lambda: now), claimed()
    call = ToolCallPart("c1", "f", {"x": [1, {"y": "é"}]}, native={"sig": "s"})
    messages = (
        Message("assistant", (call,), Origin("p", "m")),
        Message("tool", (ToolResultPart("c1", "f", "r"),)),
    )
    base = Snapshot(session="s", state={"n": 1}).after(Commit(run_id="r1", messages=messages), token=object())
    kept = Resident(claim)
    kept.snapshot = base
    idle.put("a", kept)
    now = PACK_AFTER - 1
    idle.put("b", resident(claim))
    assert idle.pack() is False
    assert kept.snapshot is base
    now = PACK_AFTER
    assert idle.pack() is False  # nothing more is due
    assert kept.snapshot.messages == ()
    size = kept.size
    again = idle.take("a", claim)
    assert again.snapshot == base
    assert again.snapshot.token is base.token
    assert again.weigh() == size
    idle.put("a", again)
    assert idle.take("b", claim).snapshot.messages != ()


def test_packing_is_done_in_bounded_portions_and_leaves_out_long_histories():
    now = 0.0
    idle, claim = IdleSessions(clock=lambda: now), claimed()
    long = resident(claim, PACKED_AT_MOST + 1)
    idle.put("long", long)
    for number in range(50):
        idle.put(str(number), resident(claim))
    now = PACK_AFTER
    portions = [idle.pack(), idle.pack(), idle.pack()]
    assert portions == [True, True, False]
    assert long.snapshot.messages != ()
    assert all(idle.take(str(number), claim).snapshot.messages for number in range(50))


def test_a_packed_session_can_be_dropped():
    now = 0.0
    idle, claim = IdleSessions(idle_limit=PACK_AFTER + 1, clock=lambda: now), claimed()
    idle.put("a", resident(claim))
    now = PACK_AFTER
    idle.pack()
    now = PACK_AFTER + 1
    idle.sweep()
    assert len(idle) == 0
    assert idle.take("a", claim).snapshot is None
