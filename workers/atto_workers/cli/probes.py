"""Tries what a role must be allowed to do, in ways that have no effect; the server tells what it refuses."""

from typing import Any, Literal

from nats.aio.client import Client as Connection

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects

Role = Literal["worker", "client"]

_NAME = "atto-doctor"
# A stream whose last sequence would have to be this one refuses the message.
_REFUSED = {"Nats-Expected-Last-Sequence": str(1 << 62)}


async def try_all(connection: Connection, subjects: Subjects, role: Role) -> None:
    """Returns when the server has seen everything; what it refused went to the connection's `error_cb`."""
    subscriptions: list[Any] = [
        await connection.subscribe(subject) for subject in _subscribed(subjects, role)
    ]
    inbox = connection.new_inbox()
    subscriptions.append(await connection.subscribe(inbox))
    for subject in _stored(subjects, role):
        await connection.publish(subject, b"", reply=inbox, headers=_REFUSED)
    for subject in _asked(subjects, role):
        await connection.publish(subject, b"", reply=inbox)
    await connection.flush()
    for subscription in subscriptions:
        await subscription.unsubscribe()
    await connection.flush()  # whose answer comes after the last error was dealt with


def is_clustered(jetstream: JetStream) -> bool:
    """Whether the server has others beside it."""
    return len(jetstream.connection.servers) > 1 or bool(jetstream.connection.discovered_servers)


def _subscribed(subjects: Subjects, role: Role) -> list[str]:
    if role == "client":
        return [subjects.event(_NAME, _NAME)]
    return [subjects.worker(_NAME), subjects.roll_call, subjects.snapshots, subjects.cancels]


def _stored(subjects: Subjects, role: Role) -> list[str]:
    """Subjects that streams take."""
    if role == "client":
        return [subjects.turn(_NAME), subjects.cancel(_NAME, _NAME)]
    return [
        subjects.event(_NAME, _NAME),
        subjects.fence_of(_NAME, _NAME),
        subjects.dead(_NAME),
        f"$KV.{subjects.members_bucket}.{_NAME}",
    ]


def _asked(subjects: Subjects, role: Role) -> list[str]:
    """Requests; without a body, or about what is not there, they are answered with errors."""
    events, turns, cancels = subjects.events_stream, subjects.turns_stream, subjects.cancels_stream
    if role == "client":
        return [subjects.snapshot(_NAME), f"$JS.API.DIRECT.GET.{events}"]
    members = f"KV_{subjects.members_bucket}"
    return [
        subjects.worker(_NAME),
        f"$JS.ACK.{turns}.{_NAME}",
        "$JS.API.INFO",
        *(f"$JS.API.STREAM.INFO.{name}" for name in (turns, events, cancels, subjects.dead_stream, members)),
        f"$JS.API.CONSUMER.NAMES.{turns}",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{turns}.{_NAME}",
        f"$JS.API.CONSUMER.DELETE.{turns}.{_NAME}",
        f"$JS.API.CONSUMER.MSG.NEXT.{turns}.{_NAME}",
        *(f"$JS.API.STREAM.MSG.GET.{name}" for name in (events, cancels)),
        *(f"$JS.API.DIRECT.GET.{name}" for name in (events, members)),
    ]
