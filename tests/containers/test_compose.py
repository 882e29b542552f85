"""The compose files bring up working systems: their producer hears answers, also after a worker was killed.

With `docker compose`, or with docker-compose 1.29, which does not know the name at the top of a file.
"""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.containers.engine import ROOT

pytestmark = pytest.mark.containers

DEPLOY = ROOT / "deploy"
PATIENCE = 120


def compose_command() -> list[str] | None:
    """The plugin, else the program, if one of them is there."""
    docker = shlex.split(os.environ.get("ATTO_TEST_DOCKER", "docker"))
    for command in ([*docker, "compose"], ["docker-compose"]):
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return command
    return None


class Project:
    """One compose file as a project of the tests' own, on free ports."""

    def __init__(self, file: str, image: str, command: list[str]) -> None:
        self._text = (DEPLOY / file).read_text()
        if command == ["docker-compose"]:
            self._text = re.sub(r"^name: .*\n", "", self._text, flags=re.MULTILINE)
        self._command = [*command, "--project-name", f"atto-test-{os.getpid()}", "--file", "-"]
        self._environment = {
            **os.environ,
            "ATTO_IMAGE": image,
            "NATS_PORT": str(free_port()),
            "NATS_MONITORING_PORT": str(free_port()),
            "EXAMPLE_TURNS_A_SECOND": "10",
        }

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=DEPLOY,
            env=self._environment,
            input=self._text,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def answers(self) -> int:
        """How many the producer has heard; no turn may have failed."""
        lines = [line for line in self.run("logs", "producer").splitlines() if "customer-" in line]
        assert [line for line in lines if "(version " not in line] == []
        return len(lines)

    def more_answers(self) -> int:
        """Waits for fifty more."""
        wanted, deadline = self.answers() + 50, time.monotonic() + PATIENCE
        while (heard := self.answers()) < wanted:
            assert time.monotonic() < deadline, self.run("logs", "--tail", "20")
            time.sleep(0.5)
        return heard


@pytest.fixture(params=["compose.yaml", "compose.single.yaml"])
def project(request: pytest.FixtureRequest, image: str) -> Iterator[Project]:
    command = compose_command()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    project = Project(request.param, image, command)
    try:
        project.run("up", "--detach", "--no-build")
        yield project
    finally:
        project.run("down", "--volumes", "--timeout", "20")


@pytest.mark.usefixtures("engine")
def test_it_works_goes_on_without_a_worker_and_stops_in_order(project: Project):
    assert project.more_answers() >= 50
    victim = project.run("ps", "--quiet", "worker").split()[0]
    docker("kill", victim)
    assert project.more_answers() >= 100
    project.run("stop", "--timeout", "60")
    stopped = set(project.run("ps", "--all", "--quiet").split()) - {victim}
    codes = docker("inspect", "--format", "{{.Name}} {{.State.ExitCode}}", *stopped).splitlines()
    assert [code for code in codes if not code.endswith(" 0")] == []


def docker(*arguments: str) -> str:
    command = shlex.split(os.environ.get("ATTO_TEST_DOCKER", "docker"))
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
