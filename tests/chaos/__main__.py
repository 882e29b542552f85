"""`python -m tests.chaos SECONDS SEED`: a chaos run, judged. The last line of output is one JSON object.

Ends with 1 if a promise was broken, or if no fault bit: then nothing was tried.
"""

# ruff: noqa: T201 - a command line tool

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
from msgspec.structs import replace

from tests.chaos.audit import audit
from tests.chaos.case import Terms
from tests.chaos.checker import Violation
from tests.chaos.conversation import ACTS
from tests.chaos.faults import ALL, Faults
from tests.chaos.fleet import CLIENTS_PATIENCE, Fleet
from tests.chaos.history import histories
from tests.chaos.mutants import MUTANTS
from tests.chaos.plan import Plan
from tests.chaos.records import Fault, Recorder, read_as
from tests.chaos.report import judge, summary, table, violations
from tests.postgres import Postgres


def make_plan(arguments: list[str], directory: str) -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("seconds", type=float, help="how long faults are inflicted")
    parser.add_argument("seed", type=int)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=48, help="conversations at one time")
    parser.add_argument("--partitions", type=int, default=32)
    parser.add_argument("--store", choices=("kv", "postgres"), default="kv")
    parser.add_argument(
        "--mutant", choices=MUTANTS, default="", help="break the workers in this way, and do what exposes it"
    )
    parser.add_argument("--interval", type=float, default=1.0, help="mean seconds between faults")
    parser.add_argument("--faults", nargs="*", choices=ALL, help="only these kinds")
    parser.add_argument("--acts", nargs="*", choices=ACTS, help="callers do only this")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds in which every turn ends")
    parser.add_argument("--grace", type=float, default=10.0, help="of the workers, in seconds")
    parser.add_argument("--backlog", type=int, default=12, help="unfinished turns that a session may have")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="of the brokers' cluster")
    parser.add_argument("--keep", action="store_true", help="keep the records whatever comes of it")
    given = parser.parse_args(arguments)
    if given.mutant:
        given = parser.parse_args([*MUTANTS[given.mutant].arguments, *arguments])
    weights = {name: ALL[name] for name in given.faults or ()}
    plan = Plan(
        directory=directory,
        seconds=given.seconds,
        seed=given.seed,
        workers=given.workers,
        sessions=given.sessions,
        partitions=given.partitions,
        store=given.store,
        mutant=given.mutant,
        interval=given.interval,
        faults=weights,
        acts={name: ACTS[name] for name in given.acts or ()},
        patience=given.patience,
        grace=given.grace,
        nodes=given.nodes,
        backlog=given.backlog,
    )
    return plan, given.keep


async def run(plan: Plan) -> list[Violation]:
    """Returns what processes did that no fault explains; all else lies in the plan's directory."""
    async with contextlib.AsyncExitStack() as stack:
        postgres = None
        if plan.store == "postgres":
            postgres = await stack.enter_async_context(Postgres())
            plan = replace(plan, store=postgres.dsn)
        plan.save()
        return await _run(plan, postgres)


async def _run(plan: Plan, postgres: Postgres | None) -> list[Violation]:
    recorder = Recorder(plan.path / "faults.jsonl")
    async with Fleet(plan) as fleet:
        print(
            f"{plan.workers} workers, {plan.sessions} conversations, faults for {plan.seconds:g} s",
            flush=True,
        )
        await Faults(fleet, recorder, postgres).inflict(plan.seconds)
        print("faults have ended, runs are awaited", flush=True)
        for client in list(fleet.clients):
            client.tell("stop")
        for client in list(fleet.clients):
            await fleet.gone(client, expected={0}, patience=2 * plan.patience + CLIENTS_PATIENCE)
        print("sessions are read", flush=True)
        await audit(fleet.urls, plan.namespace, plan.path, plan.seed, plan.patience)
        await fleet.stop_workers()
        recorder.close()
        return fleet.mishaps


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="atto-chaos-"))
    plan, keep = make_plan(sys.argv[1:], str(directory))
    mishaps = asyncio.run(run(plan))
    faults = sorted(read_as(directory / "faults.jsonl", Fault), key=lambda fault: fault.t)
    terms = Terms(faults, plan.patience, plan.backlog)
    tally, recoveries = judge(histories(directory), terms, mishaps)
    result = summary(directory, tally, recoveries)
    print(table(result))
    is_broken = result["violations"] > 0
    if is_broken:
        print(violations(tally))
    if not recoveries.bit:
        print("no fault bit: nothing was tried")
    if is_broken or keep:
        print(f"the records are in {directory}")
    else:
        shutil.rmtree(directory)
    print(msgspec.json.encode({"seed": plan.seed, "mutant": plan.mutant, **result}).decode())
    return int(is_broken or not recoveries.bit)


if __name__ == "__main__":
    sys.exit(main())
