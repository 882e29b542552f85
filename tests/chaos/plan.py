"""What one chaos run is: handed to every process of it."""

from pathlib import Path

import msgspec
from msgspec import Struct

CLIENTS = 2


class Plan(Struct, frozen=True, kw_only=True):
    """`url`: the broker's own address; processes are given a proxy's. `store`: `kv`, or a Postgres DSN.

    `interval`: mean seconds between faults. `faults`: kinds to choose from with their weights; none: all.
    """

    directory: str
    seconds: float
    seed: int
    workers: int = 3
    sessions: int = 48
    partitions: int = 32
    backlog: int = 12
    store: str = "kv"
    mutant: str = ""
    interval: float = 1.0
    faults: dict[str, float] = {}
    namespace: str = "chaos"
    url: str = ""

    @property
    def path(self) -> Path:
        return Path(self.directory)

    def save(self) -> None:
        (self.path / "plan.json").write_bytes(msgspec.json.encode(self))


def load_plan(directory: str) -> Plan:
    return msgspec.json.decode((Path(directory) / "plan.json").read_bytes(), type=Plan)
