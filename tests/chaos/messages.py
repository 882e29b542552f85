"""What the messages of a turn are made of, as far as the checker compares them."""

from collections.abc import Container, Iterable, Iterator

from atto.protocol.messages import Message, ToolResultPart
from tests.chaos.turns import AT_MOST_ONCE


def shape(message: Message) -> tuple[str, ...]:
    """Its role, and the names of the tools that it calls, or that it has results of."""
    if message.role == "tool":
        return ("tool", *(part.name for part in message.content if isinstance(part, ToolResultPart)))
    return (message.role, *(call.name for call in message.tool_calls))


def results_of(messages: Iterable[Message]) -> list[ToolResultPart]:
    """All results, in their order."""
    parts = [part for message in messages for part in message.content]
    return [part for part in parts if isinstance(part, ToolResultPart)]


def unmatched_results(
    messages: list[Message], raised: Container[str], *, is_whole: bool = True
) -> Iterator[str]:
    """What is wrong with the results: each call has one, its own, in the order of the calls.

    Errors are those of calls that `raised`, of such as must not run twice and were interrupted, and, unless
    it `is_whole`, of those that the end of the run interrupted.
    """
    calls = [call.id for message in messages for call in message.tool_calls]
    results = results_of(messages)
    if calls != [result.call_id for result in results]:
        yield f"the calls are {calls}, the results {[result.call_id for result in results]}"
    for result in results:
        if result.is_error and (not is_whole or result.call_id in raised or result.name in AT_MOST_ONCE):
            continue
        if result.is_error or not str(result.content).startswith(result.call_id):
            yield f"the result of {result.call_id} is {result.content!r}"
