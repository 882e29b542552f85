"""What a command says when it fails, and how it ends."""

import json
import socket
import sys
from pathlib import Path
from typing import Literal

import pytest

from atto.protocol.errors import BrokerUnavailable, NoSuchSession, TopologyMissing
from atto_workers.cli.app import run
from atto_workers.cli.exits import BROKER, FAILED, NAMESPACE, STORE, Unusable, cause, exit_code
from atto_workers.cli.failures import report
from atto_workers.cli.loading import load_agent
from atto_workers.cli.options import Output
from tests.cli.commands import atto, called

BROKEN = {
    "syntax": "def (",
    "imported": "import nowhere",
    "raises": "raise RuntimeError('first line\\nsecond line')",
    "exits": "import sys; sys.exit(7)",
    "empty": "",
    "other": "agent = 1",
}


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; modules and settings of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path


@pytest.mark.parametrize("name", BROKEN)
def test_whatever_prevents_an_agent_from_being_loaded_is_told_in_one_line(
    name: str, cwd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (cwd / f"{name}.py").write_text(BROKEN[name])
    with pytest.raises(Unusable, match=f"'{name}:agent'") as caught:
        load_agent(f"{name}:agent")
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert report(caught.value, Output()) == 2
    assert capsys.readouterr().err.count("\n") == 1


async def test_an_agent_that_cannot_be_loaded_is_code_2_and_debug_shows_why(tmp_path: Path):
    (tmp_path / "raises.py").write_text("def fail():\n    raise RuntimeError('mine')\nfail()\n")
    code, out, err = await atto("worker", "raises:agent", cwd=tmp_path)
    assert (code, out, err) == (2, "", "atto: cannot load 'raises:agent': RuntimeError: mine\n")
    code, _, err = await atto("worker", "raises:agent", cwd=tmp_path, ATTO_DEBUG="1")
    assert code == 2
    assert 'raises.py", line 2, in fail' in err


@pytest.mark.parametrize("given", ["flag", "environment", "file"])
@pytest.mark.parametrize("arguments", [("dev", "no-agent"), ("nonsense",)])
def test_an_error_is_one_json_object(
    given: str,
    arguments: tuple[str, ...],
    cwd: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    if given == "file":
        (cwd / "atto.toml").write_text("json = true\n")
    if given == "environment":
        monkeypatch.setenv("ATTO_JSON", "1")
    code = run([*arguments, *(["--json"] if given == "flag" else [])])
    assert (code, json.loads(capsys.readouterr().err)["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"json = \n", "own.toml is no TOML: "),
        (b"\xff", "own.toml is no TOML: "),
        (None, "own.toml: No such file"),
        ("directory", "own.toml: Is a directory"),
    ],
)
async def test_settings_that_cannot_be_read_are_told(
    content: bytes | Literal["directory"] | None, said: str, tmp_path: Path
):
    if content == "directory":
        (tmp_path / "own.toml").mkdir()
    elif content is not None:
        (tmp_path / "own.toml").write_bytes(content)
    code, out, err = await called("sessions", "ls", "--json", cwd=tmp_path, ATTO_CONFIG="own.toml")
    assert (code, out, json.loads(err)["error"]["code"]) == (2, "", "usage")
    assert json.loads(err)["error"]["message"].startswith(said)
    assert (await called("sessions", "ls", "--help", cwd=tmp_path, ATTO_CONFIG="own.toml")).code == 0


async def test_an_empty_name_of_a_file_is_none(tmp_path: Path, env: dict[str, str]):
    code, _, err = await called("partitions", cwd=tmp_path, ATTO_CONFIG="", **env)
    assert (code, "never declared" in err) == (4, True), err


async def test_no_broker_is_code_3_and_one_line(tmp_path: Path):
    nowhere = ("--nats", "nats://127.0.0.1:1", "--connect-timeout", "0.3")
    code, _, err = await atto("run", "ann", "hi", *nowhere, cwd=tmp_path)
    assert (code, err.count("\n")) == (3, 1)


async def test_a_namespace_that_was_never_declared_is_code_4(tmp_path: Path, env: dict[str, str]):
    code, _, err = await called("partitions", cwd=tmp_path, **env)
    assert (code, err.count("\n")) == (4, 1)


def test_of_a_group_of_errors_the_one_with_a_code_counts():
    group = ExceptionGroup("", [RuntimeError(), ExceptionGroup("", [TopologyMissing("x")])])
    assert exit_code(cause(group)) == NAMESPACE
    assert isinstance(cause(ExceptionGroup("", [KeyError(), RuntimeError()])), KeyError)
    codes = [exit_code(error) for error in (BrokerUnavailable(), NoSuchSession(), RuntimeError())]
    assert codes == [BROKER, STORE, FAILED]


@pytest.mark.parametrize("option", ["--creds", "--nkey", "--tls-ca", "--tls-cert"])
async def test_a_file_that_is_not_there_is_named_with_its_option(option: str, tmp_path: Path):
    code, _, err = await called("run", "ann", "hi", option, "nowhere.pem", cwd=tmp_path)
    assert (code, err) == (2, f"atto: {option} nowhere.pem: No such file or directory\n")


async def test_a_certificate_that_is_none_is_named(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("no certificate")
    code, _, err = await called("run", "ann", "hi", "--tls-ca", "ca.pem", cwd=tmp_path)
    assert (code, "--tls-ca ca.pem" in err) == (2, True), err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--processes", "0"),
        ("--concurrency", "0"),
        ("--grace", "-1"),
        ("--grace", "nan"),
        ("--health-port", "65536"),
        ("--health-port", "-1"),
    ],
)
async def test_a_setting_out_of_its_range_is_code_2(option: str, value: str, tmp_path: Path):
    code, _, err = await called("worker", "app:agent", option, value, cwd=tmp_path)
    assert (code, err.count("\n"), value in err) == (2, 1, True), err


@pytest.mark.parametrize("name", ["app.py:agent", "src/app:agent", "app"])
def test_a_file_is_no_module(name: str):
    with pytest.raises(Unusable, match="as `app:agent` for app"):
        load_agent(name)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('namspace = "x"', "no setting 'namspace': did you mean 'namespace'?"),
        ("zzz = 1", "concurrency, connect-timeout"),
        ("worker = 1", "no setting 'worker'"),
        ("[worker]\nconcurrency = 4", "no section [worker]"),
        ('nats.url = "x"', "no section [nats]"),
    ],
)
@pytest.mark.parametrize("command", [("run", "ann", "hi"), ("sessions", "ls")])
async def test_a_setting_that_nobody_reads_is_told(
    settings: str, said: str, command: tuple[str, ...], tmp_path: Path
):
    (tmp_path / "own.toml").write_text(settings)
    code, _, err = await called(*command, "--json", cwd=tmp_path, ATTO_CONFIG="own.toml")
    assert (code, json.loads(err)["error"]["code"]) == (2, "usage")
    assert "own.toml: there is" in err
    assert said in json.loads(err)["error"]["message"]


async def test_a_setting_of_another_command_is_none_to_complain_of(tmp_path: Path, env: dict[str, str]):
    (tmp_path / "atto.toml").write_text('concurrency = 4\nlog_format = "json"\nrole = "client"\n')
    code, _, err = await called("partitions", cwd=tmp_path, **env)
    assert (code, "never declared" in err) == (4, True), err


async def test_help_is_there_for_who_mends_the_settings(tmp_path: Path):
    (tmp_path / "atto.toml").write_text("zzz = 1")
    assert (await called("worker", "--help", cwd=tmp_path))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("run", "", "hi"), "SESSION"),
        (("run", "ann", ""), "TEXT"),
        (("run", "x" * 129, "hi"), "SESSION"),
        (("run", "\udcff", "hi"), "SESSION"),
        (("run", "ann", "\udcff"), "TEXT"),
        (("run", "ann", "hi", "--namespace", "a b"), "--namespace"),
        (("attach", "ann", ""), "RUN-ID"),
        (("cancel", "", "r"), "SESSION"),
        (("sessions", "show", ""), "SESSION"),
        (("sessions", "export", ""), "SESSION"),
        (("sessions", "import", "x", "--name", ""), "--name"),
        (("sessions", "rm", ""), "SESSION"),
        (("dlq", "ls", "--session", ""), "--session"),
        (("dev", "app:agent", "--session", ""), "--session"),
        (("doctor", "--namespace", "a.b"), "--namespace"),
        (("worker", "app:agent", "--namespace", "a.b"), "--namespace"),
    ],
)
async def test_a_name_that_cannot_be_is_code_2(arguments: tuple[str, ...], where: str, tmp_path: Path):
    code, out, err = await called(*arguments, "--json", cwd=tmp_path)
    assert (code, out, json.loads(err)["error"]["code"]) == (2, "", "usage")
    assert f"for {where}. " in json.loads(err)["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("declare", "--max-turns", "-5"), "at least 0"),
        (("declare", "--events-max-age", "0"), "from 120"),
        (("declare", "--events-max-age", "nan"), "from 120"),
        (("declare", "--events-max-age", "inf"), "from 120"),
        (("declare", "--wait", "-1"), "at least 0"),
        (("declare", "--wait", "nan"), "at least 0"),
        (("workers", "--connect-timeout", "0"), "at least 0.01"),
        (("workers", "--connect-timeout", "nan"), "at least 0.01"),
        (("workers", "--inbox-prefix", ""), "It is a subject"),
        (("workers", "--inbox-prefix", "a b"), "It is a subject"),
        (("workers", "--inbox-prefix", "_INBOX.>"), "It is a subject"),
        (("attach", "ann", "r", "--after", "17"), "'17' is not a position"),
        (("dlq", "show", "0"), "at least 1"),
        (("dlq", "drop", "-5"), "at least 1"),
    ],
)
async def test_a_value_out_of_its_range_is_code_2(
    arguments: tuple[str, ...], said: str, tmp_path: Path, env: dict[str, str]
):
    code, out, err = await called(*arguments, cwd=tmp_path, **env)
    assert (code, out, err.count("\n"), said in err) == (2, "", 1, True), err


async def test_a_health_host_that_is_empty_is_not_taken_for_every_address(tmp_path: Path):
    code, _, err = await called("worker", "app:agent", cwd=tmp_path, ATTO_HEALTH_HOST="")
    assert (code, "the health host is empty" in err) == (2, True), err


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_health_port_that_is_taken_is_named(processes: str, tmp_path: Path):
    (tmp_path / "app.py").write_text(
        "from atto import Agent, ScriptedModel\nagent = Agent('a', ScriptedModel())\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ("--health-port", port, "--processes", processes)
        code, _, err = await atto("worker", "app:agent", *flags, cwd=tmp_path)
    assert (code, err.count("\n"), f"--health-port {port}: " in err) == (1, 1, True), err


async def test_a_file_to_import_that_is_not_there_is_named(tmp_path: Path):
    code, _, err = await called("sessions", "import", "gone.jsonl", cwd=tmp_path)
    assert (code, err) == (2, "atto: gone.jsonl: No such file or directory\n")


async def test_a_file_where_a_directory_is_wanted_is_named(tmp_path: Path):
    (tmp_path / "kept").write_text("mine")
    code, _, err = await called("sessions", "export", "--all-to", "kept", cwd=tmp_path)
    assert (code, err) == (1, "atto: kept: File exists\n")
