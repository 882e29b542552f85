"""What a run may have done outside its session, by what its agent's tools say of themselves."""

from atto.agents import Agent, AgentTool
from atto.protocol.paths import of_call
from atto_workers.run.journal import Progress


def has_effects(agent: Agent) -> bool:
    """Whether any tool of the agent, or of those that it may ask, may change something outside."""
    for spec in agent.specs:
        tool = agent.tool(spec.name)
        if has_effects(tool.agent) if isinstance(tool, AgentTool) else not (tool is None or tool.read_only):
            return True
    return False


def has_acted(agent: Agent, progress: Progress, path: str = "") -> bool:
    """Whether such a tool may have run already, of the agent at `path`. One that it has no more counts."""
    for step, done in enumerate(progress.steps, 1):
        for call in done.model.message.tool_calls:
            below = of_call(path, step, call.id)
            asked = progress.child(below)
            has_begun = asked is not None or call.id in done.started or call.id in done.results
            if has_begun and _may_have_acted(agent, call.name, asked, below):
                return True
    return False


def _may_have_acted(agent: Agent, name: str, asked: Progress | None, path: str) -> bool:
    tool = agent.tool(name)
    if isinstance(tool, AgentTool):
        return asked is not None and has_acted(tool.agent, asked, path)
    return tool is None or not tool.read_only
