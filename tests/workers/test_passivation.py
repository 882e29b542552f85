"""Idle sessions stay in memory for a while, within a bound, and only while the partition is ours."""

from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot
from atto_workers.delivery import Claim, ClaimState
from atto_workers.passivation import IdleSessions, Resident


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
