"""What the tests of the contract of models stand on: a server, a model before it, and what is asked of it."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncGenerator, Awaitable, Generator, Iterator
from contextlib import aclosing
from typing import Any, TypeVar, cast

import pytest

from atto.models.assemble import Assembled, Assembler
from atto.models.base import Chunk, Closeable, Model, ModelRequest, TextChunk
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message
from atto.testing.model_dialect import Dialect
from atto.testing.model_server import ModelServer

KEY = "sk-canary-0123456789abcdef"
HI = ModelRequest(messages=(Message.user("hi"),))

ResultT = TypeVar("ResultT")

_PATIENCE = 10.0


class ModelTests:
    """The server, and the model under test."""

    @pytest.fixture
    def dialect(self) -> Dialect:
        """How the provider speaks, and how to make its model. To be overridden."""
        raise NotImplementedError("override the fixture `dialect`: it gives the `Dialect` of the API")

    @pytest.fixture
    async def server(self) -> AsyncGenerator[ModelServer, None]:
        """The server that plays the provider."""
        async with ModelServer() as server:
            yield server

    @pytest.fixture
    async def model(self, dialect: Dialect, server: ModelServer) -> AsyncGenerator[Model, None]:
        """The model under test, whose provider is `server`."""
        model = dialect.make_model(server.url, api_key=KEY)
        yield model
        await close(model)


async def close(model: Model) -> None:
    """Closes what can be closed."""
    if isinstance(model, Closeable):
        await model.aclose()


async def ask(model: Model, request: ModelRequest = HI) -> Assembled:
    """The whole answer."""
    assembler = Assembler(model.origin)
    async with aclosing(model.stream(request)) as chunks:
        async for chunk in chunks:
            assembler.add(chunk)
    return assembler.finish()


async def first_text(chunks: AsyncGenerator[Chunk, None]) -> str:
    """Reads on to the first piece of text."""
    async for chunk in chunks:
        if isinstance(chunk, TextChunk) and chunk.text:
            return chunk.text
    pytest.fail("the stream ended without any text")


async def within(happening: Awaitable[ResultT]) -> ResultT:
    """Waits for what must happen soon."""
    async with asyncio.timeout(_PATIENCE):
        return await happening


@contextlib.contextmanager
def fails() -> Generator[pytest.ExceptionInfo[ModelError], None, None]:
    """Expects a `ModelError` that does not give away the key, not even in its traceback."""
    with pytest.raises(ModelError) as caught:
        yield caught
    assert KEY not in "".join(traceback.format_exception(caught.value))


def objects(value: Any) -> Iterator[Any]:
    """A JSON value and all that it holds, in order."""
    yield value
    if isinstance(value, dict):
        for inner in cast("dict[str, Any]", value).values():
            yield from objects(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from objects(inner)
