"""Messages on their way out, without what nats-py's `publish` does for those that are not ours.

It takes headers apart, looks at subjects, and makes three coroutines of each message. Subjects here are made
of encoded ids and headers are checked once, so that a message is one call where the connection is open.
"""
# pyright: reportPrivateUsage=false

import asyncio
from typing import cast

from nats.aio.client import Client as Connection


def sent(connection: Connection, subject: str, data: bytes, reply: str = "", block: bytes = b"") -> bool:
    """Hands a message over to be sent soon, after those before it. `block`: its headers as they travel.

    False if that is not so simple now: then `publish` it, which waits for room, or says what is wrong.
    """
    queue = connection._flush_queue
    flusher = cast("asyncio.Task[None] | None", connection._flusher_task)
    if connection._status != Connection.CONNECTED or queue is None or flusher is None or flusher.done():
        return False
    size = len(block) + len(data)
    line = f"HPUB {subject} {reply} {len(block)} {size}\r\n" if block else f"PUB {subject} {reply} {size}\r\n"
    command = b"".join((line.encode(), block, data, b"\r\n"))
    pending = connection._pending_data_size + len(command)
    if size > connection._max_payload or pending > connection._max_pending_size > 0:
        return False
    connection._pending.append(command)
    connection._pending_data_size = pending
    stats = connection.stats
    stats["out_msgs"] += 1
    stats["out_bytes"] += size
    if queue.empty():  # else what sends is about to look
        queue.put_nowait(asyncio.get_running_loop().create_future())
    return True
