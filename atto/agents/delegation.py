"""Agents as tools of other agents."""

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from atto.agents.tool import Tool
from atto.protocol.errors import ToolFailed
from atto.protocol.paths import MAX_SEGMENTS

if TYPE_CHECKING:
    from atto.agents.agent import Agent

MAX_DELEGATION = MAX_SEGMENTS
"""Levels of delegation: a path has no more segments."""


class AgentTool(Tool[[str], Any]):
    """An agent that another one may ask. Made by `Agent.as_tool`; it runs inside the run that asks."""

    def __init__(
        self,
        agent: "Agent",
        *,
        name: str | None,
        description: str | None,
        timeout: float | None,
        parallel: bool,
    ) -> None:
        async def ask(
            input: Annotated[str, Meta(description="What to do, with all that it needs")],  # noqa: A002, ARG001
        ) -> str:
            raise ToolFailed(f"agent {agent.name!r} can be asked by a run only")

        super().__init__(
            ask,
            name=agent.name if name is None else name,
            description=(agent.description or f"Asks the agent {agent.name}.")
            if description is None
            else description,
            schema=None,
            timeout=timeout,
            parallel=parallel,
            at_most_once=False,
            read_only=False,
        )
        self.agent = agent

    def question(self, arguments: dict[str, Any]) -> str:
        """What the agent is asked. Raises `ToolArgumentsInvalid`."""
        return str(self._parameters.bind(arguments)["input"])


def delegation_depth(tools: "tuple[Tool[..., Any], ...]") -> int:
    """How many levels of agents there are below an agent with these tools."""
    return max((1 + tool.agent.delegation_depth for tool in tools if isinstance(tool, AgentTool)), default=0)
