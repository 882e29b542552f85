"""Gemini, at both of its addresses, against the contract of models."""

import pytest

from atto.testing.model_contract import ModelContract

from .gemini_dialect import GeminiDialect, VertexDialect


class TestGemini(ModelContract):
    @pytest.fixture
    def dialect(self):
        return GeminiDialect()


class TestGeminiAtVertex(ModelContract):
    @pytest.fixture
    def dialect(self):
        return VertexDialect()
