"""How the programs beside the worker log in: the same variables as those of the command `atto`."""

import os
from typing import Any


def addresses() -> list[str]:
    """ATTO_NATS, separated by commas."""
    return os.environ.get("ATTO_NATS", "nats://127.0.0.1:4222").split(",")


def namespace() -> str:
    """ATTO_NAMESPACE."""
    return os.environ.get("ATTO_NAMESPACE", "atto")


def login() -> dict[str, Any]:
    """Options of `nats.connect`, as far as the environment names any."""
    given = {
        "user": os.environ.get("ATTO_USER"),
        "password": os.environ.get("ATTO_PASSWORD"),
        "user_credentials": os.environ.get("ATTO_CREDS"),
        "nkeys_seed": os.environ.get("ATTO_NKEY"),
        "inbox_prefix": os.environ.get("ATTO_INBOX_PREFIX"),
    }
    return {name: value for name, value in given.items() if value}
