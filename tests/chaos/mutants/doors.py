"""Mutants of the doors by which bytes and users' code come in."""

from atto.aio import user_code
from atto.broker import wire
from tests.chaos.fail_points import replaced


def exceptions_pass() -> None:
    """Whatever users' code raises goes on to whoever called it."""
    replaced(user_code, "must_pass", lambda _: lambda _error: True)


def strict_bytes() -> None:
    """Headers are UTF-8, or they end the connection."""
    replaced(wire, "readable", lambda _: lambda raw: raw.decode())
