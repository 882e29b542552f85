"""What authors use: agents, tools, and the session state that tools work on."""

from atto.agents.agent import Agent
from atto.agents.context import ToolContext
from atto.agents.delegation import AgentTool
from atto.agents.state import State
from atto.agents.tool import Tool, tool
from atto.protocol.errors import ToolError

__all__ = ["Agent", "AgentTool", "State", "Tool", "ToolContext", "ToolError", "tool"]
