"""What an import loads, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

import atto

HEAVY = {"openai", "jsonschema", "referencing", "pydantic", "httpx2", "docstring_parser"}


def modules_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    command = [sys.executable, "-I", "-W", "error", "-c", script]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def loaded(modules: set[str], *packages: str) -> set[str]:
    return {name for name in modules for package in packages if f"{name}.".startswith(f"{package}.")}


def test_atto_loads_nothing_until_it_is_used():
    assert loaded(modules_after("import atto"), "atto", "msgspec", "nats", "asyncio", *HEAVY) == {"atto"}


def test_the_client_loads_neither_agents_nor_models_nor_stores_nor_workers():
    modules = modules_after("import atto_client")
    assert (
        loaded(modules, "atto.agents", "atto.models", "atto.stores", "atto.testing", "atto_workers", *HEAVY)
        == set()
    )
    assert "atto_client" in modules


def test_the_protocol_does_no_io():
    names = "codec, errors, events, ids, messages, sessions, subjects, turns"
    modules = modules_after(f"from atto.protocol import {names}")
    assert loaded(modules, "asyncio", "socket", "nats", "atto.agents", "atto.broker", *HEAVY) == set()


def test_workers_load_no_sdk_and_no_tool_package_until_they_are_used():
    assert loaded(modules_after("import atto_workers"), *HEAVY) == set()


def test_agents_load_no_broker():
    assert (
        loaded(modules_after("import atto.agents"), "nats", "atto.broker", "atto_client", "atto_workers")
        == set()
    )


@pytest.mark.parametrize("name", atto.__all__)
def test_every_public_name_is_there(name):
    modules_after(f"from atto import {name}")


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'atto' has no attribute 'agnet'"):
        atto.agnet  # noqa: B018
