"""The Dockerfile, read as text: what a build of it cannot get wrong any more."""

import re
from fnmatch import fnmatch

import pytest

from tests.deploy.files import APP, DEPLOY, ROOT, worker_variables

TEXT = (DEPLOY / "Dockerfile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n", " ", re.sub(r"^ *#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    if line.strip()
]
STAGES = [number for number, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM"]
FINAL = INSTRUCTIONS[STAGES[-1] :]
IGNORED = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()


def of(word: str) -> list[str]:
    """The arguments of the final stage's instructions of that name."""
    return [rest for found, rest in FINAL if found == word]


def test_the_final_stage_takes_what_another_one_built():
    assert len(STAGES) == 2
    assert of("RUN") == [], "what is installed is installed by the stage before"
    assert any(copy.startswith("--from=build ") for copy in of("COPY"))


def test_it_is_not_root_by_number():
    [user] = of("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    words = [word for word, _ in FINAL]
    assert words.index("USER") > max(at for at, word in enumerate(words) if word == "COPY")
    assert not any("--chown" in copy for copy in of("COPY")), "what runs must not be able to change itself"


def test_the_health_check_asks_where_the_worker_answers():
    [check] = of("HEALTHCHECK")
    assert (APP / re.findall(r"/app/(\w+\.py)", check)[0]).is_file()
    environment = dict(re.findall(r"(ATTO_\w+)=(\S+)", " ".join(of("ENV"))))
    assert environment.keys() <= worker_variables()
    assert environment["ATTO_HEALTH_PORT"] == of("EXPOSE")[0]
    assert environment["ATTO_HEALTH_HOST"] == "0.0.0.0"  # noqa: S104 - of the container


def test_signals_reach_the_worker_itself():
    assert of("ENTRYPOINT") == ['["atto"]']
    assert of("CMD") == ['["worker", "app:agent"]']


def test_dependencies_come_by_hash_and_the_tree_without_asking_anybody():
    runs = " ".join(rest for word, rest in INSTRUCTIONS if word == "RUN")
    for command in re.findall(r"pip [^&]*", runs):
        if re.search(r"\b(install|wheel)\b", command):
            assert "--require-hashes" in command or "--no-index" in command, command
    for lock in ("requirements.lock", "build.lock"):
        text = (DEPLOY / lock).read_text()
        pins = re.findall(r"^(\S+)==", text, re.MULTILINE)
        assert pins
        assert len(re.findall(r"^\S+==.*\\\n +--hash=", text, re.MULTILINE)) == len(pins)


def test_the_locks_agree_with_that_of_development():
    """The image holds what the tests ran with."""
    pinned = dict(pins(ROOT / "requirements" / "dev.lock"))
    assert {
        name: version for name, version in pins(DEPLOY / "requirements.lock") if pinned[name] != version
    } == {}


def pins(path):
    return re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)


def test_no_secret_is_an_argument_or_a_file():
    for word, rest in INSTRUCTIONS:
        if word in {"ARG", "ENV"}:
            assert not re.search(r"(?i)password|secret|token|api_?key", rest)
    assert "id=pip" in TEXT, "an index may need a password: it is mounted while it is needed"


@pytest.mark.parametrize(
    "source", [".env", ".git/config", "deploy/.env", "deploy/nats/users.conf", ".venv/x", "tests/x"]
)
def test_what_does_not_belong_there_cannot_be_copied(source: str):
    assert is_ignored(source)


@pytest.mark.parametrize(
    "source",
    sorted(
        {
            path
            for word, rest in INSTRUCTIONS
            if word == "COPY" and not rest.startswith("--from")
            for path in rest.split()[:-1]
        }
    ),
)
def test_what_is_copied_is_there_and_not_ignored(source: str):
    assert (ROOT / source).exists()
    assert not is_ignored(source)


def is_ignored(path: str) -> bool:
    """The last pattern that matches decides."""
    ignored = False
    for pattern in filter(None, (line.partition("#")[0].strip() for line in IGNORED)):
        bare = pattern.removeprefix("!")
        if fnmatch(path, bare.replace("**/", "")) or fnmatch(path, f"{bare}/*") or path == bare:
            ignored = not pattern.startswith("!")
    return ignored
