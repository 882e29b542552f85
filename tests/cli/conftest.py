from pathlib import Path

import pytest

from atto.broker.server import EmbeddedBroker

AGENT = """
from atto import Agent
from atto.models import ScriptedModel
agent = Agent("tester", ScriptedModel.of("ANSWER-CANARY"))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with an agent, `app:agent`."""
    (tmp_path / "app.py").write_text(AGENT)
    return tmp_path


@pytest.fixture
def env(broker: EmbeddedBroker, namespace: str) -> dict[str, str]:
    """What tells a command where the test's namespace is."""
    return {"ATTO_NATS": broker.url, "ATTO_NAMESPACE": namespace}
