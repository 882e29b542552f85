"""The image: nobody's files, nobody's secrets, and nothing that it has to write."""

import json
import re
from typing import Any

import docker
import pytest

from tests.containers.engine import HARDENED

pytestmark = pytest.mark.containers

SECRET = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)


@pytest.fixture(scope="module")
def client(engine: None):
    client = docker.from_env()
    yield client
    client.close()


def test_it_runs_as_nobody_and_says_how_it_is(client: docker.DockerClient, image: str):
    config = client.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "/app/healthy.py"]
    assert config["Entrypoint"] == ["atto"]
    assert config["Cmd"] == ["worker", "app:agent"]


def test_no_secret_is_in_its_environment_or_its_history(client: docker.DockerClient, image: str):
    found = client.images.get(image)
    assert [variable for variable in found.attrs["Config"]["Env"] if SECRET.search(variable)] == []
    assert [layer["CreatedBy"] for layer in own_layers(found) if SECRET.search(layer["CreatedBy"])] == []


def test_what_it_brings_is_small(client: docker.DockerClient, image: str):
    added = [layer["Size"] for layer in own_layers(client.images.get(image))]
    assert 0 < sum(added) < 250_000_000


def own_layers(image: docker.models.images.Image) -> list[dict[str, Any]]:
    """Those that came on top of the base image, the newest first."""
    layers = image.history()
    first = next(at for at, layer in enumerate(layers) if "/opt/atto /opt/atto" in layer["CreatedBy"])
    return layers[: first + 1]


INSIDE = """
import json, os, pathlib, sys
def writable(path):
    try:
        (path / "probe").write_text("")
    except OSError:
        return False
    return True
own = [str(path) for top in ("/app", "/opt/atto") for path in pathlib.Path(top).rglob("*")
       if not path.is_symlink() and os.access(path, os.W_OK)]
import atto_client, atto_workers, openai, anthropic, google.genai, asyncpg, nkeys
print(json.dumps({"uid": os.getuid(), "own": own, "app": writable(pathlib.Path("/app")),
                  "root": writable(pathlib.Path("/")), "tmp": writable(pathlib.Path("/tmp"))}))
"""


@pytest.mark.parametrize("is_read_only", [True, False])
def test_nothing_in_it_can_be_changed_by_what_runs_in_it(
    client: docker.DockerClient, image: str, is_read_only: bool
):
    options = {**HARDENED, "read_only": is_read_only}
    output = client.containers.run(
        image,
        ["-c", INSIDE],
        entrypoint="python",
        remove=True,
        tmpfs={"/tmp": ""},  # noqa: S108 - a file system of the container's own
        **options,
    )
    assert json.loads(output) == {"uid": 10001, "own": [], "app": False, "root": False, "tmp": True}


def test_the_command_works_without_network_and_with_a_root_that_is_read_only(
    client: docker.DockerClient, image: str
):
    output = client.containers.run(image, ["--help"], remove=True, network_mode="none", **HARDENED)
    assert b"worker" in output


def test_a_worker_without_a_broker_says_so_and_ends(client: docker.DockerClient, image: str):
    with pytest.raises(docker.errors.ContainerError) as raised:
        client.containers.run(
            image,
            remove=True,
            network_mode="none",
            environment={"ATTO_NATS": "nats://127.0.0.1:4222"},
            **HARDENED,
        )
    assert raised.value.exit_status == 3
    assert b"cannot connect to 127.0.0.1:4222" in raised.value.stderr.replace(b"nats://", b"")
