"""The producers of examples/producers, built where the machine has what that takes.

What is built or downloaded lies in `.cache/producers` of the repository, and is made anew only if its sources
have changed.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "examples" / "producers"
CACHE = ROOT / ".cache" / "producers"
BUILD_TIMEOUT = 100  # seconds; a first build downloads
COMPILE_TIMEOUT = 600  # seconds; a first build in Rust compiles a hundred packages

Command = list[str]


class Unavailable(Exception):
    """The toolchain, or what it has to download, is missing."""


def command(language: str) -> Command:
    """How the producer is called. Raises `Unavailable`, and AssertionError if it does not compile."""
    return _LANGUAGES[language](SOURCES / language)


def _javascript(sources: Path) -> Command:
    def build(directory: Path) -> None:
        _download([_tool("npm"), "ci", "--no-audit", "--no-fund", "--silent"], directory)

    return [_tool("node"), str(_built(sources, build) / "producer.js")]


def _go(sources: Path) -> Command:
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if go is None:
        raise Unavailable("no go")

    def build(directory: Path) -> None:
        _download([go, "mod", "download"], directory)
        _compile([go, "build", "-o", "producer", "."], directory)

    return [str(_built(sources, build) / "producer")]


def _java(sources: Path) -> Command:
    java, javac, maven = _tool("java"), _tool("javac"), _tool("mvn")

    def build(directory: Path) -> None:
        goal = ["dependency:copy-dependencies", "-DoutputDirectory=lib"]
        _download([maven, "--quiet", "--batch-mode", *goal], directory)
        files = map(str, directory.glob("src/main/java/producer/*.java"))
        _compile([javac, "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", *files], directory)

    directory = _built(sources, build)
    return [java, "-cp", f"{directory}/classes:{directory}/lib/*", "producer.Producer"]


def _rust(sources: Path) -> Command:
    cargo = shutil.which("cargo", path=f"{os.environ['PATH']}:{Path.home() / '.cargo' / 'bin'}")
    if cargo is None:
        raise Unavailable("no cargo")

    def build(directory: Path) -> None:
        _download([cargo, "fetch", "--quiet"], directory)
        _compile([cargo, "build", "--offline", "--quiet"], directory, timeout=COMPILE_TIMEOUT)

    return [str(_built(sources, build) / "target" / "debug" / "producer")]


def _shell(sources: Path) -> Command:
    _tool("jq")
    return [_tool("bash"), str(sources / "producer.sh")]


_LANGUAGES: dict[str, Callable[[Path], Command]] = {
    "javascript": _javascript,
    "go": _go,
    "java": _java,
    "rust": _rust,
    "shell": _shell,
}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"no {name}")
    return found


def _built(sources: Path, build: Callable[[Path], None]) -> Path:
    files = sorted(file for file in sources.rglob("*") if file.is_file())
    digest = hashlib.sha256(b"".join(str(file).encode() + file.read_bytes() for file in files)).hexdigest()
    directory = CACHE / sources.name
    stamp = directory / "built"
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(sources, directory)
        build(directory)
        stamp.write_text(digest)
    return directory


def _download(line: Command, directory: Path) -> None:
    try:
        _run(line, directory)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"")[-500:]
        raise Unavailable(f"`{' '.join(line)}` failed: {said!r}") from error


def _compile(line: Command, directory: Path, *, timeout: float = BUILD_TIMEOUT) -> None:
    try:
        _run(line, directory, timeout=timeout)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stderr.decode()) from None


def _run(line: Command, directory: Path, *, timeout: float = BUILD_TIMEOUT) -> None:
    subprocess.run(line, cwd=directory, check=True, capture_output=True, timeout=timeout)
