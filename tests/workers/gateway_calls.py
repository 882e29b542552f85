"""Calls through a gateway, without a worker around it."""

from atto.models import (
    ModelRequest,
    ScriptedModel,
    TextChunk,
)
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message, Origin
from atto_workers import ModelPolicy
from atto_workers.gateway import ModelGateway
from tests.workers.virtual_time import now

REQUEST = ModelRequest(messages=(Message.user("hi"),))
ONE, TWO = Origin("scripted", "one"), Origin("scripted", "two")


def busy(text: str = "busy", **options) -> ModelError:
    return ModelError(text, transient=True, **{"status": 503, **options})


def too_many(retry_after: float | None = None) -> ModelError:
    return busy("too many", status=429, retry_after=retry_after)


class Caller:
    """One call, as it was heard: a restart voids."""

    def __init__(self, gateway: ModelGateway, *models: ScriptedModel) -> None:
        self.gateway = gateway
        self.models = models
        self.heard: list[str] = []
        self.restarts: list[str] = []
        self.ended_at = -1.0

    def _add(self, chunk) -> None:
        if isinstance(chunk, TextChunk):
            self.heard.append(chunk.text)

    def _restart(self, error: ModelError) -> None:
        self.heard.clear()
        self.restarts.append(str(error))

    async def __call__(self) -> Message:
        try:
            answer = await self.gateway.call(
                self.models, REQUEST, on_chunk=self._add, on_restart=self._restart
            )
        finally:
            self.ended_at = now()
        assert "".join(self.heard) == answer.message.text
        return answer.message


def gateway(policies=None, **policy) -> ModelGateway:
    """Without jitter: each pause is the longest possible."""
    return ModelGateway(policies or ModelPolicy(**policy), jitter=lambda _, high: high)
