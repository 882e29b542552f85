"""The judge: the promises by their names, and which of them a session breaks."""

from collections.abc import Callable

from msgspec import Struct

from tests.chaos import checks_of_effects, checks_of_listeners, checks_of_turns
from tests.chaos.case import Case, Check

CHECKS: tuple[Check, ...] = (*checks_of_turns.CHECKS, *checks_of_effects.CHECKS, *checks_of_listeners.CHECKS)

WORKER_SURVIVES = "worker-survives"
WORKER_LEAVES = "worker-leaves"


class Violation(Struct, frozen=True):
    """`promise`: a key of `PROMISES`. `session`: empty where it was a process that broke it."""

    promise: str
    detail: str
    session: str = ""


def name_of(judge: Callable[..., object]) -> str:
    """The promise that a check is named after."""
    return judge.__name__.replace("_", "-")


PROMISES: dict[str, str] = {
    **{name_of(judge): (judge.__doc__ or "").partition("\n\n")[0] for judge in CHECKS},
    WORKER_SURVIVES: "Nothing that turns, tools, models or producers do ends a process.",
    WORKER_LEAVES: "A worker that is told to stop ends within its grace and a few seconds.",
}


def check(case: Case) -> list[Violation]:
    """All that is wrong with a session."""
    return [
        Violation(name_of(judge), detail, case.history.session) for judge in CHECKS for detail in judge(case)
    ]
