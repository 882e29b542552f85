"""What a tool may know about the call that it serves."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from atto.agents.state import State


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Given to a tool in the parameter that it annotates `ToolContext`; models never see that parameter.

    `step`: the model call of the run that asked for this one, from 1. `metadata`: the labels that the caller
    gave the turn. `headers`: those of the message that the turn came with, as `traceparent`.
    `state`: the session's state, to read and to write;
    what the call changed is kept if it succeeds, and committed with the turn.
    `path`: where in the run the agent is; empty for the one that answers the turn.
    """

    session: str
    run_id: str
    step: int
    call_id: str
    metadata: Mapping[str, str]
    state: State
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def idempotency_key(self) -> str:
        """The same for every execution of this call, and of no other in any session: 32 characters of
        hexadecimal, a hash of session, run, the calls that led here, step and call id (some providers number
        the calls of each step anew). A tool's effects happen at least once: hand this key to whatever
        recognises a repetition.
        """
        call = json.dumps([self.session, self.run_id, self.path, self.step, self.call_id])
        return hashlib.sha256(call.encode()).hexdigest()[:32]
