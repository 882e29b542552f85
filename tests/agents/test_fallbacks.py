"""Fallbacks of an agent are models, in order."""

import pytest

from atto import Agent, ScriptedModel
from atto.protocol.errors import InvalidAgent


def test_models_are_asked_in_this_order():
    models = [ScriptedModel() for _ in range(3)]
    assert Agent("a", models[0]).models == (models[0],)
    fallbacks = models[1:]
    agent = Agent("a", models[0], fallbacks=fallbacks)
    fallbacks.clear()
    assert agent.models == tuple(models)


@pytest.mark.parametrize("fallbacks", [ScriptedModel(), "openai:gpt", [object()], [ScriptedModel], ["gpt"]])
def test_fallbacks_that_are_no_models_are_refused(fallbacks):
    with pytest.raises(InvalidAgent):
        Agent("a", ScriptedModel(), fallbacks=fallbacks)
