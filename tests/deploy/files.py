"""Where the files of deploy are, and what is read from them."""

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from atto_workers.cli.declaring import declare
from atto_workers.cli.options import Broker
from atto_workers.cli.worker import worker

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
NATS = DEPLOY / "nats"
APP = DEPLOY / "app"
K8S = DEPLOY / "k8s"


def documents(path: Path) -> list[dict[str, Any]]:
    """All of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def worker_variables() -> set[str]:
    """What `atto worker` takes from the environment."""
    return _variables(worker)


def declare_variables() -> set[str]:
    """What `atto declare` takes from the environment."""
    return _variables(declare)


def _variables(command: Callable[..., Any]) -> set[str]:
    options = {*inspect.signature(command).parameters} - {"agent", "broker", "output"}
    options |= {field.name for field in dataclasses.fields(Broker)}
    return {f"ATTO_{option.upper()}" for option in options}


def program_variables(program: str) -> set[str]:
    """What a program of deploy/app takes from the environment, with its module on the broker."""
    text = (APP / program).read_text() + (APP / "broker.py").read_text()
    return set(re.findall(r'"((?:ATTO|EXAMPLE)_[A-Z_]+)"', text))


def login_of(user: str) -> str:
    """The prefix of the user's inboxes, as tenant.conf allows it."""
    [prefix] = re.findall(rf'"(_INBOX\.atto\.\w+\.{user})\.>"', (NATS / "tenant.conf").read_text())
    return prefix


def variables_of(text: str) -> set[str]:
    """What the environment has to give: what is used and nowhere set, includes taken in."""
    code = re.sub(r'#.*|"[^"]*"', "", with_includes(text))
    return set(re.findall(r"\$(\w+)", code)) - set(re.findall(r"^(\w+) *[=:]", code, re.MULTILINE))


def with_includes(text: str) -> str:
    """Followed to the end: what is included may include more."""
    names = re.findall(r"^include (\S+)", text, re.MULTILINE)
    return "".join(with_includes((NATS / name).read_text()) for name in names) + text


def seconds(duration: str) -> float:
    """Of compose: only whole seconds are used."""
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, f"{duration!r} is not so many seconds"
    return float(found[1])
