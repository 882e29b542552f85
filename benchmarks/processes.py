"""What processes cost, as Linux counts it."""

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def cpu_ns(pid: int) -> int:
    """The CPU time of a process and all its threads, those that have ended included.

    Read from the process's own clock (that of `clock_getcpuclockid`), which counts nanoseconds;
    `/proc/PID/stat` counts in hundredths of a second, and a commit takes a twentieth of one.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def family_cpu_ns(pid: int) -> int:
    """That of a process and its children, as far as they live."""
    total = 0
    for member in (pid, *children(pid)):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            total += cpu_ns(member)
    return total


def parent(pid: int) -> int:
    """The process that started `pid`."""
    # proc(5): the name, which may hold anything, stands in parentheses; state and parent follow.
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def children(pid: int) -> Iterable[int]:
    """The processes that `pid` started, themselves only."""
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if parent(int(entry.name)) == pid:
                    yield int(entry.name)


def bytes_written(pid: int | None = None) -> int:
    """How many bytes the process (by default this one) has handed to `write` and its kin, so far.

    Files and pipes, and sockets where they are used by `write`; not what is sent by `send`, as Python does.
    """
    text = (_PROC / ("self" if pid is None else str(pid)) / "io").read_text()
    found = re.search(r"^wchar: (\d+)$", text, re.MULTILINE)
    if found is None:
        raise OSError(f"process {pid or 'self'} does not tell what it writes")
    return int(found[1])
