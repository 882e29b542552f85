"""The programs of the documentation run, and it can be built without a warning."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [(ROOT / "docs" / name).read_text() for name in ("tutorial.md", "agents.md")]
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", "".join(PAGES), re.DOTALL))


async def output_of(directory: Path, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "NO_MKDOCS_2_WARNING": "1"},
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (
            "talk.py",
            (
                "[get_weather {'city': 'Oslo'}]\nIt is sunny in Oslo.  (version 1)\n"
                "[get_weather {'city': 'Rome'}]\nIt is sunny in Rome.  (version 2)\n"
                "{'cities': ['Oslo', 'Rome']}\n"
            ),
        ),
        (
            "desk.py",
            ("Two lamps are on their way.\n{'orders': ['lamp']} there is no sofa; there are: lamp, chair\n"),
        ),
        (
            "team.py",
            (
                "weather: sunny, says the weather agent about: Oslo\n"
                "In Oslo it is sunny, says the weather agent about: Oslo.\n"
            ),
        ),
        ("trouble.py", "I could not pay: the card was declined.\nmodel_error\n1\n"),
    ],
)
async def test_a_program_of_the_documentation(tmp_path: Path, program: str, expected: str):
    for name, code in PROGRAMS.items():
        (tmp_path / name).write_text(code)
    assert await output_of(tmp_path, sys.executable, program) == expected


async def test_the_documentation_is_built_without_a_warning(tmp_path: Path):
    await output_of(ROOT, sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    assert "SessionBacklogFull" in (tmp_path / "reference" / "errors" / "index.html").read_text()
