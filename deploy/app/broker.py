"""How the programs beside the worker log in: the same variables as those of the command `atto`."""

import os
import ssl
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
        "tls": _tls(),
    }
    return {name: value for name, value in given.items() if value}


def _tls() -> ssl.SSLContext | None:
    """ATTO_TLS_CA: whom to trust; ATTO_TLS_CERT, ATTO_TLS_KEY: who we are."""
    authority, certificate = os.environ.get("ATTO_TLS_CA"), os.environ.get("ATTO_TLS_CERT")
    if not (authority or certificate):
        return None
    context = ssl.create_default_context(cafile=authority)
    if certificate:
        context.load_cert_chain(certificate, os.environ.get("ATTO_TLS_KEY"))
    return context
