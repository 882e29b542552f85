"""The code of docs/stores.md runs, its store keeps the contract, and its links lead somewhere."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "stores.md").read_text()
SNIPPETS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT, re.DOTALL))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a reader has put all snippets."""
    for name, code in SNIPPETS.items():
        (tmp_path / name).write_text(code)
    return tmp_path


async def run(directory: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"]},
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


def test_every_snippet_names_its_file():
    assert len(SNIPPETS) == DOCUMENT.count("```python")


async def test_an_agent_with_a_store_and_what_is_done_with_its_sessions(directory: Path):
    assert await run(directory, "agent_with_store.py") == "you said: hi\n"
    assert await run(directory, "housekeeping.py") == "user-123\nTrue\n0 expired\n1 ['hi', 'you said: hi']\n"
    assert len((directory / "user-123.jsonl").read_text().splitlines()) == 3


async def test_the_store_of_the_example_keeps_the_contract(directory: Path):
    [command] = re.findall(r"```sh\npytest (.*)\n```", DOCUMENT)
    assert " passed" in await run(directory, "-m", "pytest", *command.split())


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^#)]+)", DOCUMENT))
def test_links_lead_somewhere(link: str):
    assert (ROOT / "docs" / link).exists()


@pytest.mark.parametrize("anchor", re.findall(r"\]\(#([^)]*)\)", DOCUMENT))
def test_anchors_name_a_heading(anchor: str):
    headings = re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
