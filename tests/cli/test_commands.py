"""A worker, turns and sessions by the command line, against the real broker."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from atto_client import Client
from atto_workers import Worker
from tests.cli.commands import atto, background, called, free_port, probe
from tests.integration.conftest import client, worker  # noqa: F401 - fixtures


async def test_a_worker_serves_and_drains_and_says_nothing_of_prompts(here: Path, env: dict[str, str]):
    (here / "atto.toml").write_text('namespace = "from-toml"\nlog-format = "json"\n')
    port = free_port()
    flags = ("--log-level", "debug", "--health-port", str(port), "--user", "u")
    env |= {"ATTO_PASSWORD": "PASSWORD-CANARY"}
    async with background("worker", "app:agent", *flags, cwd=here, **env) as serving:
        await serving.until("owns")
        assert (await probe(port, "/healthz"))[0] == 200
        assert (await probe(port, "/readyz"))[0] == 200

        code, out, err = await atto("run", "ann", "PROMPT-CANARY", "--json", cwd=here, **env)
        assert code == 0, err
        assert [json.loads(line)["type"] for line in out.splitlines()][-1] == "run_completed"
        code, out, _ = await called("run", "ann", "hi", cwd=here, **env)
        assert (code, out) == (0, "ANSWER-CANARY\n")

        code, out, err = await atto("sessions", "ls", "--json", cwd=here, **env)
        assert json.loads(out) == {"session": "ann"}, err
        code, out, err = await called("sessions", "show", "ann", "--json", cwd=here, **env)
        assert json.loads(out)["session"] == "ann", err
        serving.process.send_signal(signal.SIGTERM)
        assert await serving.ended() == 0
    assert "CANARY" not in "".join(serving.lines)
    assert all(json.loads(line)["event"] for line in serving.lines)


async def test_sessions_are_exported_and_imported(
    worker: Callable[..., Worker],  # noqa: F811
    client: Client,  # noqa: F811
    here: Path,
    env: dict[str, str],
):
    async with worker("Hello."):
        for session in ("ann", "bob@x"):
            await client.run(session, "hi").result()
    _, out, err = await atto("sessions", "export", "ann", cwd=here, **env)
    (here / "ann.jsonl").write_text(out)
    assert (await called("sessions", "import", "ann.jsonl", "--name", "eve", cwd=here, **env))[0] == 0, err
    _, again, _ = await called("sessions", "export", "eve", cwd=here, **env)
    assert again.splitlines()[1:] == out.splitlines()[1:]
    assert (await called("sessions", "rm", "eve", cwd=here, **env))[0] == 0
    assert (await called("sessions", "rm", "eve", cwd=here, **env))[0] == 5

    code, out, err = await called("sessions", "export", "--all-to", "kept", "--json", cwd=here, **env)
    assert (code, json.loads(out)) == (0, {"exported": 2}), err
    assert sorted(file.name for file in (here / "kept").iterdir()) == ["ann.jsonl", "bob=40x.jsonl"]
    store = ("--store", "sqlite:///copy.db")
    code, out, err = await called("sessions", "import", "kept", *store, cwd=here, **env)
    assert (code, out.split()) == (0, ["ann", "bob@x"]), err
    code, _, err = await called("sessions", "import", "kept", *store, cwd=here, **env)
    assert (code, "'ann'" in err) == (5, True)


async def test_what_cannot_be_imported_is_named(here: Path):
    code, _, err = await called("sessions", "import", "app.py", "--store", "sqlite:///x.db", cwd=here)
    assert (code, "app.py: line " in err) == (5, True), err


async def test_looking_makes_no_file(tmp_path: Path):
    code, _, err = await called("sessions", "ls", "--store", "sqlite:///slip.db", cwd=tmp_path)
    assert (code, "slip.db" in err, list(tmp_path.iterdir())) == (5, True, [])


@pytest.mark.parametrize("flags", [(), ("ann", "--all-to", "x")])
async def test_what_to_export_is_said_once(flags: tuple[str, ...], tmp_path: Path):
    assert (await called("sessions", "export", *flags, cwd=tmp_path))[0] == 2


@pytest.mark.parametrize(("arguments", "code"), [(("--help",), 0), (("nonsense",), 2), (("--version",), 0)])
async def test_exit_codes(arguments: tuple[str, ...], code: int, tmp_path: Path):
    assert (await called(*arguments, cwd=tmp_path))[0] == code


async def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path):
    async def store_error(*flags: str, **environment: str) -> str:
        return (await called("sessions", "ls", *flags, cwd=tmp_path, **environment))[2]

    (tmp_path / "atto.toml").write_text('store = "toml://x"\n')
    assert "'toml'" in await store_error()
    assert "'env'" in await store_error(ATTO_STORE="env://x")
    assert "'flag'" in await store_error("--store", "flag://x", ATTO_STORE="env://x")


async def test_bash_completes_commands_and_options(tmp_path: Path):
    _, script, _ = await atto("completion", "bash", cwd=tmp_path)
    (tmp_path / "completion").write_text(script)
    (tmp_path / "try").write_text(
        "source ./completion; function=$(complete -p atto | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}\n'
        'COMPREPLY=(); $function atto "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"; }\n'
        "try atto sess; try atto sessions ex; try atto worker --conc\n"
    )
    bash = await asyncio.create_subprocess_exec(
        "bash", "try", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await bash.communicate()
    assert out.decode().split() == ["sessions", "export", "--concurrency"], err.decode()


async def test_help_is_quick(tmp_path: Path):
    """Counted in modules, not in seconds: what is slow to load is loaded when it is used."""
    script = "import sys; from atto_workers.cli.app import app; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    modules = (await process.communicate())[0].decode().split()
    assert not {"structlog", "prompt_toolkit", "watchfiles", "asyncpg", "openai"} & set(modules)
