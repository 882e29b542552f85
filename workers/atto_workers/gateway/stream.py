"""One try at an answer: a model's stream, watched by the clock, put together, closed whatever happens."""

import contextlib
import logging
from collections.abc import Callable

from atto.aio.user_code import describe
from atto.broker.alarms import Alarms
from atto.models import Chunk, Model, ModelRequest, UsageChunk
from atto.models.assemble import Assembled, Assembler
from atto.protocol.errors import ModelError
from atto.protocol.messages import Usage
from atto_workers.gateway.timeouts import StreamTimer, TimeoutPolicy
from atto_workers.turn_context import user_code

OnChunk = Callable[[Chunk], None]

_log = logging.getLogger("atto.worker")


class ModelStream:
    """`usage`: what the provider counted so far, also where the stream broke later; None: it did not say."""

    def __init__(
        self, model: Model, request: ModelRequest, *, name: str, timeouts: TimeoutPolicy, alarms: Alarms
    ) -> None:
        self.usage: Usage | None = None
        self._model = model
        self._request = request
        self._name = name
        self._timer = StreamTimer(timeouts, name, alarms)

    async def read(self, on_chunk: OnChunk) -> Assembled:
        """The whole answer; every chunk of it was handed to `on_chunk`. Raises nothing but `ModelError`."""
        try:
            with self._timer, user_code("model", self._name):
                assembler = Assembler(self._model.origin)
                heard, add = self._timer.heard, assembler.add
                async with contextlib.aclosing(self._model.stream(self._request)) as chunks:
                    async for chunk in chunks:
                        heard()
                        add(chunk)
                        if isinstance(chunk, UsageChunk):
                            self.usage = chunk.usage
                        on_chunk(chunk)
            return self._finished(assembler)
        except ModelError:
            raise
        except Exception as error:
            # Without what it says: it may quote the request. The run's last event has it.
            _log.warning("%s: %s raised", self._name, type(self._model).__name__, exc_info=error)
            what = f"{type(self._model).__name__} raised {describe(error)}"
            raise ModelError(f"{self._name}: {what}") from error

    def _finished(self, assembler: Assembler) -> Assembled:
        try:
            return assembler.finish()
        except ModelError as error:
            raise ModelError(f"{self._name}: {error}", transient=error.transient) from error
