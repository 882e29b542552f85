"""The adapters of OpenAI's APIs against the contract of models."""

import pytest

from atto.testing.model_contract import ModelContract

from .chat_dialect import ChatDialect
from .responses_dialect import ResponsesDialect


class TestOpenAIChat(ModelContract):
    @pytest.fixture
    def dialect(self):
        return ChatDialect()


class TestOpenAIResponses(ModelContract):
    @pytest.fixture
    def dialect(self):
        return ResponsesDialect()
