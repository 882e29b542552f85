"""Options that commands share, and what they print."""

import math
import re
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from atto.broker.connection import DEFAULT_SERVER, connected
from atto.broker.jetstream import JetStream
from atto.protocol.errors import InvalidRunId, InvalidSessionId
from atto.protocol.ids import encode_run, encode_session
from atto.protocol.subjects import Subjects
from atto_workers.cli.exits import Unusable
from atto_workers.terminal import say, say_json, shown

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


def _check_session(_type: Any, session: str | None) -> None:
    try:
        if session is not None:  # a default is looked at, too
            encode_session(session)
    except InvalidSessionId as error:
        raise ValueError(str(error)) from None  # which cyclopts knows


def _check_run(_type: Any, run_id: str) -> None:
    try:
        encode_run(run_id)
    except InvalidRunId as error:
        raise ValueError(str(error)) from None


def _check_namespace(_type: Any, namespace: str) -> None:
    Subjects(namespace)


def _check_prefix(_type: Any, prefix: str | None) -> None:
    # To what it cannot parse the broker says nothing: it closes the connection, or no answer comes.
    if prefix is not None and not _SUBJECT.fullmatch(prefix):
        raise ValueError("It is a subject, as _INBOX.atto.worker.atto-worker.")


def in_range(least: float, most: float = math.inf) -> Callable[[Any, float | None], None]:
    """Of an option that is a number: its range. What is not given is not looked at."""
    bounds = f"at least {least:.10g}" if most == math.inf else f"from {least:.10g} to {most:.10g}"

    def check(_type: Any, value: float | None) -> None:
        if value is not None and not least <= value <= most:  # as of "nan", which no bound holds of
            raise ValueError(f"It must be {bounds}.")

    return check


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where the broker is, and who we are there."""

    nats: str = DEFAULT_SERVER
    "Addresses, separated by commas."
    namespace: Annotated[str, Parameter(validator=_check_namespace)] = "atto"
    "The namespace."
    creds: str | None = None
    "A credentials file."
    nkey: str | None = None
    "A file with an nkey seed."
    user: str | None = None
    "A user; the password best by ATTO_PASSWORD."
    password: Annotated[str | None, Parameter(show=False)] = field(default=None, repr=False)
    tls_ca: str | None = None
    "Certificates to trust."
    tls_cert: str | None = None
    "Our certificate."
    tls_key: str | None = None
    "Its key."
    inbox_prefix: Annotated[str | None, Parameter(validator=_check_prefix)] = None
    "Prefix of inboxes, if the permissions ask for one."
    connect_timeout: Annotated[float, Parameter(validator=in_range(0.01))] = 10.0
    "Seconds within which the broker must be reached."

    def options(self) -> dict[str, Any]:
        """Those of `nats.connect`. Raises `Unusable` for files that cannot be read."""
        given: dict[str, Any] = {
            "user_credentials": self.creds,
            "nkeys_seed": self.nkey,
            "user": self.user,
            "password": self.password,
            "inbox_prefix": self.inbox_prefix,
            "connect_timeout": self.connect_timeout,
        }
        # nats-py reads them when the server asks for them, and then says less.
        for option, file in (("--creds", self.creds), ("--nkey", self.nkey)):
            if file is not None:
                _check_readable(option, file)
        if self.tls_ca or self.tls_cert:
            given["tls"] = self._tls()
        return {name: value for name, value in given.items() if value is not None}

    def _tls(self) -> ssl.SSLContext:
        files = {"--tls-ca": self.tls_ca, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        named = {option: file for option, file in files.items() if file is not None}
        for option, file in named.items():
            _check_readable(option, file)
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (ssl.SSLError, ValueError) as error:
            shown = ", ".join(f"{option} {file}" for option, file in named.items())
            raise Unusable(f"{shown}: not what TLS takes (PEM, and a key that fits): {error}") from error
        return context

    @asynccontextmanager
    async def jetstream(self, **options: Any) -> AsyncGenerator[JetStream]:
        """A connection of this command's own; `options` as of `connected`. Raises `BrokerUnavailable`."""
        arguments: dict[str, Any] = {"name": "atto-cli", **self.options(), **options}
        async with (
            connected(self.nats, on_reconnect=lambda: None, **arguments) as connection,
            JetStream(connection) as jetstream,
        ):
            yield jetstream


def _check_readable(option: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise Unusable(f"{option} {file}: {error.strerror or error}") from error


BROKER = Broker()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """What is printed, and how."""

    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
    "JSON, one object a line; errors too."
    debug: Annotated[bool, Parameter(negative="")] = False
    "Tracebacks of errors."

    def show(self, value: Any, text: str) -> None:
        """On stdout: one line of JSON, or text for people, whose controls are escaped."""
        if self.as_json:
            say_json(value)
        else:
            say(text)


OUTPUT = Output()


def note(text: str) -> None:
    """What the command itself says to people, on stderr: stdout is for what was asked."""
    say(f"[{shown(text)}]", file=sys.stderr)


def heard(line: str) -> None:
    """A line that another process says to people, on stderr."""
    say(shown(line), file=sys.stderr)


Session = Annotated[str, Parameter(validator=_check_session)]
RunId = Annotated[str, Parameter(validator=_check_run)]
Agent = Annotated[str, Parameter(help="The agent, as module:variable; app:agent is `agent` in app.py.")]
Store = Annotated[str, Parameter(help="Where sessions are kept: nats-kv, postgres://…, sqlite:///FILE.")]
