import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import atto

ROOT = Path(__file__).parents[1]
PROJECTS: dict[str, dict[str, Any]] = {
    project["name"]: project
    for folder in (".", "client", "workers")
    for project in [tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]]
}


def test_the_three_distributions_have_one_version():
    assert {name: project["version"] for name, project in PROJECTS.items()} == dict.fromkeys(
        ("atto-agents", "atto-client", "atto-workers"), atto.__version__
    )


@pytest.mark.parametrize("name", PROJECTS)
def test_what_is_installed_is_this_version(name):
    assert importlib.metadata.version(name) == atto.__version__


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("atto-agents", set()),
        ("atto-client", {"atto-agents"}),
        ("atto-workers", {"atto-agents[tools,nats]", "atto-client"}),
    ],
)
def test_the_distributions_pin_one_another_to_the_same_version(name, others):
    requirements = [line for line in PROJECTS[name]["dependencies"] if line.startswith("atto-")]
    assert set(requirements) == {f"{other}=={atto.__version__}" for other in others}


def test_extras_that_lead_to_another_distribution_are_pinned_too():
    for extra in PROJECTS["atto-workers"]["optional-dependencies"].values():
        assert all(line.endswith(f"=={atto.__version__}") for line in extra if line.startswith("atto-"))


def test_all_have_one_licence_and_one_lowest_python():
    assert {(project["license"], project["requires-python"]) for project in PROJECTS.values()} == {
        ("MIT", ">=3.11")
    }


LOCKS = {path.stem: path for path in (ROOT / "requirements").glob("*.lock")}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_names_no_address_and_no_distribution_of_this_tree(name):
    lock = LOCKS[name].read_text()
    assert "://" not in lock
    assert "index-url" not in lock
    packages = lock.replace("\\\n", "").splitlines()
    assert all("--hash=sha256:" in package for package in packages)
    assert not [package for package in packages if package.startswith(("atto", "-", "/", "."))]


@pytest.mark.parametrize("name", sorted(set(LOCKS) - {"dev"}))
def test_the_locks_of_one_environment_agree(name):
    ours, theirs = (_pins(LOCKS[each]) for each in (name, "dev"))
    assert {each: ours[each] for each in ours.keys() & theirs.keys() if ours[each] != theirs[each]} == {}


def test_a_conversation_needs_few_packages():
    assert len(_pins(LOCKS["quickstart"])) <= 20


def _pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE))
