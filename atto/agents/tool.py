"""Tools: functions that a model may call."""

import asyncio
import functools
import inspect
import math
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

from atto.agents.context import ToolContext
from atto.agents.docs import read_docs
from atto.agents.given_schema import GivenParameters
from atto.agents.results import to_result
from atto.agents.schema import Parameters, SignatureParameters
from atto.agents.signature import Signature, read_signature
from atto.aio.beside import in_task, threads
from atto.aio.user_code import Escaped, UserCode, describe
from atto.models.base import ToolSpec
from atto.protocol.errors import InvalidTool, ToolError, ToolFailed, ToolTimeout
from atto.protocol.messages import InputPart

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT = 60.0
"""Seconds."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""What all providers accept (OpenAI and Anthropic: 64 characters of these)."""


class Tool(Generic[P, R]):
    """A function with what a model needs in order to call it. Made by `tool`; calling it calls the function.

    `spec`: what the model sees. `timeout`: seconds that a call may take, or None. `parallel`: whether it may
    run beside other calls of the same step. `at_most_once`: a call that may have begun before a crash is not
    begun again; the model is told that its outcome is unknown. `read_only`: a call changes nothing
    outside the session, so that it does not matter whether it is made once or twice.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None,
        description: str | None,
        schema: dict[str, Any] | None,
        timeout: float | None,
        parallel: bool,
        at_most_once: bool,
        read_only: bool,
    ) -> None:
        where = _check_function(function)
        functools.update_wrapper(self, function)
        self._function = function
        try:
            signature = read_signature(function, schema_given=schema is not None)
            self._parameters = _parameters(function, signature, schema)
            if description is None:
                description = read_docs(function).description
            self.spec = ToolSpec(
                _checked_name(function.__name__ if name is None else name),
                description,
                self._parameters.schema,
            )
            self.timeout = _checked_timeout(timeout)
            _check_effects(at_most_once=at_most_once, read_only=read_only)
        except InvalidTool as error:
            raise InvalidTool(f"tool {where}: {error}") from error.__cause__
        self._context = signature.context
        self._is_coroutine = inspect.iscoroutinefunction(function)
        self._label = f"atto-tool-{self.name}"
        self.parallel = parallel
        self.at_most_once = at_most_once
        self.read_only = read_only

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function, as if it were no tool."""
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"

    @property
    def name(self) -> str:
        """The name by which models call it."""
        return self.spec.name

    async def call(
        self, arguments: dict[str, Any], context: ToolContext | None = None
    ) -> str | tuple[InputPart, ...]:
        """One call by a model: its result, as the model will read it. A function that asks for no context
        needs none; one that does raises `InvalidTool` without.

        Raises `ToolError` for everything that the model is to read as an error: `ToolArgumentsInvalid`
        before the function is called, `ToolTimeout`, `ToolFailed`, or what the function raised of its own.
        Whatever else it raises is its failure, `SystemExit` and `KeyboardInterrupt` included: one call does
        not end the process that serves all. Only the cancellation of this task passes, and a signal.

        A synchronous function runs in a thread. Past its time-out it is left behind in that thread, which
        nothing can stop: what it still does is lost, its effects are not. An asynchronous function runs in a
        task of its own, which is cancelled; one that has not let go 3 seconds later is left behind, too.
        """
        if context is None and self._context is not None:
            raise InvalidTool(f"tool {self.name!r} asks for a ToolContext: call it with one")
        call = self._user_code(context)
        timeout = asyncio.timeout(self.timeout)
        try:
            async with timeout:
                if self._is_coroutine:
                    return await in_task(self._in_task(call, arguments, context), self._label, call)
                with call:
                    return await self._in_thread(arguments, context)
        except Exception as error:
            if timeout.expired():
                raise ToolTimeout(f"the tool did not end within {self.timeout:g} seconds") from error
            if isinstance(error, ToolError):
                raise
            cause = error.__cause__ if isinstance(error, Escaped) else error
            raise ToolFailed(describe(error)) from cause

    async def _in_task(
        self, call: UserCode, arguments: dict[str, Any], context: ToolContext | None
    ) -> str | tuple[InputPart, ...]:
        with call:
            if self._parameters.is_quick:
                keywords = self._keywords(arguments, context)
            else:
                keywords = await threads.run(partial(self._keywords, arguments, context), self._label)
            result: Any = self._function(**keywords)  # pyright: ignore[reportCallIssue]
            return to_result(await result)

    async def _in_thread(
        self, arguments: dict[str, Any], context: ToolContext | None
    ) -> str | tuple[InputPart, ...]:
        def work() -> Any:
            keywords = self._keywords(arguments, context)
            result: Any = self._function(**keywords)  # pyright: ignore[reportCallIssue]
            return result if inspect.isawaitable(result) else to_result(result)

        result = await threads.run(work, self._label)
        if inspect.isawaitable(result):
            call = self._user_code(context)
            return await in_task(_awaited(call, result), self._label, call)
        return result

    def _user_code(self, context: ToolContext | None) -> UserCode:
        if context is None:
            return UserCode("tool", self.name)
        return UserCode("tool", self.name, context.session, context.run_id)

    def _keywords(self, arguments: dict[str, Any], context: ToolContext | None) -> dict[str, Any]:
        keywords = self._parameters.bind(arguments)
        if self._context is not None:
            keywords[self._context] = context
        return keywords


async def _awaited(call: UserCode, result: Awaitable[Any]) -> str | tuple[InputPart, ...]:
    with call:
        return to_result(await result)


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    schema: dict[str, Any] | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    parallel: bool = True,
    at_most_once: bool = False,
    read_only: bool = False,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    schema: dict[str, Any] | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    parallel: bool = True,
    at_most_once: bool = False,
    read_only: bool = False,
) -> Any:
    """Makes a function, synchronous or not, a tool: `@tool`, or `@tool(timeout=5, ...)`.

    What the model sees comes from the signature (types, defaults, constraints by `msgspec.Meta` or
    `pydantic.Field`) and from the docstring (the tool's and each parameter's description). A parameter
    annotated `ToolContext` is filled in by atto. With `schema`, a JSON Schema of type object, that is what
    the model sees and what arguments are checked against; they are then passed by name as they came.

    `timeout`, in seconds, bounds each call; None does not. `parallel=False` keeps the tool from running
    beside others. `at_most_once=True` keeps a call that a crash interrupted from being made again.
    `read_only=True` is for a tool that changes nothing but the session's state: it begins at once, where
    before any other the broker first confirms that it has the call, one round trip.

    Raises `InvalidTool` if no model could call it, `MissingExtra` without the extra `tools`.
    """

    def decorate(function: Callable[P, R]) -> Tool[P, R]:
        return Tool(
            function,
            name=name,
            description=description,
            schema=schema,
            timeout=timeout,
            parallel=parallel,
            at_most_once=at_most_once,
            read_only=read_only,
        )

    return decorate if function is None else decorate(function)


def _check_function(function: Any) -> str:
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise InvalidTool(f"{function!r} is not a function: a tool is made from a `def` or `async def`")
    where = f"{function.__module__}.{function.__qualname__}"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTool(f"tool {where}: it yields, but a tool has one result: return a list instead")
    return where


def _parameters(
    function: Callable[..., Any], signature: Signature, schema: dict[str, Any] | None
) -> Parameters:
    if schema is None:
        return SignatureParameters(signature, read_docs(function))
    return GivenParameters(schema, signature)


def _checked_name(name: Any) -> str:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise InvalidTool(
            f"its name {name!r} is not one that models take: give it one of 1 to 64 of the characters "
            'A-Z a-z 0-9 _ -, as in `@tool(name="look_up")`'
        )
    return name


def _check_effects(*, at_most_once: bool, read_only: bool) -> None:
    if at_most_once and read_only:
        raise InvalidTool("`at_most_once` is for effects, and `read_only` says that it has none")


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not 0 < timeout < math.inf:
        raise InvalidTool(f"its timeout is {timeout}: give seconds above 0, or None for no time-out")
    return timeout
