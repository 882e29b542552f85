"""How it is told that a worker does not speak for a run: to be silent about it, or to look again."""


class GaveUp(Exception):
    """The claim is no longer open; whoever owns the partition next goes on."""


class Superseded(Exception):
    """The broker refused an append: another attempt at the run has spoken, or begun. If the partition is this
    worker's still, the turn has to be looked at anew.
    """
