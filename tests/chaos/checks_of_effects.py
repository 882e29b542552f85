"""What is promised of tools: how often they run, under which key, and what becomes of it."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from atto.protocol.events import ToolCompleted
from tests.chaos.case import Case, Check
from tests.chaos.messages import results_of
from tests.chaos.records import Effect
from tests.chaos.turns import AT_MOST_ONCE, READ_ONLY

SLOW = {"stop", "block", "stall", "cut", "cut_at_ack", "cut_at_commit", "deafen", "broker_kill", "node_pause"}
"""Faults through which a worker goes on, late, with what a successor does meanwhile."""
LATE = 10.0
"""Seconds for which what such a fault began may last."""


def at_most_once(case: Case) -> Iterator[str]:
    """A tool that must not run twice does not, whatever becomes of the workers that run it."""
    counts = Counter(
        (effect.run, effect.step, _slot(effect))
        for effect in case.history.effects
        if effect.tool in AT_MOST_ONCE
    )
    for (run, step, slot), count in counts.items():
        if count > 1:
            yield f"call {slot} of step {step} of run {run} took effect {count} times"


def same_key_same_effect(case: Case) -> Iterator[str]:
    """All executions of a call have one key, and no other call has it."""
    keys: dict[tuple[str, int, str, str], set[str]] = defaultdict(set)
    calls: dict[str, set[tuple[str, int, str, str]]] = defaultdict(set)
    for effect in case.history.effects:
        call = (effect.run, effect.step, effect.call, effect.nonce)
        keys[call].add(effect.key)
        calls[effect.key].add(call)
    yield from (f"call {call} has the keys {sorted(found)}" for call, found in keys.items() if len(found) > 1)
    yield from (
        f"key {key} is of the calls {sorted(found)}" for key, found in calls.items() if len(found) > 1
    )


def effect_is_not_repeated_anew(case: Case) -> Iterator[str]:
    """A call that took effect is gone on with, under its key: the model is not asked for another one.

    Tools that only read say that they may be asked for anew.
    """
    nonces: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for effect in case.history.effects:
        if effect.tool not in READ_ONLY and not _is_late(case, effect):
            nonces[effect.run, effect.step, _slot(effect)].add(effect.nonce)
    for (run, step, slot), found in nonces.items():
        if len(found) > 1:
            yield f"call {slot} of step {step} of run {run} took effect as {sorted(found)}"


def committed_call_had_effect(case: Case) -> Iterator[str]:
    """Every committed call that did not end in an error took effect."""
    executed = {(effect.step, effect.call, effect.nonce) for effect in case.history.effects}
    for committed in case.committed:
        errors = {result.call_id for result in results_of(committed.messages) if result.is_error}
        models = [message for message in committed.messages if message.role == "assistant"]
        for step, model in enumerate(models, 1):
            for call in model.tool_calls:
                if call.id in errors or (step, call.id, call.arguments.get("nonce")) in executed:
                    continue
                yield f"{committed.label}: call {call.id} of step {step} is committed and had no effect"


def completed_call_stays(case: Case) -> Iterator[str]:
    """A call whose result was heard is not executed again."""
    runs = {turn.label: turn.run for turn in case.history.turns.values()}
    heard: dict[tuple[str, str], float] = {}
    for listener in case.history.listeners.values():
        for t, event in listener.heard:
            if isinstance(event, ToolCompleted):
                key = (runs[listener.label], event.call_id)
                heard[key] = min(t, heard.get(key, t))
    for effect in case.history.effects:
        known = heard.get((effect.run, effect.call))
        if known is not None and known < effect.t and not _is_late(case, effect):
            late = effect.t - known
            yield f"call {effect.call} of run {effect.run} was executed {late:.1f} s after its result"


def one_at_a_time(case: Case) -> Iterator[str]:
    """The turns of a session run one after another: no effect of one falls into an effect of another."""
    latest: Effect | None = None
    for effect in sorted(case.history.effects, key=lambda effect: effect.t):
        if (
            latest is not None
            and effect.run != latest.run
            and effect.t < latest.until
            and not (_is_late(case, effect) or _is_late(case, latest))
        ):
            yield f"run {effect.run} took effect in the middle of an effect of run {latest.run}"
        if latest is None or effect.until > latest.until:
            latest = effect


def state_follows_tools(case: Case) -> Iterator[str]:
    """The count that each committed call of `count` returned is one more than that before it."""
    count, last = 0, None
    for committed in case.committed:
        for result in results_of(committed.messages):
            if result.name == "count" and not result.is_error:
                count += 1
                last = result.call_id
                if result.content != f"{last} {count}":
                    yield f"{committed.label}: the count {count} is told as {result.content!r}"
    expected = {} if last is None else {"count": count, "last": last}
    if case.history.stored is not None and case.history.stored.state != expected:
        yield f"the state is {case.history.stored.state}, the tools' results make it {expected}"


def _slot(effect: Effect) -> int:
    """The place of the call among those of its step."""
    return int(effect.nonce.rpartition(".")[2])


def _is_late(case: Case, effect: Effect) -> bool:
    """Whether its worker may have been taken for dead, and not have known it yet."""
    return any(
        (fault.name in SLOW or fault.name.startswith("pause_")) and fault.pid in (0, effect.pid)
        for fault in case.faults(effect.t - LATE, effect.until)
    )


CHECKS: tuple[Check, ...] = (
    at_most_once,
    same_key_same_effect,
    effect_is_not_repeated_anew,
    committed_call_had_effect,
    completed_call_stays,
    one_at_a_time,
    state_follows_tools,
)
