"""docs/models.md: its code runs, and its table has the defaults that the code has."""

import asyncio
import os
import re
import sys
from dataclasses import fields
from pathlib import Path

from atto_workers import BreakerPolicy, LimitPolicy, RetryPolicy, TimeoutPolicy

DOCUMENT = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
GATEWAY = DOCUMENT.partition("## The gateway")[2].partition("\n## ")[0]


def test_the_table_of_the_gateway_has_every_setting_and_its_default():
    written = dict(re.findall(r"^\| `(\w+\.\w+)` \| `([^`]+)` \|", GATEWAY, re.MULTILINE))
    policies = RetryPolicy(), TimeoutPolicy(), LimitPolicy(), BreakerPolicy()
    assert written == {
        f"{type(policy).__name__}.{field.name}": repr(getattr(policy, field.name))
        for policy in policies
        for field in fields(policy)
    }


async def test_the_code_of_the_gateway_runs(tmp_path: Path):
    [code] = re.findall(r"```python\n# gateway\.py\n(.*?)```", GATEWAY, re.DOTALL)
    (tmp_path / "gateway.py").write_text(code)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "gateway.py"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"]},
    )
    output = (await process.communicate())[0].decode()
    assert output.splitlines() == [
        "hello from the backup",
        "large: 1 call, 2 tries, 2 failed",
        "small: 1 call, 1 tries, 0 failed",
    ]
