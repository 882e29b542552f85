"""Workers broken on purpose, each in one way, and the promise that each breaks. A judge that does not name it
proves nothing.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct

from tests.chaos.mutants import commits, control, doors, events, tools

USUAL = (
    *("--workers", "2", "--sessions", "10", "--partitions", "8"),
    *("--interval", "0.5", "--patience", "8", "--grace", "1"),
)
"""A small fleet, so that whatever is done to it hits; what a mutant asks for comes after it, and prevails."""


class Mutant(Struct, frozen=True):
    """`breaks`: breaks this process's workers. `promise`: the one that the judge must name. `seconds` of
    faults show it, with these `arguments` of the command.
    """

    breaks: Callable[[], None]
    promise: str
    seconds: float
    arguments: tuple[str, ...]


def _mutant(
    breaks: Callable[[], None],
    promise: str,
    *more: str,
    faults: Iterable[str] = ("none",),
    acts: Iterable[str] = (),
    seconds: float = 6,
) -> tuple[str, Mutant]:
    chosen = ["--faults", *faults, *(["--acts", *acts] if acts else [])]
    return breaks.__name__, Mutant(breaks, promise, seconds, (*chosen, *USUAL, *more))


MUTANTS: dict[str, Mutant] = dict(
    [
        _mutant(commits.no_cas, "committed-once", faults=["pause_before_save", "stop"], seconds=12),
        _mutant(commits.ack_before_save, "accepted-turn-ends", faults=["fail_before_save"]),
        _mutant(commits.no_run_record, "committed-once", faults=["fail_after_save"]),
        _mutant(commits.end_before_save, "read-after-end", acts=["read"]),
        _mutant(commits.save_taken_for_failed, "completed-is-committed", acts=["talk"]),
        _mutant(commits.stale_snapshots, "read-after-end", acts=["read"]),
        _mutant(events.no_voiding, "deltas-equal-message", faults=["kill", "fail_in_model_stream"]),
        _mutant(events.lost_deltas, "deltas-equal-message", acts=["talk"]),
        _mutant(events.begins_at_one, "heard-is-committed", faults=["fail_before_save"], acts=["work"]),
        _mutant(events.wrong_version, "version-is-place", acts=["talk"]),
        _mutant(events.interruptions_unsaid, "interruptions-do-not-count", "--grace", "0.2", "--workers", "3",
                faults=["term"], acts=["talk_long"], seconds=25),
        _mutant(tools.begun_unsaid, "at-most-once", faults=["fail_after_effect"], acts=["work"], seconds=10),
        _mutant(tools.key_of_the_process, "same-key-same-effect", faults=["fail_after_effect"],
                acts=["work"]),
        _mutant(tools.results_forgotten, "completed-call-stays", faults=["fail_before_save"], acts=["work"]),
        _mutant(tools.changes_forgotten, "state-follows-tools", faults=["fail_before_save"], acts=["work"]),
        _mutant(tools.results_exchanged, "history-is-whole", acts=["work"]),
        _mutant(tools.call_left_out, "committed-call-had-effect", acts=["work"]),
        _mutant(control.newest_first, "session-order", acts=["burst"]),
        _mutant(control.known_taken_for_new, "at-most-once", faults=["broker_kill"],
                acts=["work", "submit_again"]),
        _mutant(control.fence_ignored, "at-most-once", "--workers", "3", faults=["pause_before_append"],
                acts=["work"], seconds=12),
        _mutant(control.acks_not_repeated, "place-comes-back", "--backlog", "1", "--patience", "2",
                faults=["cut_at_ack"], acts=["talk"], seconds=15),
        _mutant(control.two_at_a_time, "one-at-a-time", acts=["burst"]),
        _mutant(control.queue_dropped, "accepted-turn-ends", acts=["burst"]),
        _mutant(control.cancels_unheard, "cancel-ends-run", "--patience", "5", acts=["cancel_long"],
                seconds=12),
        _mutant(control.never_retried, "outcome-has-a-cause", acts=["talk"]),
        _mutant(doors.exceptions_pass, "worker-survives", faults=["raise"], acts=["work"]),
        _mutant(doors.strict_bytes, "accepted-turn-ends", faults=["hostile_bytes"], acts=["talk"]),
        _mutant(control.never_leaves, "worker-leaves", faults=["term"], acts=["talk_long"]),
    ]
)  # fmt: skip
