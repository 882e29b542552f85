"""The commit of a run that ends without an answer, once: whoever finds its record tells the same end."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from atto.agents import Agent
from atto.aio.user_code import describe
from atto.protocol.errors import ConcurrentWrite, NotStorable, SessionGone
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import SessionStore
from atto_workers.backoff import Backoff
from atto_workers.delivery import Claim, Content, Delivery
from atto_workers.run import commit as commits
from atto_workers.run import retelling
from atto_workers.run.journal import fold
from atto_workers.run.log import RunLog
from atto_workers.run.outcome import Outcome
from atto_workers.run.standing import GaveUp, Superseded
from atto_workers.run.unfinished import commit_of, without_messages

_log = logging.getLogger("atto.worker")


class Concluded(NamedTuple):
    """`snapshot`: the session as it is then; None if that is not known."""

    outcome: Outcome
    snapshot: Snapshot | None


class Conclusions:
    """Of all turns of a worker. `make_sure` raises `GaveUp` where a claim does not stand."""

    def __init__(
        self, agent: Agent, store: SessionStore, make_sure: Callable[[Claim], Awaitable[None]]
    ) -> None:
        self._agent = agent
        self._store = store
        self._make_sure = make_sure

    async def conclude(
        self, delivery: Delivery, content: Content, log: RunLog, outcome: Outcome, *, base: Snapshot | None
    ) -> Concluded:
        """Commits the end `outcome` of the run whose events are in `log`, on top of `base` or of what is
        there.

        A run that another owner has committed meanwhile ends as its record says. A store that is away is
        waited for. Where the store refuses, or the session is gone, the run ends without a commit, as
        `outcome` is. Raises `GaveUp`.
        """
        user = content.turn.message()
        progress = fold(log.said())
        commit = commit_of(self._agent, content.run_id, user, outcome, progress)
        try:
            try:
                saved = await self._save(base, content.session, commit, delivery.claim)
            except NotStorable:
                if not commit.messages:
                    raise
                commit = without_messages(commit, user)
                saved = await self._save(base, content.session, commit, delivery.claim)
        except (GaveUp, Superseded):
            raise
        except Exception as error:  # noqa: BLE001 - a user's own store may raise anything
            _log.warning("the end of run %s cannot be committed: %s", content.run_id, describe(error))
            return Concluded(outcome, None)
        record = saved.record(content.run_id)
        if record is None:
            return Concluded(outcome, None)
        told = retelling.steps_of_progress(progress)
        ended = retelling.ended(log, saved, record, told=told, words="".join(progress.words))
        return Concluded(ended, saved)

    async def _save(self, base: Snapshot | None, session: str, commit: Commit, claim: Claim) -> Snapshot:
        """The session with a record of the run. Raises `SessionGone` if it was deleted meanwhile."""
        backoff = Backoff(base=0.02, until=lambda: not claim.is_open)
        known = 0
        while True:
            if base is None:
                base = await commits.load(self._store, session, claim, tries=None)
            if base.version < known:
                raise SessionGone(f"session {session!r} was deleted while the run was under way")
            if base.record(commit.run_id) is not None:
                return base
            # After the load: whatever a successor commits from here on refuses this commit.
            await self._make_sure(claim)
            known = base.version
            try:
                return await commits.save(
                    self._store,
                    base,
                    commit,
                    claim,
                    make_sure=partial(self._make_sure, claim),
                    tries=None,
                )
            except ConcurrentWrite:
                base = None
                if not await backoff.pause():
                    raise GaveUp from None
