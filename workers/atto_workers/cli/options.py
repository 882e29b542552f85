"""Options that commands share, and what they print."""

import ssl
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from atto.broker.connection import DEFAULT_SERVER


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where the broker is, and who we are there."""

    nats: str = DEFAULT_SERVER
    "Addresses, separated by commas."
    namespace: str = "atto"
    "The namespace."
    creds: str | None = None
    "A credentials file."
    nkey: str | None = None
    "A file with an nkey seed."
    user: str | None = None
    "A user; the password best by ATTO_PASSWORD."
    password: Annotated[str | None, Parameter(show=False)] = None
    tls_ca: str | None = None
    "Certificates to trust."
    tls_cert: str | None = None
    "Our certificate."
    tls_key: str | None = None
    "Its key."
    inbox_prefix: str | None = None
    "Prefix of inboxes, if the permissions ask for one."

    def options(self) -> dict[str, Any]:
        """Those of `nats.connect`. Raises `OSError` for files that cannot be read."""
        given: dict[str, Any] = {
            "user_credentials": self.creds,
            "nkeys_seed": self.nkey,
            "user": self.user,
            "password": self.password,
            "inbox_prefix": self.inbox_prefix,
        }
        if self.tls_ca or self.tls_cert:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
            given["tls"] = context
        return {name: value for name, value in given.items() if value is not None}


BROKER = Broker()


def show(value: Any, text: str, *, as_json: bool) -> None:
    """One line on stdout: JSON, or text for people."""
    print(msgspec.json.encode(value).decode() if as_json else text, flush=True)  # noqa: T201
