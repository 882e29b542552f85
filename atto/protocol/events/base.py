"""What events have in common."""

from msgspec import Struct


# `gc=False`: JSON has no cycles, so the collector, which took a fifth of a busy worker's CPU (measured), need
# not look at what is made of it.
class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="type"):
    """What all events share.

    Attributes:
        seq: The event's number within the run.
        path: Who speaks; empty for the run's own agent.

    """

    seq: int
    path: str = ""


class Delta(Event, frozen=True, kw_only=True):
    """A piece of what a model says in a step.

    Attributes:
        step: One model call and the tool calls that it asks for, from 1, within the path.
        text: The piece.

    """

    step: int
    text: str


class RecordEvent(Event, frozen=True, kw_only=True):
    """What all records share.

    Attributes:
        first: The numbers from here to the record's own, exclusive, are deltas. 0: there are none.

    """

    first: int = 0
