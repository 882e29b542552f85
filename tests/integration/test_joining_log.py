"""What the log says while partitions change hands."""

import asyncio
import logging


class Heard(logging.Handler):
    """Sets `event` at the first line that holds `text`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.event = text, asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            self.event.set()


async def test_a_worker_that_joins_says_when_it_has_its_share(worker, caplog):
    caplog.set_level(logging.INFO, logger="atto.worker")
    log, heard = logging.getLogger("atto.worker"), Heard("has its whole share: owns")
    log.addHandler(heard)
    try:
        async with worker("one"):
            assert "whole share" not in caplog.text
            async with worker("two"), asyncio.timeout(20):
                await heard.event.wait()
    finally:
        log.removeHandler(heard)
