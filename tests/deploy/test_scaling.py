"""KEDA's trigger reads the number of turns that have not ended, from a real broker's monitoring endpoint."""

import re
import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from atto_client import Client
from tests.deploy.files import K8S, documents
from tests.permissions.deployment import declare, login, serving

[SCALED, _] = documents(K8S / "components" / "keda" / "scaledobject.yaml")
[TRIGGER] = SCALED["spec"]["triggers"]


def located(value: Any, path: str) -> Any:
    """What GJSON finds, of which this knows names, indices and `#(name=="value")`."""
    for part in re.findall(r"#\([^)]*\)|[^.]+", path):
        if query := re.fullmatch(r'#\((\w+)=="([^"]*)"\)', part):
            value = next(item for item in value if item[query[1]] == query[2])
        else:
            value = value[int(part)] if isinstance(value, list) else value[part]
    return value


@pytest.mark.parametrize("turns", [0, 3])
async def test_the_metric_is_the_number_of_turns(tmp_path: Path, turns: int):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = urlsplit(TRIGGER["metadata"]["url"])
    assert (url.hostname, url.port) == ("nats.atto.svc.cluster.local", 8222)
    config = f"include tenant.conf\nhttp: 127.0.0.1:{port}\n"
    async with serving(tmp_path, config) as broker:
        await declare(broker.url, **login("atto-admin"))
        async with Client(broker.url, **login("atto-producer")) as client:
            for number in range(turns):
                await client.submit(f"s{number}", "hi")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{url.path}?{url.query}", timeout=5) as answer:
            found = located(msgspec.json.decode(answer.read()), TRIGGER["metadata"]["valueLocation"])
    assert found == turns


def test_workers_are_as_many_as_can_have_something_to_do():
    spec = SCALED["spec"]
    assert 2 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"] <= 64
    assert spec["scaleTargetRef"] == {"name": "atto-worker"}
