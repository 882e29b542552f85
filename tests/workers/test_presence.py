"""Who is here: by keys, and by who answers."""

import asyncio

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers import Topology, presence
from atto_workers.presence import About, Presence


async def test_a_key_that_a_broker_brought_back_from_the_dead_is_nobody(
    jetstream: JetStream, namespace: str, monkeypatch
):
    """Right after a reconnect a key counts even if nobody answers for it: its worker may be coming back."""
    monkeypatch.setattr(presence, "REUNION", 3600.0)
    await Topology(namespace, partitions=4).declare(jetstream)
    await jetstream.publish(f"$KV.{Subjects(namespace).members_bucket}.ghost", b"{}")
    async with Presence(
        jetstream, Subjects(namespace), "living", about=About.own("tester"), on_news=lambda: None
    ) as here:
        here._back_at = asyncio.get_running_loop().time()
        await here.beat()
        assert (await here.roll([])).members == {"living", "ghost"}
        monkeypatch.setattr(presence, "EXPIRED", 0.05)
        async with asyncio.timeout(5):
            while "ghost" in (await here.roll(["ghost"])).living:
                await here.beat()
        assert (await here.roll(["ghost"])).members == {"living"}
