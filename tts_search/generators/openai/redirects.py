"""Where a redirect leads, and whether a request may follow: key and prompt are for one server. It knows URLs alone."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from tts_search.addresses import without_credentials

MOST_REDIRECTS = 5  # in a row
PORTS = {"http": 80, "https": 443}


def is_redirect(status: int) -> bool:
    """Whether an answer has nothing to say but that another place has."""
    return 300 <= status < 400


def followed(url: str, method: str, status: int, location: str | None) -> str | None:
    """The URL on the same server that a redirect from `url` leads to; None where no request is to go there.

    By 301, 302 and 303 a POST would become a GET, and what it asks for be lost.
    """
    if not location or (method != "GET" and status not in (307, 308)):
        return None
    try:
        there = urlsplit(urljoin(url, location))
        if "@" in there.netloc or _server(there) != _server(urlsplit(url)):
            return None
    except ValueError:  # a port that is no number, a bracket that is not closed
        return None
    return there.geturl()


def shown(url: str, location: str | None) -> str:
    """Where a redirect from `url` leads, for eyes."""
    if not location:
        return "nowhere"
    try:
        return without_credentials(urljoin(url, location))
    except ValueError:
        return without_credentials(location)


def _server(place: SplitResult) -> tuple[str, str | None, int | None]:
    return place.scheme, place.hostname, place.port or PORTS.get(place.scheme)
