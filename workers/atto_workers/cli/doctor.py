"""`atto doctor`."""

import asyncio
from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from atto_workers.cli.console import Terminal
from atto_workers.cli.examination import Finding, examine
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output, Store
from atto_workers.cli.probes import Role
from atto_workers.terminal import shown

_MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "failure": ("NO", "red")}


def doctor(
    *,
    store: Store = "nats-kv",
    role: Annotated[Role, Parameter(help="Whose work to check for.")] = "worker",
    broker: Broker = BROKER,
    output: Output = OUTPUT,
) -> int:
    """Checks broker, limits, namespace, clock, permissions, store and workers; says how to mend things."""

    async def work() -> int:
        console = Terminal(soft_wrap=True)
        code = 0
        async with aclosing(examine(broker, store, role)) as findings:
            async for finding in findings:
                code = code or finding.code
                if output.as_json:
                    output.show(finding, "")
                else:
                    _print(console, finding)
        return code

    return asyncio.run(work())


def _print(console: Terminal, finding: Finding) -> None:
    mark, style = _MARKS[finding.status]
    console.print(f"{mark}  ", style=style, end="")
    console.print(f"{finding.check:<12} {shown(' '.join(finding.detail.split()))}")
    if finding.mend:
        console.print(f"{'':<17}{shown(finding.mend)}", style="bold")
