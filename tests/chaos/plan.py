"""What one chaos run is: handed to every process of it."""

from pathlib import Path

import msgspec
from msgspec import Struct

CLIENTS = 2


class Plan(Struct, frozen=True, kw_only=True):
    """`store`: `kv`, or a Postgres DSN.

    `interval`: mean seconds between faults. `faults`: kinds to choose from with their weights; none: all;
    `acts`: likewise, of callers. `patience`: seconds in which a turn must end that nothing of its own session
    holds up, and every turn once all faults have ended. `grace`: of the workers, in seconds. `nodes`: of the
    brokers' cluster, one or three.
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
    acts: dict[str, float] = {}
    patience: float = 60.0
    grace: float = 10.0
    nodes: int = 1
    namespace: str = "chaos"

    @property
    def path(self) -> Path:
        return Path(self.directory)

    def save(self) -> None:
        (self.path / "plan.json").write_bytes(msgspec.json.encode(self))


def load_plan(directory: str) -> Plan:
    return msgspec.json.decode((Path(directory) / "plan.json").read_bytes(), type=Plan)
