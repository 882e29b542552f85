"""Installs a lock of this folder into the environment that runs this, and says how far it is.

    .venv/bin/python requirements/install.py dev

A lock is complete and has hashes, so nothing is resolved: a release of today changes nothing. Uses uv where
it is on the PATH, else pip. A second call does nothing until the lock or a pyproject.toml changes.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = (".", "client", "workers")


def main(group: str) -> int:
    """Returns the exit code."""
    lock = ROOT / "requirements" / f"{group}.lock"
    manifests = [ROOT / folder / "pyproject.toml" for folder in DISTRIBUTIONS]
    locked = Stamp(group, [lock])
    tree = Stamp("tree", manifests)
    if locked.holds() and tree.holds():
        return 0
    began = time.monotonic()
    if not locked.holds():
        names = re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)
        _say(f"Installing {len(names)} packages ({group}) into {_relative(Path(sys.prefix))}")
        if (status := _install(["--require-hashes", "-r", str(lock)], len(names))) != 0:
            return status
        locked.renew()
    if not tree.holds():
        _say("Installing this tree, editable")
        # hatchling and editables are locked: without build isolation nothing else is downloaded
        editable = [word for folder in DISTRIBUTIONS for word in ("-e", str(ROOT / folder))]
        if (status := _install(["--no-build-isolation", *editable], len(DISTRIBUTIONS))) != 0:
            return status
        tree.renew()
    _say(f"Installed in {time.monotonic() - began:.0f} s")
    return 0


class Stamp:
    """Remembers in the environment what its files were when they were installed."""

    def __init__(self, name: str, sources: list[Path]) -> None:
        self._file = Path(sys.prefix) / f"setup-{name}"
        self._digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()

    def holds(self) -> bool:
        return self._file.exists() and self._file.read_text() == self._digest

    def renew(self) -> None:
        self._file.write_text(self._digest)


def _install(arguments: list[str], total: int) -> int:
    if (uv := shutil.which("uv")) is not None:
        return subprocess.call([uv, "pip", "install", "--python", sys.executable, "--no-deps", *arguments])
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        said = list(_counted(process.stdout or (), total))
    if process.returncode != 0:
        print("".join(said), file=sys.stderr)
    return process.returncode


def _counted(lines: Iterable[str], total: int) -> Iterator[str]:
    """The lines of pip as they come, counted: in place on a terminal, every tenth package elsewhere."""
    number = 0
    is_terminal = sys.stdout.isatty()
    for line in lines:
        yield line
        if line.startswith(("Collecting ", "Obtaining ")):
            number += 1
            if is_terminal:
                name = line.split()[1].partition("==")[0].rpartition("/")[2]
                print(f"\r\033[K  {number} of {total}  {name}", end="", flush=True)
            elif number % 10 == 0:
                _say(f"  {number} of {total}")
        elif line.startswith("Installing collected packages") and is_terminal:
            print("\r\033[K  unpacking", end="", flush=True)
    if is_terminal:
        print("\r\033[K", end="", flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


def _relative(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
