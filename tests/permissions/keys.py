"""Keys and credentials files, as `nsc` would make them: JWTs signed with nkeys.

The format: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt and
https://github.com/nats-io/jwt (version 2 claims).
"""

import base64
import hashlib
import json
import secrets
from typing import Any

import nkeys

_PREFIXES = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class Key:
    """A new key pair of an `operator`, an `account` or a `user`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seed = bytes(nkeys.encode_seed(secrets.token_bytes(32), _PREFIXES[kind])).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode()

    def signs(self, subject: "Key", **claims: Any) -> str:
        """The JWT in which this key says `claims` about `subject`."""
        body: dict[str, Any] = {
            "iat": 1_700_000_000,
            "iss": self.public,
            "name": subject.kind,
            "sub": subject.public,
            "nats": {"type": subject.kind, "version": 2, **claims},
        }
        digest = hashlib.new("sha512_256", _json(body)).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = f"{_part(_HEADER)}.{_part(body)}"
        return f"{signed}.{_base64(self._pair.sign(signed.encode()))}"


def credentials(jwt: str, key: Key) -> str:
    """The text of a credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _part(value: Any) -> str:
    return _base64(_json(value))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
