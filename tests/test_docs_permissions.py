"""docs/permissions.md: its code is code, and its files are those of deploy/nats."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "permissions.md").read_text()
EXAMPLES = (ROOT / "examples" / "producers" / "README.md").read_text()
FILES = {file.name for file in (ROOT / "deploy" / "nats").glob("*.conf") if "cluster" not in file.name}


def test_every_configuration_file_is_told_of():
    assert set(re.findall(r"`deploy/nats/(\w+\.conf)`", PAGE)) == FILES


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_snippets_are_python(snippet: str):
    compile(snippet, "permissions.md", "exec")


def test_the_subjects_of_credentials_are_those_of_the_lists():
    lists = (ROOT / "deploy" / "nats" / "permissions.conf").read_text()
    [client] = re.findall(r"CLIENT_MAY_PUBLISH = \[(.*?)\]", lists, re.DOTALL)
    [allowed] = re.findall(r"--allow-pub '([^']+)'", PAGE)
    assert allowed.split(",") == re.findall(r'"([^"]+)"', client)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http|#)([^#)]+)", EXAMPLES))))
def test_links_of_the_examples_lead_somewhere(link: str):
    assert (ROOT / "examples" / "producers" / link).exists()
