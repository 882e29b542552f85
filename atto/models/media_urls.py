"""Which addresses of images and files are handed to a provider, which fetches them.

Whoever may send a message may name an address. A provider, and all the more a server inside one's own
network, would be made to read what it can reach: its own files, a bucket of its project, an address that is
not public. So only `https` addresses of public hosts go out, unless the model is told otherwise.
"""

import ipaddress
import socket
from collections.abc import Collection, Iterable
from urllib.parse import SplitResult, urlsplit

from atto.models.failures import Failures
from atto.protocol.errors import InvalidAgent
from atto.protocol.messages import AnyPart, FilePart, ImagePart, Message, ToolResultPart

MEDIA_URLS = ("https", "data")
"""What is allowed unless the model says otherwise: public `https` addresses, and content in a `data:` URL."""

_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".metadata")


def allowed_urls(adapter: str, entries: Collection[str]) -> tuple[str, ...]:
    """The entries, checked. Raises `InvalidAgent`."""
    if isinstance(entries, str):
        raise InvalidAgent(f"{adapter}: `media_urls` is a list, such as ['https', 'gs']")
    for entry in entries:
        if "://" in entry and not urlsplit(entry).netloc:
            raise InvalidAgent(f"{adapter}: `media_urls` has {entry!r}: give a scheme, or scheme://host/path")
    return tuple(entries)


def check_media(messages: Iterable[Message], allowed: tuple[str, ...], failures: Failures) -> None:
    """Raises `ModelError` for an image or a file whose address may not go out."""
    for message in messages:
        if message.role != "assistant":
            _check(message.content, allowed, failures)


def _check(parts: Iterable[AnyPart], allowed: tuple[str, ...], failures: Failures) -> None:
    for part in parts:
        if isinstance(part, ToolResultPart):
            if not isinstance(part.content, str):
                _check(part.content, allowed, failures)
        elif isinstance(part, ImagePart | FilePart) and part.url is not None:
            why = _refusal(part.url, allowed)
            if why is not None:
                raise failures.refused(f"the address {_shown(part.url)} is not handed to the provider: {why}")


def _refusal(text: str, allowed: tuple[str, ...]) -> str | None:
    """Why an address may not go out, with the way to allow it; None: it may."""
    try:
        url = urlsplit(text.strip())
        host = url.hostname or ""
    except ValueError:
        return "it is not a URL"
    if any(_is_below(url, entry) for entry in allowed if "://" in entry):
        return None
    if url.scheme not in allowed:
        known = ", ".join(allowed)
        return (
            f"`media_urls` allows {known}: give the model media_urls=[…, {url.scheme or 'https'!r}], or data"
        )
    if url.scheme in {"http", "https"} and _is_private(host):
        prefix = f"{url.scheme}://{url.netloc.rpartition('@')[2]}/"
        return f"its host is not public: give the model media_urls=[…, {prefix!r}] if it may be read"
    return None


def _is_below(url: SplitResult, entry: str) -> bool:
    place = urlsplit(entry)
    same = (url.scheme, url.netloc.lower()) == (place.scheme, place.netloc.lower())
    return same and url.path.startswith(place.path) and "/../" not in f"{url.path}/"


def _is_private(host: str) -> bool:
    """Whether a host is an address that is not public, in any way of writing it, or a name of such."""
    name = host.rstrip(".").lower()
    address = _address(name)
    if address is not None:
        return not address.is_global or address.is_multicast
    return f".{name}".endswith(_PRIVATE_NAMES)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # 127.1, 0x7f000001, 2130706433
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _shown(url: str) -> str:
    return repr(url if len(url) <= 100 else f"{url[:100]}…")
