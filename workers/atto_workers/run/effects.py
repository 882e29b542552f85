"""What a run may have done outside its session, by what its agent's tools say of themselves."""

from atto.agents import Agent, AgentTool
from atto_workers.run.journal import Progress


def has_effects(agent: Agent) -> bool:
    """Whether any tool of the agent, or of those that it may ask, may change something outside."""
    for spec in agent.specs:
        tool = agent.tool(spec.name)
        if has_effects(tool.agent) if isinstance(tool, AgentTool) else not (tool is None or tool.read_only):
            return True
    return False


def has_acted(agent: Agent, progress: Progress) -> bool:
    """Whether such a tool may have run already. One that the agent has no more counts."""
    return any(
        _may_have_acted(agent, call.name, done.asked.get(call.id))
        for done in progress.steps
        for call in done.model.message.tool_calls
        if call.id in done.started | done.results.keys() | done.asked.keys()
    )


def _may_have_acted(agent: Agent, name: str, asked: Progress | None) -> bool:
    tool = agent.tool(name)
    if isinstance(tool, AgentTool):
        return asked is not None and has_acted(tool.agent, asked)
    return tool is None or not tool.read_only
