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
from tests.chaos.faults import POSTGRES_WEIGHTS, Fault, Faults
from tests.chaos.fleet import CLIENTS_PATIENCE, Fleet
from tests.chaos.history import histories
from tests.chaos.mutants import FAULTS, MUTANTS
from tests.chaos.plan import Plan
from tests.chaos.records import Recorder, read_as
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
    parser.add_argument("--mutant", choices=MUTANTS, default="", help="break the workers in this way")
    parser.add_argument("--interval", type=float, default=1.0, help="mean seconds between faults")
    parser.add_argument("--faults", nargs="*", choices=POSTGRES_WEIGHTS, help="only these kinds")
    parser.add_argument("--keep", action="store_true", help="keep the records whatever comes of it")
    given = parser.parse_args(arguments)
    weights = {name: POSTGRES_WEIGHTS[name] for name in given.faults or ()}
    if given.mutant and not weights:
        weights = FAULTS[given.mutant]
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
    )
    return plan, given.keep


async def run(plan: Plan) -> list[str]:
    """Returns the mishaps; all else lies in the plan's directory."""
    async with contextlib.AsyncExitStack() as stack:
        postgres = None
        if plan.store == "postgres":
            postgres = await stack.enter_async_context(Postgres())
            plan = replace(plan, store=postgres.dsn)
        plan.save()
        return await _run(plan, postgres)


async def _run(plan: Plan, postgres: Postgres | None) -> list[str]:
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
            await fleet.gone(client, expected={0}, patience=CLIENTS_PATIENCE)
        print("sessions are read", flush=True)
        await audit(fleet.url, plan.namespace, plan.path, plan.seed)
        await fleet.stop_workers()
        recorder.close()
        return fleet.mishaps


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="atto-chaos-"))
    plan, keep = make_plan(sys.argv[1:], str(directory))
    mishaps = asyncio.run(run(plan))
    faults = list(read_as(directory / "faults.jsonl", Fault))
    tally, recoveries = judge(histories(directory), faults)
    result = summary(directory, tally, recoveries, mishaps)
    print(table(result))
    is_broken = result["violations"] > 0
    if is_broken:
        print(violations(tally, mishaps))
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
