"""Agents: a model, what it is told, and the tools that it may call."""

import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from atto.agents.delegation import MAX_DELEGATION, AgentTool, delegation_depth
from atto.agents.given_schema import checked
from atto.agents.state import State
from atto.agents.tool import NAME, Tool
from atto.agents.tool import tool as make_tool
from atto.models.base import Model, ToolSpec
from atto.models.named import named
from atto.protocol.errors import InvalidAgent, InvalidTool

Instruction: TypeAlias = str | Callable[[Mapping[str, Any]], str | Awaitable[str]]
Unfinished: TypeAlias = Literal["keep", "discard"]


@dataclass(frozen=True, eq=False)
class Agent:
    """What answers the turns of a session. Nothing of it changes after it was made.

    `model`: an object, or a name such as `openai:gpt-5` (see `atto.models.named`).
    `instruction`: the system prompt, or a function, synchronous or not, that makes it from the session's
    state (read-only). `tools`: by `@tool`, or plain functions, which become tools.
    `fallbacks`: models that are asked in turn where those before cannot answer.
    `max_steps`: how many model calls a run may make. `parallel_tool_calls`: whether the calls of one step
    run side by side, `max_parallel_tools` of them at one time. `output_schema`: a JSON Schema that the
    answer must follow. `temperature`, `max_tokens` (of one model call) and `stop` mean what the provider
    says; `options` go to it as they are.
    `description`: what agents that may ask this one are told of it (see `as_tool`).
    `unfinished`: what a session keeps of a run that was cancelled, or that failed after an effect: "keep":
    what was said and done; "discard": only that it ended so.

    Raises `InvalidAgent`, `InvalidTool`, or `MissingExtra` if a model's package is not installed.
    """

    name: str
    model: Model
    instruction: Instruction = ""
    tools: Sequence[Callable[..., Any]] = ()
    fallbacks: Sequence[Model] = field(default=(), kw_only=True)
    temperature: float | None = field(default=None, kw_only=True)
    max_tokens: int | None = field(default=None, kw_only=True)
    stop: Sequence[str] = field(default=(), kw_only=True)
    max_steps: int = field(default=10, kw_only=True)
    parallel_tool_calls: bool = field(default=True, kw_only=True)
    max_parallel_tools: int = field(default=16, kw_only=True)
    output_schema: Mapping[str, Any] | None = field(default=None, kw_only=True)
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], kw_only=True)
    description: str = field(default="", kw_only=True)
    unfinished: Unfinished = field(default="keep", kw_only=True)
    specs: tuple[ToolSpec, ...] = field(init=False, repr=False)
    delegation_depth: int = field(init=False, repr=False)
    _tools: dict[str, Tool[..., Any]] = field(init=False, repr=False)

    if TYPE_CHECKING:  # names are taken for models, but only models are given back

        def __init__(
            self,
            name: str,
            model: Model | str,
            instruction: Instruction = "",
            tools: Sequence[Callable[..., Any]] = (),
            *,
            fallbacks: Sequence[Model | str] = (),
            temperature: float | None = None,
            max_tokens: int | None = None,
            stop: Sequence[str] = (),
            max_steps: int = 10,
            parallel_tool_calls: bool = True,
            max_parallel_tools: int = 16,
            output_schema: Mapping[str, Any] | None = None,
            options: Mapping[str, Any] = ...,
            description: str = "",
            unfinished: Unfinished = "keep",
        ) -> None: ...

    def __post_init__(self) -> None:
        _check_name(self.name)
        try:
            self._check()
            tools = _by_name(self.tools)
        except InvalidAgent as error:
            raise InvalidAgent(f"agent {self.name!r}: {error}") from error.__cause__
        except InvalidTool as error:
            raise InvalidTool(f"agent {self.name!r}: {error}") from error.__cause__
        self._set(
            tools=tuple(tools.values()),
            stop=tuple(self.stop),
            options=copy.deepcopy(dict(self.options)),
            output_schema=copy.deepcopy(self.output_schema),
            specs=tuple(tool.spec for tool in tools.values()),
            delegation_depth=_checked_depth(self.name, tuple(tools.values())),
            _tools=tools,
        )

    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        parallel: bool = True,
    ) -> AgentTool:
        """A tool by which another agent asks this one, in words, and reads its answer.

        It runs inside the run that asks, with its own instruction, tools and limits, and sees what it is
        asked and the session's state, not the conversation. Its events have a `path`; what it
        completed is not done again after a crash. If it fails, the asking model reads why. Agents may
        delegate eight levels deep.

        `name`, `description`: what the asking model sees, by default the agent's own. `timeout`: seconds for
        the whole answer. `parallel`: whether it may run beside other calls of a step. Raises `InvalidTool`.
        """
        return AgentTool(self, name=name, description=description, timeout=timeout, parallel=parallel)

    async def instruct(self, state: Mapping[str, Any]) -> str:
        """The instruction for a session in this state; what the function raises, passes.

        Raises `InvalidAgent` if the function returns anything but a string.
        """
        if isinstance(self.instruction, str):
            return self.instruction
        text: Any = self.instruction(MappingProxyType(State(state)))  # a view: not even nested values leak
        if inspect.isawaitable(text):
            text = await text
        if not isinstance(text, str):
            raise InvalidAgent(
                f"agent {self.name!r}: its instruction function returned a {type(text).__name__}, not a str"
            )
        return text

    @property
    def models(self) -> tuple[Model, ...]:
        """The model and its fallbacks, in the order in which they are asked."""
        return (self.model, *self.fallbacks)

    @property
    def all_models(self) -> tuple[Model, ...]:
        """Its models and those of the agents that it may ask, each once: who closes them needs them all."""
        asked = (tool.agent for tool in self._tools.values() if isinstance(tool, AgentTool))
        models = (*self.models, *(model for agent in asked for model in agent.all_models))
        return tuple({id(model): model for model in models}.values())

    def tool(self, name: str) -> Tool[..., Any] | None:
        """The tool that models call by this name."""
        return self._tools.get(name)

    def _check(self) -> None:
        if isinstance(self.fallbacks, str | Model):
            raise InvalidAgent("its fallbacks are a single model: give a sequence, as in `fallbacks=[model]`")
        self._set(model=_model(self.model), fallbacks=tuple(map(_model, self.fallbacks)))
        if not (isinstance(self.instruction, str) or callable(self.instruction)):
            raise InvalidAgent("its instruction must be a str, or a function of the state that returns one")
        if callable(self.tools):
            raise InvalidAgent("its tools are a single function: give a sequence, as in `tools=[look_up]`")
        if self.unfinished not in get_args(Unfinished):
            raise InvalidAgent(f'unfinished is {self.unfinished!r}: give "keep" or "discard"')
        if self.max_steps < 1:
            raise InvalidAgent(f"max_steps is {self.max_steps}: a run needs at least 1 model call")
        if self.max_parallel_tools < 1:
            raise InvalidAgent(f"max_parallel_tools is {self.max_parallel_tools}: give at least 1")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidAgent(
                f"max_tokens is {self.max_tokens}: give at least 1, or None for the provider's"
            )
        if isinstance(self.stop, str):
            raise InvalidAgent(f"stop is the string {self.stop!r}: give a sequence, as in `({self.stop!r},)`")
        if self.output_schema is not None:
            _check_output(dict(self.output_schema))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _checked_depth(name: str, tools: tuple[Tool[..., Any], ...]) -> int:
    depth = delegation_depth(tools)
    if depth > MAX_DELEGATION:
        raise InvalidAgent(
            f"agent {name!r}: its agents delegate {depth} levels deep, {MAX_DELEGATION} are possible: "
            "let one of them have the tools of those below it"
        )
    return depth


def _check_name(name: Any) -> None:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise InvalidAgent(f"agent name {name!r}: use 1 to 64 of the characters A-Z a-z 0-9 _ -")


def _model(model: Any) -> Model:
    if isinstance(model, str):
        return named(model)
    if isinstance(model, type):
        raise InvalidAgent(
            f"its model is the class {model.__name__}: pass an object, `{model.__name__}(...)`"
        )
    if not isinstance(model, Model):
        raise InvalidAgent(
            f"its model is a {type(model).__name__}: pass a `Model`, which has an `origin` and a `stream`"
        )
    return model


def _check_output(schema: dict[str, Any]) -> None:
    try:
        checked(schema)
    except InvalidTool as error:
        raise InvalidAgent(f"output_schema: {error}") from error.__cause__


def _by_name(functions: Sequence[Callable[..., Any]]) -> dict[str, Tool[..., Any]]:
    tools: dict[str, Tool[..., Any]] = {}
    for function in functions:
        made = cast("Tool[..., Any]", function if isinstance(function, Tool) else make_tool(function))
        if made.name in tools:
            raise InvalidTool(
                f"two tools are called {made.name!r}: rename one, as in `@tool(name={made.name + '_2'!r})`"
            )
        tools[made.name] = made
    return tools
