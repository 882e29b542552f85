"""A producer and a client that say whatever bytes they like, on the subjects that they may publish to."""

import asyncio
import json
import random
from collections.abc import Callable

MESSAGES = 30
"""Messages of one visit."""
PATIENCE = 10.0
LONGEST = 3800
"""Bytes of a token: a broker's control line holds 4,096."""

TOKENS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda _: b"\xff\xfe",
    lambda chance: chance.randbytes(6).translate(None, b"\0\t\n\x0b\x0c\r .*>") or b"x",
    lambda chance: b"=" * chance.randint(1, LONGEST),
    lambda chance: b"a" * chance.randint(129, LONGEST),
    lambda _: b"hostile",
    lambda _: b"=00=0A=1B",
    lambda _: b"=zz",
    lambda _: b"\xc3\xa4",
    lambda _: b"\x1b[31m\x7f",
    lambda _: b"%s%n$(id)`",
)
"""What stands where a session's token belongs."""

BODIES: tuple[Callable[[random.Random], bytes], ...] = (
    lambda _: b"",
    lambda chance: chance.randbytes(200),
    lambda _: b"\xef\xbb\xbf{}",
    lambda _: b'{"input":"\\ud800"}',
    lambda _: b'{"input":1e400}',
    lambda _: b'{"input":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    lambda _: b'{"input":"x","run_id":""}',
    lambda _: b'{"input":"x","run_id":"' + b"r" * 4000 + b'"}',
    lambda _: b'{"input":"x","run_id":"a b\\n\\u0000>*"}',
    lambda _: b'{"input":"x","expires":"9999-12-31T23:59:59+23:59"}',
    lambda _: b'{"input":"x","expires":"0001-01-01T00:00:00Z"}',
    lambda _: b'{"input":"x","v":99}',
    lambda _: b'{"input":[{"type":"nothing"}]}',
    lambda _: b'{"input":"x","metadata":{"a":1}}',
    lambda _: b'{"reason":"' + b"e" * 900_000 + b'"}',
    lambda _: b"NaN",
    lambda _: b"null",
)

HEADERS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda _: b"",
    lambda _: b"NATS/1.0 404\r\n\r\n",
    lambda _: b"NATS/1.0 503 No Responders\r\n\r\n",
    lambda _: b"NATS/1.0 \xff\xff\r\n\r\n",
    lambda _: b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    lambda _: b"NATS/1.0\r\nStatus: abc\r\nDescription: \xff\r\n\r\n",
    lambda _: b"NATS/1.0\r\nStatus: 100\r\nNats-Last-Consumer: x\r\n\r\n",
    lambda _: b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Subject: a.b\r\nNats-Time-Stamp: never\r\n\r\n",
    lambda _: b"NATS/1.0\r\nNats-Msg-Id: \r\n\r\n",
    lambda chance: b"NATS/1.0\r\nNats-Msg-Id: " + b"m" * chance.randint(129, 3000) + b"\r\n\r\n",
    lambda _: b"NATS/1.0\r\nNats-Msg-Id: \xff\xfe\r\n\r\n",
    lambda _: b"NATS/1.0\r\nno colon\r\n\r\n",
    lambda _: b"NATS/1.0\r\n: no name\r\n\r\n",
    lambda _: b"NATS/1.0\r\n\xff: \xfe\r\n\r\n",
    lambda _: b"NATS/1.0\r\nA: " + b"x" * 30_000 + b"\r\n\r\n",
    lambda _: b"NATS/1.0\r\ntraceparent: \x00\r\n continued\r\n\r\n",
    lambda chance: b"NATS/1.0" + chance.randbytes(20) + b"\r\n\r\n",
    lambda _: b"garbage\r\n\r\n",
)

REPLIES: tuple[Callable[[random.Random], bytes], ...] = (
    lambda _: b"",
    lambda _: b"_INBOX.hostile",
    lambda _: b"_INBOX.\xff\xfe",
    lambda chance: b"_INBOX." + b"i" * chance.randint(100, LONGEST),
    lambda _: b"$JS.ACK.a.b.c",
    lambda _: b"$JS.ACK.a.b.x.y.z.0.0",
)


class Hostile:
    """Speaks the broker's protocol by hand: no library stands in the way."""

    def __init__(self, namespace: str, chance: random.Random) -> None:
        self._namespace = namespace.encode()
        self._chance = chance

    async def send(self, address: tuple[str, int]) -> None:
        """One visit. Where the broker hangs up, the rest comes over another connection."""
        left = MESSAGES
        async with asyncio.timeout(PATIENCE):
            while left > 0:
                left = await self._visit(address, left)

    async def _visit(self, address: tuple[str, int], count: int) -> int:
        """How many are left to be said."""
        reader, writer = await asyncio.open_connection(*address)
        try:
            await reader.readline()  # INFO
            hello = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
            writer.write(b"CONNECT %s\r\n" % json.dumps(hello).encode())
            while count:
                count -= 1
                writer.write(self._message() + b"PING\r\n")
                await writer.drain()
                while (line := await reader.readline()) not in {b"PONG\r\n", b""}:
                    if line == b"PING\r\n":
                        writer.write(b"PONG\r\n")
                if not line:
                    return count  # it hung up
        except ConnectionError:
            return count
        finally:
            writer.close()
        return 0

    def _message(self) -> bytes:
        subject, reply = self._subject(), self._some(REPLIES)
        subject = subject[: LONGEST + 100 - len(reply)]
        head, body = self._some(HEADERS), self._some(BODIES)
        where = subject + (b" " + reply if reply else b"")
        if not head:
            return b"PUB %s %d\r\n%s\r\n" % (where, len(body), body)
        return b"HPUB %s %d %d\r\n%s%s\r\n" % (where, len(head), len(head) + len(body), head, body)

    def _subject(self) -> bytes:
        token = self._some(TOKENS)
        match self._chance.choice(("turn", "turn", "turn", "cancel", "snapshot")):
            case "cancel":
                return b"%s.cancel.%s.%s" % (self._namespace, token[:1500], self._some(TOKENS)[:1500])
            case kind:
                return b"%s.%s.%s" % (self._namespace, kind.encode(), token)

    def _some(self, choices: tuple[Callable[[random.Random], bytes], ...]) -> bytes:
        return self._chance.choice(choices)(self._chance)
