"""What a tool may know about the call that it serves."""

from collections.abc import Mapping
from dataclasses import dataclass

from atto.agents.state import State


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Given to a tool in the parameter that it annotates `ToolContext`; models never see that parameter.

    `metadata`: the labels that the caller gave the turn. `state`: the session's state, to read and to write;
    what the call changed is kept if it succeeds, and committed with the turn.
    """

    session: str
    run_id: str
    call_id: str
    metadata: Mapping[str, str]
    state: State

    @property
    def idempotency_key(self) -> str:
        """The same for every execution of this call. A tool's effects happen at least once: hand this key
        to whatever can recognise a repetition.
        """
        return f"{self.run_id}:{self.call_id}"
