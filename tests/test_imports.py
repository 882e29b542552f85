"""What an import loads, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

import atto
import atto.models

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


SDKS = ("openai", "anthropic", "google.genai", "httpx2", "pydantic", "asyncpg")

ADAPTERS = {
    "OpenAIChat": ("OpenAIChat('m', api_key='key', base_url=URL)", "openai"),
    "OpenAIResponses": ("OpenAIResponses('m', api_key='key', base_url=URL)", "openai"),
    "Anthropic": ("Anthropic('m', api_key='key', base_url=URL)", "anthropic"),
    "Gemini": ("Gemini('m', api_key='key', base_url=URL)", "google.genai"),
    "ollama": ("ollama('m', URL)", "openai"),
    "vllm": ("vllm('m', URL)", "openai"),
    "azure": ("azure('m', endpoint=URL, api_key='key')", "openai"),
}

STREAM = """
import asyncio
from atto.models import ModelRequest
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message

async def ask():
    try:
        async for chunk in model.stream(ModelRequest(messages=(Message.user("hi"),))):
            pass
    except ModelError as error:
        assert error.transient, error  # nobody listens there
    await model.aclose()

asyncio.run(ask())
"""


def making(name: str) -> str:
    if name not in atto.models.__all__:
        pytest.skip(f"{name} is not in this release")
    return f"URL = 'http://127.0.0.1:9'\nfrom atto.models import {name}\nmodel = {ADAPTERS[name][0]}"


@pytest.mark.parametrize("package", ["atto", "atto.models", "atto.agents", "atto.stores", "atto_workers"])
def test_no_sdk_is_loaded_by_an_import(package):
    assert loaded(modules_after(f"import {package}"), *SDKS) == set()


@pytest.mark.parametrize("name", ADAPTERS)
def test_no_sdk_is_loaded_by_making_a_model(name):
    assert loaded(modules_after(making(name)), *SDKS) == set()


def test_no_sdk_is_loaded_by_an_agent_of_named_models():
    script = (
        "import os\nos.environ['OPENAI_API_KEY'] = 'key'\nfrom atto.agents import Agent\n"
        "Agent('a', 'openai:gpt-5', fallbacks=['ollama:llama3'])"
    )
    assert loaded(modules_after(script), *SDKS) == set()


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_stream_loads_its_own_sdk_only(name):
    modules = modules_after(making(name) + STREAM)
    own = ADAPTERS[name][1]
    assert own in modules
    others = {"openai", "anthropic", "google.genai"} - {own}
    assert loaded(modules, *others, "asyncpg") == set()


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_missing_sdk_is_named_with_the_extra_that_has_it(name):
    statement = making(name).rpartition("\n")
    package = ADAPTERS[name][1]
    script = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else found(name, *rest)
from atto.protocol.errors import MissingExtra
{statement[0]}
try:
    {statement[2]}
except MissingExtra as error:
    sys.modules[str(error).replace(" ", "_")] = error
"""
    extra = {"google.genai": "gemini"}.get(package, package)
    assert any(f"pip_install_'atto-agents[{extra}]'" in module for module in modules_after(script))


@pytest.mark.parametrize("name", atto.__all__)
def test_every_public_name_is_there(name):
    modules_after(f"from atto import {name}")


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'atto' has no attribute 'agnet'"):
        atto.agnet  # noqa: B018
