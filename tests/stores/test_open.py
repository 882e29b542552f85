import builtins
import subprocess
import sys

import pytest

from atto.protocol.errors import MissingExtra, StoreUnavailable, UnknownStore
from atto.protocol.sessions import Snapshot
from atto.stores.base import SessionStore
from atto.stores.memory import MemoryStore
from atto.stores.open import open_store
from atto.stores.sqlite import SqliteStore
from atto.testing.store_samples import commit


async def holds_a_session(store):
    assert isinstance(store, SessionStore)
    saved = await store.save(Snapshot(session="s"), commit("run-1"))
    return await store.load("s") == saved


async def test_memory():
    async with open_store("memory:") as store:
        assert isinstance(store, MemoryStore)
        assert await holds_a_session(store)


async def test_sqlite_with_three_slashes_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    async with open_store("sqlite:///data/my%20 sessions.db") as store:
        assert isinstance(store, SqliteStore)
        assert await holds_a_session(store)
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["my%20 sessions.db"]
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.load("s")


async def test_sqlite_with_four_slashes_is_absolute(tmp_path):
    async with open_store(f"sqlite:///{tmp_path}/sessions.db") as store:
        assert await holds_a_session(store)
    assert (tmp_path / "sessions.db").exists()


async def test_nats_kv_declares_its_bucket(jetstream, namespace):
    for _ in range(2):
        async with open_store("nats-kv", jetstream=jetstream, namespace=namespace) as store:
            await store.delete("s")
            assert await holds_a_session(store)


async def test_nats_kv_needs_a_broker():
    with pytest.raises(UnknownStore, match="lies in the broker: pass a `jetstream`"):
        async with open_store("nats-kv"):
            pass


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
async def test_postgres_without_asyncpg_names_the_extra(monkeypatch, scheme):
    real = builtins.__import__

    def without_asyncpg(name, *args, **options):
        if name.partition(".")[0] == "asyncpg":
            raise ModuleNotFoundError("No module named 'asyncpg'", name="asyncpg")
        return real(name, *args, **options)

    for module in [name for name in sys.modules if name.startswith(("asyncpg", "atto.stores.postgres"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without_asyncpg)
    with pytest.raises(MissingExtra, match=r"pip install 'atto-agents\[postgres\]'") as caught:
        async with open_store(f"{scheme}://ann:hunter2@localhost/sessions"):
            pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory://",
        "sqlite:",
        "sqlite://sessions.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sessions.db",
        "nats://ann:hunter2@localhost",
        "mysql://ann:hunter2@localhost/sessions",
        "postgres:ann:hunter2@localhost",
        "postgresql+asyncpg://ann:hunter2@localhost/sessions",
        "Postgres//ann:hunter2@localhost",
        "//ann:hunter2@localhost",
        "hunter2@localhost",
    ],
)
async def test_any_other_url_is_refused_with_the_forms_and_without_its_password(url):
    with pytest.raises(UnknownStore) as caught:
        async with open_store(url):
            pass
    message = str(caught.value)
    assert "hunter2" not in message
    for form in ("memory:", "sqlite:///relative.db", "sqlite:////absolute.db", "nats-kv", "postgres://"):
        assert form in message


async def test_a_scheme_is_named():
    with pytest.raises(UnknownStore, match=r"no store for a URL with the scheme 'redis' in this form"):
        async with open_store("redis://localhost"):
            pass


async def test_what_is_raised_within_is_raised_and_the_store_is_closed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        async with open_store(f"sqlite:///{tmp_path}/sessions.db") as store:
            raise ZeroDivisionError
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.load("s")


def test_what_is_not_used_is_not_loaded():
    program = "import sys, atto.stores.open; sys.exit(bool({'nats', 'asyncpg'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
