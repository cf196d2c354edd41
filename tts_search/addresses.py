"""Addresses of servers. Some carry a user and a password, or a key: these are sent, and never shown.

It knows no protocol beyond HTTP's own way to send a user and a password.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, quote, quote_plus, unquote, urlsplit

from tts_search.errors import InvalidInputError

SHORT_VALUE = 8  # characters: a shorter value in a query, or the user beside a password, is a setting or a plain name


@dataclass(frozen=True, slots=True)
class Address:
    """A server, apart from what it is told in confidence.

    `name` is for eyes. `url` is for sending, without user and password; `authorization` is the header that carries
    those, None where there are none. `secrets` are what no message may hold.
    """

    name: str
    url: str = field(repr=False)
    query: str = field(repr=False)
    authorization: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, url: str, what: str) -> Address:
        """Read `url`; errors call it `what`.

        Raises:
            InvalidInputError: it is no HTTP URL.
        """
        place = _split(url.strip())
        if place is None:
            shown = without_credentials(url if "://" in url else f"://{url}").removeprefix("://")
            raise InvalidInputError(f"{what} must be like 'http://localhost:8000/v1', got {shown!r}")
        userinfo, _, host = place.netloc.rpartition("@")
        name = f"{place.scheme}://{host}{place.path.rstrip('/')}"
        user, separator, password = (unquote(part) for part in userinfo.partition(":"))
        secrets = [password, userinfo, f"{user}:{password}"] if userinfo else []
        if not password or len(user) >= SHORT_VALUE:
            secrets.append(user)
        secrets += [value for _, value in parse_qsl(place.query) if len(value) >= SHORT_VALUE]
        plain = f"{user}{separator or ':'}{password}".encode()
        authorization = f"Basic {base64.b64encode(plain).decode()}" if userinfo else None
        return cls(name, name, place.query, authorization, tuple(secrets))

    def under(self, path: str) -> Address:
        """The address, below `path` where it names no path of its own."""
        if urlsplit(self.url).path:
            return self
        return replace(self, name=self.name + path, url=self.url + path)

    def at(self, path: str) -> str:
        """The URL of `path` under this address, for sending."""
        return f"{self.url}{path}?{self.query}" if self.query else f"{self.url}{path}"


class Redaction:
    """Takes secrets out of what is shown, in the writings that URLs, JSON, Python and HTTP's headers have for them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        plain = {secret for secret in secrets if secret}
        known = {writing for secret in plain for writing in _writings(secret)}
        self._known = sorted(known, key=lambda writing: (-len(writing), writing))

    def __call__(self, text: str) -> str:
        """The text without them."""
        for writing in self._known:
            text = text.replace(writing, "(credentials)")
        return text

    def shows(self, error: BaseException | None) -> bool:
        """Whether an error, or one that it came from, would show a secret."""
        while error is not None:
            if self(str(error)) != str(error):
                return True
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return False


def without_credentials(text: str) -> str:
    """A URL, or an argument that holds one, as it may be shown: without user, password, query and fragment."""
    before, mark, after = text.partition("://")
    if not mark:
        return text
    authority = after[: min((after.find(end) for end in "/?#" if end in after), default=len(after))]
    port = authority.rpartition(":")[2] if ":" in authority.rpartition("]")[2] else ""
    # A password may hold a slash that should have been written %2F: what looks like a port is then none.
    if "@" in authority or (port and not port.isdigit()):
        after = after.rpartition("@")[2]
    return before + mark + after.partition("?")[0].partition("#")[0]


def _split(url: str) -> SplitResult | None:
    try:
        place = urlsplit(url)
        usable = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return None
    return place if usable else None


def _writings(secret: str) -> set[str]:
    data = secret.encode("utf-8", "surrogatepass")
    octets = {data, secret.encode("latin-1", "replace")}  # either is a header's encoding for somebody
    encoded = {encode(some).decode() for some in octets for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    escaped = {repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    in_url = {quote(data), quote(data, safe=""), quote_plus(data)}
    return {secret, *escaped, *in_url, *(text.rstrip("=") for text in encoded)}
