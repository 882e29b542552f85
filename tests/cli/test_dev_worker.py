"""The worker behind `atto dev`: replaced while a turn runs, killed, not to be loaded at first."""

import signal
from pathlib import Path

import psutil

from tests.cli.commands import called
from tests.cli.terminal import CTRL_C, CTRL_D, ENTER, Terminal, terminal

STALLING = """
from atto import Agent
from atto.models import ScriptedModel, Stall, TextChunk
agent = Agent("tester", ScriptedModel(lambda request: [TextChunk("HALF-A-WORD "), Stall()]))
"""
ANSWERING = """
from atto import Agent
from atto.models import ScriptedModel
model = ScriptedModel(lambda request: f"you said {request.messages[-1].text}", repeat=True)
agent = Agent("tester", model)
"""


def worker_of(person: Terminal) -> psutil.Process:
    return _child(person, "atto_workers.cli.child")


def broker_of(person: Terminal) -> psutil.Process:
    return _child(person, "--store_dir")


def _child(person: Terminal, argument: str) -> psutil.Process:
    """The one child process that was started with this argument."""
    found = [
        child
        for child in psutil.Process(person.process.pid).children(recursive=True)
        if argument in child.cmdline() and child.name() != "sh"
    ]
    assert len(found) == 1
    return found[0]


async def test_a_turn_that_runs_goes_on_in_the_changed_agent(tmp_path: Path):
    (tmp_path / "app.py").write_text(STALLING)
    async with terminal("dev", "app:agent", cwd=tmp_path) as person:
        await person.until("you>")
        person.type(f"hello{ENTER}")
        await person.until("HALF-A-WORD")
        (tmp_path / "app.py").write_text(ANSWERING)
        await person.until("once more")
        await person.until("you said hello")
        await person.until("you>")
        person.type(CTRL_D)
        assert await person.ended() == 0


async def test_a_worker_that_died_is_started_again(tmp_path: Path):
    (tmp_path / "app.py").write_text(ANSWERING)
    async with terminal("dev", "app:agent", cwd=tmp_path) as person:
        await person.until("you>")
        worker_of(person).kill()
        await person.until("the worker ended with -9")
        person.type(f"hello{ENTER}")
        await person.until("you said hello")
        await person.until("you>")
        process = worker_of(person)
        person.type(CTRL_D)
        assert await person.ended() == 0
        assert not process.is_running()


async def test_a_broker_that_died_is_started_again_with_all_that_it_had(tmp_path: Path):
    (tmp_path / "app.py").write_text(ANSWERING)
    async with terminal("dev", "app:agent", cwd=tmp_path) as person:
        await person.until("nats://")
        address = person.shown.split(" at ")[1].split(",")[0]
        for number in (1, 2, 3):
            await person.until("you>")
            person.type(f"hello{number}{ENTER}")
            await person.until(f"you said hello{number}")
            if number < 3:  # also the one that was started again
                broker_of(person).kill()
                await person.until("the broker has ended: it is started again")
        await person.until("you>")
        done = await called("sessions", "show", "dev", "--nats", address, cwd=tmp_path)
        assert done.out.startswith("version 3, 6 messages"), done
        broker = broker_of(person)
        person.type(CTRL_D)
        assert await person.ended() == 0
        assert not broker.is_running()
        assert "Traceback" not in person.shown


async def test_an_agent_that_cannot_be_loaded_yet_is_waited_for(tmp_path: Path):
    (tmp_path / "app.py").write_text("def (")
    async with terminal("dev", "app:agent", cwd=tmp_path) as person:
        await person.until("SyntaxError")
        await person.until("you>")
        person.type(f"hello{ENTER}")
        await person.until("there is no worker")
        (tmp_path / "app.py").write_text(ANSWERING)
        await person.until("you said hello")
        await person.until("you>")
        person.type(CTRL_D)
        assert await person.ended() == 0


async def test_a_second_ctrl_c_leaves_a_turn_that_nobody_takes(tmp_path: Path):
    (tmp_path / "app.py").write_text("def (")
    async with terminal("dev", "app:agent", cwd=tmp_path) as person:
        await person.until("you>")
        person.type(f"hello{ENTER}")
        await person.until("there is no worker")
        await person.pressed(CTRL_C, "you>")  # the first one asks for a cancellation, which nobody hears
        person.type(f"hello{ENTER}")
        await person.until("there is no worker")
        person.process.send_signal(signal.SIGTERM)  # in the middle of a turn
        assert await person.ended() == 128 + signal.SIGTERM
        assert "Traceback" not in person.shown


async def test_sessions_outlive_the_chat_in_a_data_directory(tmp_path: Path):
    (tmp_path / "app.py").write_text(ANSWERING)
    for number in (1, 2):
        async with terminal(
            "dev", "app:agent", "--data-dir", "data", "--session", "ann", cwd=tmp_path
        ) as person:
            await person.until("nats://")
            await person.until("you>")
            person.type(f"hello{number}{ENTER}")
            await person.until(f"you said hello{number}")
            await person.until("you>")
            address = person.shown.split(" at ")[1].split(",")[0]
            done = await called("sessions", "show", "ann", "--nats", address, cwd=tmp_path)
            assert done.out.startswith(f"version {number}, {2 * number} messages"), done
            person.type(CTRL_D)
            assert await person.ended() == 0
