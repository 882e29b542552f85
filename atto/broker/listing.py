"""Paged listings of the JetStream API, complete although others add and remove entries meanwhile."""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

OVERLAP = 32
"""Entries by which two pages overlap, so that as many may go meanwhile."""


async def listed(
    read: Callable[[int], Awaitable[tuple[Sequence[T], int]]], name: Callable[[T], str]
) -> list[T]:
    """Every entry that is there all the time, in the order of names.

    `read`: gives those from an offset on, as many as the broker puts on a page, and how many there are.

    The broker sorts entries by name and has no cursor (nats-server 2.15: 1,024 names, 256 consumers, or
    100,000 subjects, a page).
    If one goes that was on an earlier page, all that come after it move up by one, and the first of the next
    page would be on none. So each page must begin no later than the one before it ended.
    """
    found: list[T] = []
    offset = 0
    while True:
        page, total = await read(offset)
        if offset and not (page and name(page[0]) <= name(found[-1])):
            found.clear()
            offset = 0
            continue
        if page:
            found[bisect_left(found, name(page[0]), key=name) :] = page
        # A cluster counts consumers, too, that nobody can tell anything of now: then no page may be full.
        if offset + len(page) >= total or len(page) <= OVERLAP:
            return found
        offset += len(page) - OVERLAP
