"""What `atto doctor` looks at. Nothing is changed by it, but that a Postgres store makes its tables."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import msgspec

from atto.broker.jetstream import JetStream
from atto.broker.refusals import STREAM_NOT_FOUND
from atto.protocol.errors import AttoError, BrokerRefused, BrokerUnavailable, UnknownStore
from atto.protocol.subjects import Subjects
from atto.stores import NatsKvStore, SessionStore, open_store
from atto_workers.census import Census
from atto_workers.cli import probes
from atto_workers.cli.exits import BROKER, FAILED, NAMESPACE, STORE, USAGE
from atto_workers.cli.options import Broker
from atto_workers.topology import BACKLOG, MINIMUM_SERVER, PARTITIONS_KEY

Status = Literal["ok", "warning", "failure"]

CLOCK_SKEW = 1.0
"""Seconds by which clocks may differ: `expires` of a turn is compared with the worker's clock."""
SMALL_PAYLOAD = 1 << 20
"""Bytes: nats-server's default, and what sizes of turns and states are documented for."""
FULL = 0.8
"""The part of a storage limit from which on it is worth a warning."""

PATIENCE = 2.0
"""Seconds for an answer; what is not permitted is not answered."""

_SQLITE = "sqlite:///"
_PROBED = "atto-readiness"  # a session that need not be there


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was looked at. `mend` says what to do about it, `code` is the exit code of a failure."""

    check: str
    status: Status
    detail: str
    mend: str = ""
    code: int = 0


class _State(msgspec.Struct, frozen=True):
    messages: int = 0


class _Stream(msgspec.Struct):
    config: dict[str, Any]
    state: _State
    ts: datetime | None = None


class _Limits(msgspec.Struct, frozen=True):
    max_storage: int = -1
    max_streams: int = -1
    max_consumers: int = -1


class _Account(msgspec.Struct, frozen=True):
    storage: int = 0
    streams: int = 0
    consumers: int = 0
    limits: _Limits = _Limits()


async def examine(broker: Broker, store: str, role: probes.Role) -> AsyncGenerator[Finding]:
    """The findings, as they are made; later ones are left out where an earlier failure makes them moot."""
    violations: list[str] = []

    async def noticed(error: Exception) -> None:
        violations.append(str(error))

    async with AsyncExitStack() as stack:
        try:
            jetstream = await stack.enter_async_context(broker.jetstream(error_cb=noticed))
        except (BrokerUnavailable, OSError) as error:
            mend = "start a nats-server there, or name another with --nats; check --creds, --user, --tls-ca"
            yield _failure("broker", str(error), mend, BROKER)
            return
        yield await _of_server(jetstream)
        subjects = Subjects(broker.namespace)
        if role == "client":
            yield await _of_permissions(jetstream, subjects, role, violations)
            return
        for finding in await _of_jetstream(jetstream):
            yield finding
            if finding.status == "failure":
                return
        streams = await _streams(jetstream, subjects)
        for finding in _of_namespace(jetstream, subjects, streams):
            yield finding
        yield _of_clock(streams)
        yield await _of_permissions(jetstream, subjects, role, violations)
        yield await _of_store(store, jetstream, broker.namespace)
        if subjects.turns_stream in streams:
            yield await _of_workers(jetstream, subjects)


async def _of_server(jetstream: JetStream) -> Finding:
    version = jetstream.connection.connected_server_version
    name = f"nats-server {version.major}.{version.minor}.{version.patch}"
    if (version.major, version.minor) < MINIMUM_SERVER:
        wanted = ".".join(map(str, MINIMUM_SERVER))
        return _failure("broker", f"{name} is too old", f"install {wanted} or newer", BROKER)
    began = perf_counter()
    await jetstream.connection.flush()
    return _ok("broker", f"{name}, {(perf_counter() - began) * 1000:.1f} ms away")


async def _of_jetstream(jetstream: JetStream) -> list[Finding]:
    try:
        account = msgspec.json.decode(await jetstream.api("INFO", timeout=PATIENCE), type=_Account)
    except (BrokerUnavailable, BrokerRefused) as error:
        mend = (
            "start nats-server with -js, enable JetStream for the account, permit $JS.API.INFO, or give the "
        )
        mend += "--inbox-prefix that the user has"
        return [_failure("jetstream", f"does not answer: {error}", mend, BROKER)]
    counted = _ok("jetstream", f"{account.streams} streams, {account.consumers} consumers")
    return [counted, _of_limits(account, jetstream.connection.max_payload)]


def _of_limits(account: _Account, payload: int) -> Finding:
    limits = account.limits
    if payload < SMALL_PAYLOAD:
        detail, mend = f"max_payload is {payload} bytes", "set max_payload to 1MB or more"
    elif 0 <= limits.max_storage * FULL <= account.storage:
        detail = f"{account.storage} of {limits.max_storage} bytes of storage are taken"
        mend = "raise max_file_store, or drop dead letters and old sessions"
    elif 0 <= limits.max_streams < len(_names(Subjects())) or 0 <= limits.max_consumers <= account.consumers:
        detail = f"{limits.max_streams} streams and {limits.max_consumers} consumers are allowed"
        mend = "a namespace needs 6 streams, and two consumers for each of its partitions"
    else:
        storage = "unlimited" if limits.max_storage < 0 else f"of {limits.max_storage} bytes"
        return _ok("limits", f"storage {storage}, messages up to {payload} bytes")
    return Finding(check="limits", status="warning", detail=detail, mend=mend)


def _names(subjects: Subjects) -> list[str]:
    """The streams without which no turn is run; the bucket of the sessions is the store's matter."""
    streams = [subjects.turns_stream, subjects.events_stream, subjects.cancels_stream, subjects.dead_stream]
    return [*streams, f"KV_{subjects.members_bucket}"]


async def _streams(jetstream: JetStream, subjects: Subjects) -> dict[str, _Stream]:
    found: dict[str, _Stream] = {}
    for name in (*_names(subjects), f"KV_{subjects.sessions_bucket}"):
        try:
            found[name] = msgspec.json.decode(
                await jetstream.api(f"STREAM.INFO.{name}", timeout=PATIENCE), type=_Stream
            )
        except BrokerRefused as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
        except BrokerUnavailable:
            break  # not permitted, most likely: the permissions are looked at next
    return found


def _of_namespace(jetstream: JetStream, subjects: Subjects, streams: dict[str, _Stream]) -> list[Finding]:
    missing = [name for name in _names(subjects) if name not in streams]
    name = f"namespace {subjects.namespace!r}"
    if missing:
        mend = "start a worker, which declares it, or as an admin: atto declare"
        return [_failure("namespace", f"{name} lacks {', '.join(missing)}", mend, NAMESPACE)]
    turns = streams[subjects.turns_stream].config
    partitions = turns.get("metadata", {}).get(PARTITIONS_KEY)
    if partitions is None:
        return [_failure("namespace", f"{name} is another program's", "use another --namespace", NAMESPACE)]
    if not turns.get("discard_new_per_subject") or turns.get("discard") != "new":
        mend = "set discard=new and discard_new_per_subject=true again: a full session loses accepted turns"
        return [_failure("namespace", f"{subjects.turns_stream} was changed", mend, NAMESPACE)]
    replicas, backlog = turns.get("num_replicas", 1), turns.get("max_msgs_per_subject", BACKLOG)
    findings = [_ok("namespace", f"{partitions} partitions, backlog {backlog}, replicas {replicas}")]
    single = [name for name, stream in streams.items() if stream.config.get("num_replicas", 1) == 1]
    if single and probes.is_clustered(jetstream):
        detail, mend = f"one copy in a cluster of: {', '.join(single)}", "atto declare --replicas 3"
        findings.append(Finding(check="replicas", status="warning", detail=detail, mend=mend))
    if dead := streams[subjects.dead_stream].state.messages:
        findings.append(
            Finding(check="dlq", status="warning", detail=f"{dead} dead letters", mend="atto dlq ls")
        )
    return findings


def _of_clock(streams: dict[str, _Stream]) -> Finding:
    """Compared with the last answer, of a moment ago."""
    times = [stream.ts for stream in streams.values() if stream.ts is not None]
    if not times:
        return Finding(check="clock", status="warning", detail="not compared: no stream to ask")
    skew = (datetime.now(UTC) - max(times)).total_seconds()
    if abs(skew) <= CLOCK_SKEW:
        return _ok("clock", f"as the broker's, within {CLOCK_SKEW:g} s")
    detail = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the broker's"
    return Finding(check="clock", status="warning", detail=detail, mend="run NTP on both: turns expire by it")


async def _of_permissions(
    jetstream: JetStream, subjects: Subjects, role: probes.Role, violations: list[str]
) -> Finding:
    await probes.try_all(jetstream.connection, subjects, role)
    refused = sorted({found for text in violations if (found := _refused(text)) is not None})
    if not refused:
        return _ok("permissions", f"all that a {role} needs")
    mend = "compare with deploy/nats/permissions.conf; is --inbox-prefix the user's?"
    return _failure("permissions", f"refused: {', '.join(refused)}", mend, BROKER)


def _refused(text: str) -> str | None:
    match = re.search(r"permissions violation for (\w+) to \"([^\"]+)\"", text, re.IGNORECASE)
    return None if match is None else f"{match[1].lower()} {match[2]}"


async def _of_store(url: str, jetstream: JetStream, namespace: str) -> Finding:
    path = Path(url.removeprefix(_SQLITE))
    if url.startswith(_SQLITE) and not await asyncio.to_thread(path.exists):
        if not await asyncio.to_thread(path.parent.is_dir):
            detail, mend = f"there is no directory for {path}", "make it, or name another file with --store"
            return _failure("store", detail, mend, STORE)
        return _ok("store", f"{path} is not there yet: a worker creates it")
    if url == "memory:":
        detail, mend = "memory: is gone with the process", "use nats-kv, or postgres://…"
        return Finding(check="store", status="warning", detail=detail, mend=mend)
    began = perf_counter()
    try:
        async with AsyncExitStack() as stack:
            store: SessionStore
            if url == "nats-kv":
                store = NatsKvStore(jetstream, namespace)
            else:
                store = await stack.enter_async_context(open_store(url))
            await store.load(_PROBED)
    except AttoError as error:
        if isinstance(error.__cause__, BrokerRefused) and error.__cause__.err_code == STREAM_NOT_FOUND:
            return _ok("store", "the bucket is not there yet: a worker creates it")
        code = USAGE if isinstance(error, UnknownStore) else STORE
        return _failure("store", str(error), "check --store, and that it can be reached from here", code)
    return _ok("store", f"answers in {(perf_counter() - began) * 1000:.1f} ms")


async def _of_workers(jetstream: JetStream, subjects: Subjects) -> Finding:
    census = Census(jetstream, subjects)
    try:
        async with asyncio.timeout(PATIENCE):
            workers, partitions = await census.workers(), await census.partitions()
    except (TimeoutError, BrokerUnavailable, BrokerRefused):
        return _warning("workers", "cannot be looked at by this user", "look as an admin: atto workers")
    unowned = sum(view.worker is None for view in partitions)
    unwell = [view.worker for view in workers if view.status in {"silent", "dead"}]
    counted = f"{len(workers)} workers, {sum(view.lag for view in partitions)} turns wait"
    if not workers:
        return _warning("workers", f"none; {counted}", "atto worker app:agent")
    if unwell:
        return _warning(
            "workers", f"{counted}; without an answer: {', '.join(unwell)}", "atto workers --watch"
        )
    if unowned:
        return _warning(
            "workers", f"{counted}; {unowned} partitions have no owner", "atto partitions --watch"
        )
    return _ok("workers", counted)


def _ok(check: str, detail: str) -> Finding:
    return Finding(check=check, status="ok", detail=detail)


def _warning(check: str, detail: str, mend: str) -> Finding:
    return Finding(check=check, status="warning", detail=detail, mend=mend)


def _failure(check: str, detail: str, mend: str, code: int = FAILED) -> Finding:
    return Finding(check=check, status="failure", detail=detail, mend=mend, code=code)
