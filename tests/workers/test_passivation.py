"""Idle sessions stay in memory for a while, within a bound, and only while the partition is ours."""

import os
import platform
import secrets
import sys
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.protocol.messages import Message, Origin, ToolCallPart, ToolResultPart
from atto.protocol.sessions import Commit, Snapshot
from atto_workers import heap
from atto_workers.delivery import Claim, ClaimState
from atto_workers.ownership import Tenure
from atto_workers.passivation import PACK_AFTER, PACKED_AT_MOST, UNPACKED_LIMIT, IdleSessions, Resident


def claimed() -> Claim:
    return Claim(0, Tenure("p0-worker-nonce", "turns-of-p0-worker-nonce", epoch=2), 0)


def resident(claim: Claim, size: int = 100) -> Resident:
    found = Resident(claim)
    found.snapshot = Snapshot(session="s").after(Commit(run_id="r", messages=(Message.user("x" * size),)))
    return found


def is_packed(session: Resident) -> bool:
    """What is said in these tests gets smaller by it."""
    return session.held < session.size


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
    call = ToolCallPart("c1", "f", {"x": [1, {"y": "é" * 500}]}, native={"sig": "s"})
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
    assert is_packed(kept)
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
    kept = [resident(claim, 1000) for _ in range(150)]
    for number, session in enumerate(kept):
        idle.put(str(number), session)
    now = PACK_AFTER
    portions = []
    while idle.pack():
        portions.append(sum(map(is_packed, kept)))
    assert len(portions) >= 2
    assert portions[0] <= 65
    assert all(map(is_packed, kept))
    assert not is_packed(long)
    assert all(idle.take(str(number), claim).snapshot.messages for number in range(150))


def test_what_is_too_much_is_packed_before_its_time_the_least_recently_used_first():
    idle, claim = IdleSessions(clock=lambda: 0.0), claimed()
    size = UNPACKED_LIMIT // 50
    kept = [resident(claim, size) for _ in range(60)]
    for number, session in enumerate(kept):
        idle.put(str(number), session)
    unpacked = [session for session in kept if not is_packed(session)]
    assert unpacked == kept[-49:]  # a message weighs a little more than its text


def test_dropping_is_done_in_bounded_portions():
    now = 0.0
    idle, claim = IdleSessions(idle_limit=10, clock=lambda: now), claimed()
    for number in range(140):
        idle.put(str(number), resident(claim))
    now = 10.0
    assert [(idle.sweep(), len(idle)) for _ in range(3)] == [(True, 90), (True, 40), (False, 0)]


class PackableToken(NamedTuple):
    data: bytes

    def pack(self) -> bytes:
        return self.data

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        return cls(data)


@given(st.binary(), st.text())
def test_a_packed_token_comes_back_whatever_it_is_made_of(data, text):
    kept = Resident(claimed())
    base = Snapshot(session="s", state={text: [text, None, 1.5]}, token=PackableToken(data))
    kept.snapshot = base
    kept.pack()
    assert kept.snapshot is None
    kept.unpack()
    assert kept.snapshot == base


@pytest.mark.skipif(sys.platform != "linux" or not platform.libc_ver()[0], reason="needs glibc")
def test_what_is_free_between_what_is_used_goes_back_to_the_system():
    blocks = [secrets.token_bytes(4_000) for _ in range(20_000)]
    full = resident_bytes()
    del (
        blocks[1::2],
        blocks[1::2],
        blocks[1::2],
        blocks[1::2],
    )  # one in sixteen is left
    heap.trim()
    assert resident_bytes() < full - 40_000_000


def test_the_memory_of_dropped_sessions_is_given_back_portion_by_portion(monkeypatch):
    trimmed: list[int] = []
    now = 0.0
    idle, claim = IdleSessions(idle_limit=60, clock=lambda: now), claimed()
    monkeypatch.setattr(heap, "trim", lambda: trimmed.append(len(idle)))
    for number in range(300):
        session = Resident(claim)
        message = Message.user(secrets.token_hex(50_000))
        session.snapshot = Snapshot(session="s").after(Commit(run_id="r", messages=(message,)))
        idle.put(str(number), session)
    now = 100.0
    while idle.sweep():
        pass
    idle.sweep()
    assert len(trimmed) >= 1
    assert all(left < 300 for left in trimmed)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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
