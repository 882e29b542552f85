"""Characters that a provider cut in two.

A server that counts in UTF-16 (JavaScript, Java) may cut a character beyond the basic plane between two
chunks: one ends with half of a surrogate pair, the next begins with the other. Neither half can be encoded
as UTF-8, so neither may leave an adapter.
"""

import re

_SURROGATES = re.compile("[\ud800-\udfff]")
_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")


class SurrogateJoiner:
    """Passes text through, piece by piece; a first half waits for its second. What stays half is U+FFFD."""

    def __init__(self) -> None:
        self._held = ""

    def join(self, text: str) -> str:
        """What is complete of the text so far and was not given before."""
        if not self._held and (text.isascii() or not _SURROGATES.search(text)):
            return text
        text = self._held + text
        self._held = text[-1:] if _FIRST_HALF.search(text) else ""
        return mend(text.removesuffix(self._held))

    def end(self) -> str:
        """What still waited: half a character, as U+FFFD."""
        held, self._held = self._held, ""
        return mend(held)


def mend(text: str) -> str:
    """Text that can be encoded: pairs joined, halves replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
