"""Rich's console, with the way out of `atto_workers.terminal`."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from atto_workers.terminal import shown_text


class Terminal(Console):
    """A console whose styles are its own: controls in what it is given are escaped, as by `shown_text`.

    Cells of tables go through `shown` first, so that one that holds a line feed stays one line.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Every print and every live display passes here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown_text(segment.text))
