"""Whatever callers, models and tools say, a terminal shows it and does not obey it."""

import contextlib
import io
import json
import logging
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import atto_workers
from atto.protocol.errors import StoreUnavailable
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import SqliteStore
from atto_workers.census import PartitionView, WorkerView
from atto_workers.cli import doctor, failures, history, options, sessions, watching
from atto_workers.cli.console import Terminal
from atto_workers.cli.examination import Finding
from atto_workers.cli.transcript import Transcript
from atto_workers.logs import configure_logs
from atto_workers.terminal import quoted, say_json, shown, shown_text
from tests.cli.commands import called
from tests.protocol.strategies import events, ids, messages

# Taken from Unicode, not from the module's own table.
_BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
_SEPARATORS = {"\u2028", "\u2029"}
HOSTILE = [
    "\x1b]0;owned\x07",
    "\x9b2J",
    "a\nvictim",
    "\r\x1b[K",
    "\x7f\x08",
    "\u202egnp",
    "\u2066x",
    "\u2028y",
]

hostile = st.lists(
    st.sampled_from([*HOSTILE, *map(chr, range(32)), *map(chr, range(127, 160)), "ok", "\\", '"'])
)
texts = hostile.map("".join) | st.text(max_size=40)
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def steers(text: str, *, allowed: str = "\n\t") -> list[str]:
    """The characters of a text that a terminal would obey."""
    return [
        each
        for each in text
        if each not in allowed
        and (
            unicodedata.category(each) in {"Cc", "Cs"}
            or unicodedata.bidirectional(each) in _BIDI
            or each in _SEPARATORS
        )
    ]


def _finding(text: str) -> Finding:
    return Finding(check="check", status="failure", detail=text, mend=text)


def printed(work: Callable[[], object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        work()
    return out.getvalue()


@few
@given(texts)
def test_a_line_stays_one_line_and_a_text_keeps_its_lines(text: str):
    assert not steers(shown(text), allowed="")
    assert not steers(shown_text(text))
    assert shown_text(text).count("\n") == text.count("\n")


@few
@given(ids())
def test_an_id_is_one_line_and_can_be_read_back(session: str):
    line = quoted(session)
    assert not steers(line, allowed="")
    assert (json.loads(line) if line.startswith('"') else line) == session


@few
@given(
    st.dictionaries(st.text(max_size=10), texts.filter(lambda text: not re.search("[\ud800-\udfff]", text)))
)
def test_json_means_the_same(value: dict[str, str]):
    line = printed(lambda: say_json(value))
    assert not steers(line.removesuffix("\n"), allowed="")
    assert json.loads(line) == value


@few
@given(events)
def test_events_do_not_steer(event):
    out = io.StringIO()
    Transcript(Terminal(file=out, soft_wrap=True)).show(event)
    assert not steers(out.getvalue())


@few
@given(messages)
def test_histories_do_not_steer(message: Message):
    assert not any(steers(line) for line in history.told(message))


@few
@given(texts, st.booleans())
def test_what_commands_say_does_not_steer(text: str, as_json: bool):
    output = options.Output(as_json=as_json, debug=not as_json)
    error = StoreUnavailable(text)
    for work in (
        lambda: options.note(text),
        lambda: options.heard(text),
        lambda: failures.tell(output, "code", text),
        lambda: doctor._print(Terminal(soft_wrap=True), _finding(text)),
    ):
        said = printed(work)
        assert not steers(said)
    assert not steers(printed(lambda: failures.report(error, output)))
    for work in (lambda: options.note(text), lambda: failures.tell(output, "code", text)):
        assert printed(work).count("\n") == 1


@few
@given(texts)
def test_tables_have_a_line_for_each_row(text: str):
    worker = WorkerView(worker=text, status="member", host=text, pid=1, agent=text)
    partition = PartitionView(partition=1, worker=text)
    for table in (watching._workers_table([worker]), watching._partitions_table([partition])):
        out = io.StringIO()
        Terminal(file=out, width=5_000).print(table)
        assert not steers(out.getvalue())
        assert out.getvalue().count("\n") == 2


@few
@given(texts)
def test_styles_of_ours_are_kept_and_others_are_not(text: str):
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard", soft_wrap=True).print(text, style="red")
    ours = re.sub(r"\x1b\[(31|0)m", "", out.getvalue())
    assert not steers(ours)


@pytest.fixture
def logging_as_it_was():
    root, atto = logging.getLogger(), logging.getLogger("atto")
    before = (root.handlers[:], root.level, atto.level)
    yield
    root.handlers[:], level, atto_level = before
    root.setLevel(level)
    atto.setLevel(atto_level)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.usefixtures("logging_as_it_was")
@few
@given(text=texts)
def test_a_log_line_is_one_line(as_json: bool, text: str):
    def work() -> None:
        configure_logs(as_json=as_json)
        logging.getLogger("atto.worker").error("run %s cannot be run", text)

    line = printed(work)
    assert not steers(line.removesuffix("\n"), allowed="")


@pytest.mark.usefixtures("logging_as_it_was")
def test_a_traceback_for_people_does_not_steer():
    def work() -> None:
        configure_logs(quotes=True)
        logging.getLogger("atto.worker").error("failed", exc_info=ValueError("".join(HOSTILE)))

    said = printed(work)
    assert "owned" in said
    assert not steers(said)


def test_nothing_else_writes_to_a_terminal():
    root = Path(atto_workers.__file__).parent
    ways_out = {"terminal.py", "cli/console.py", "cli/child.py"}  # a child's stdout is a pipe of its parent's
    for file in root.rglob("*.py"):
        name = file.relative_to(root).as_posix()
        if name in ways_out:
            continue
        source = file.read_text()
        assert not re.search(r"(?<![\w.])print\(|print_exception|rich\.console import Console\b", source), (
            name
        )
        for call in re.findall(r"std(?:out|err)\.write\(.*", source):
            assert "shown_json" in call or "generate_completion" in call, (name, call)


NAMES = ["a", "A", "é" * 64, "é" * 63 + "xy", "😀" * 32, "x" * 128, "z\n", "=41", "..", "/etc"]


async def test_every_session_is_exported_and_comes_back(tmp_path: Path):
    names = [name for name in NAMES if len(name.encode()) <= 128]
    source, target = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    async with SqliteStore(f"{tmp_path}/a.db") as store:
        for name in names:
            commit = Commit(run_id="r", messages=(Message.user(name), Message.assistant("yo")))
            await store.save(Snapshot(session=name), commit)
    done = await called("sessions", "export", "--all-to", "out", "--store", source, cwd=tmp_path)
    assert done.code == 0, done.err
    files = list((tmp_path / "out").iterdir())
    assert len(files) == len(names)
    assert len({file.name.lower() for file in files}) == len(names)  # where A is a, too
    assert max(len(file.name) for file in files) <= 240
    done = await called("sessions", "import", "out", "--store", target, cwd=tmp_path)
    assert done.code == 0, done.err
    assert {json.loads(line) if line.startswith('"') else line for line in done.out.splitlines()} == set(
        names
    )
    async with SqliteStore(f"{tmp_path}/b.db") as store:
        for name in names:
            snapshot = await store.load(name)
            assert snapshot is not None
            assert snapshot.messages[0].text == name


@few
@given(st.lists(ids(), unique=True, max_size=20))
def test_no_two_sessions_share_a_file(names: list[str]):
    taken: set[str] = set()
    files = [sessions._file_name(name, taken) for name in names]
    assert len({file.lower() for file in files}) == len(names)
    assert all(len(file) <= 240 and "/" not in file for file in files)


def test_a_password_is_in_no_repr():
    secret = f"{'PASSWORD'}-{'CANARY'}"
    broker = options.Broker(user="u", password=secret)
    assert secret not in repr(broker)
    assert broker.options()["password"] == secret
