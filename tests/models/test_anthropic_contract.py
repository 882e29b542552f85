"""The adapter of the Messages API against the contract of models."""

import pytest

from atto.testing.model_contract import ModelContract

from .anthropic_dialect import AnthropicDialect


class TestAnthropic(ModelContract):
    @pytest.fixture
    def dialect(self):
        return AnthropicDialect()
