"""Fields of one's own for a request's body, and those that are not free for it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from atto.models.failures import Failures
from atto.protocol.errors import InvalidAgent

CONVERSATION = frozenset(
    {
        "model",
        "messages",
        "input",
        "contents",
        "system",
        "instructions",
        "systemInstruction",
        "system_instruction",
        "previous_response_id",
        "conversation",
        "prompt",
    }
)
"""What the agent and the session say: an option of that name would replace it, for every session alike."""

_ONE_ANSWER = frozenset({"n", "candidateCount", "candidate_count", "best_of"})


def own_options(adapter: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of an adapter. Raises `InvalidAgent` for one that cannot go into a body."""
    given = dict(options or {})
    if wrong := _wrong(given):
        raise InvalidAgent(f"{adapter}: {wrong}")
    return given


def checked(failures: Failures, options: Mapping[str, Any]) -> None:
    """Raises `ModelError` for an option of a request's that cannot go into a body."""
    if options and (wrong := _wrong(options)):
        raise failures.refused(wrong)


def checked_tools(failures: Failures, tools: Any) -> None:
    """Raises `ModelError` where two tools of a body have one name: providers refuse them all."""
    seen: set[str] = set()
    for name in _names(tools):
        if name in seen:
            raise failures.refused(f"two tools are named {name!r}: one of the agent's, and one in `options`")
        seen.add(name)


def _wrong(options: Mapping[str, Any]) -> str | None:
    for name, value in options.items():
        if name in CONVERSATION:
            return f"the option {name!r} would replace what the agent says: {_INSTEAD.get(name, _HISTORY)}"
        if name in _ONE_ANSWER and value not in {None, 1}:
            return f"the option {name!r} is {value!r}: one answer is read, the others would be lost"
        if name == "background" and value:
            return f"the option {name!r} is {value!r}: the answer would not be streamed"
        if name == "generationConfig" and isinstance(value, dict):
            within = _wrong(cast("dict[str, Any]", value))
            if within:
                return within
    return None


def with_tools(built: Any, given: Any) -> Any:
    """The agent's tools and those of the options, which the provider runs or declares itself. None takes all
    away.
    """
    if given is None or not isinstance(built, list):
        return given
    if not isinstance(given, list | tuple):
        return [*cast("list[Any]", built), given]
    return [*cast("list[Any]", built), *cast("Iterable[Any]", given)]


_HISTORY = "the conversation is the session's history"
_INSTEAD = {
    "model": "give the model its name where it is made",
    "system": "use Agent(instruction=…)",
    "instructions": "use Agent(instruction=…)",
    "systemInstruction": "use Agent(instruction=…)",
    "system_instruction": "use Agent(instruction=…)",
}


def _names(tools: Any) -> Iterator[str]:
    """The names of the functions that a body declares, in any of the APIs."""
    if not isinstance(tools, list):
        return
    for tool in cast("list[Any]", tools):
        if not isinstance(tool, dict):
            continue
        fields = cast("dict[str, Any]", tool)
        function: Any = fields.get("function")
        if isinstance(function, dict):
            fields = cast("dict[str, Any]", function)
        if isinstance(fields.get("name"), str):
            yield fields["name"]
        yield from _names(fields.get("functionDeclarations"))
