"""What the calls of a model came to, as a worker has counted since it was made."""

from msgspec import Struct, structs

from atto.protocol.messages import Usage


class Tally(Struct):
    """The counts of one model, while they grow. They mean what `ModelUsage` says."""

    calls: int = 0
    answered: int = 0
    tries: int = 0
    failed: int = 0
    retries: int = 0
    throttled: int = 0
    refused: int = 0
    taken_over: int = 0
    tokens: Usage = Usage()

    def frozen(self, *, active: int, waiting: int, concurrency: int | None, is_open: bool) -> "ModelUsage":
        """The counts as they are now, beside how things stand."""
        return ModelUsage(
            **structs.asdict(self),
            active=active,
            waiting=waiting,
            concurrency=concurrency,
            is_open=is_open,
        )


class ModelUsage(Struct, frozen=True, kw_only=True):
    """Of one model. A call is one request of a run's step, however many tries it takes.

    `calls` that were made, of which `answered`; `tries` that were sent, of which `failed` (a try whose caller
    left is neither). `retries`: tries after a failed one. `throttled`: answers 429. `refused`: tries that an
    open breaker turned away, or a `Retry-After` where there was a fallback. `taken_over`: answers to calls
    that another model had failed before. `tokens`: by the provider's own count, with those of failed tries as
    far as it told.

    Of this moment: the calls that are `active` and `waiting`, the `concurrency` allowed (None: any), and
    whether the breaker `is_open`.
    """

    calls: int
    answered: int
    tries: int
    failed: int
    retries: int
    throttled: int
    refused: int
    taken_over: int
    tokens: Usage
    active: int
    waiting: int
    concurrency: int | None
    is_open: bool
