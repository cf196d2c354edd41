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
FEWEST_CHARACTERS = 6  # of base64 by which a secret is known in the middle of more


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
            InvalidInputError: it is no HTTP URL, or nobody can tell where its password ends.
        """
        if "@" in _parts(url)[2]:
            raise InvalidInputError(
                f"{what} must be like 'http://localhost:8000/v1', with an @ behind the host as %40, and @ / ? # in a "
                "user or a password as %40 %2F %3F %23 (what was given may hold a password, and is not shown)"
            )
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
        plain = f"{user}{separator or ':'}{password}"
        basic = [base64.b64encode(octets).decode() for octets in sorted(_octets(plain))] if userinfo else []
        authorization = f"Basic {base64.b64encode(plain.encode()).decode()}" if userinfo else None
        return cls(name, name, place.query, authorization, (*secrets, *basic))

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
    scheme, authority, rest = _parts(text)
    if not scheme:
        return text
    after = authority + rest
    # A password may hold a slash that should have been written %2F: what looks like a port may be its beginning.
    if "@" in authority or ":" in authority.rpartition("]")[2]:
        after = after.rpartition("@")[2]
    return scheme + after.partition("?")[0].partition("#")[0]


def _parts(text: str) -> tuple[str, str, str]:
    """What a URL begins with up to `://`, its authority, and the rest; all is authority where there is no `://`."""
    before, mark, after = text.partition("://")
    if not mark:
        return "", text, ""
    end = min((after.find(sign) for sign in "/?#" if sign in after), default=len(after))
    return before + mark, after[:end], after[end:]


def _split(url: str) -> SplitResult | None:
    try:
        place = urlsplit(url)
        usable = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return None
    return place if usable else None


def _octets(text: str) -> set[bytes]:
    """A text as bytes: either is a header's encoding for somebody."""
    return {text.encode("utf-8", "surrogatepass"), text.encode("latin-1", "replace")}


def _writings(secret: str) -> set[str]:
    data = secret.encode("utf-8", "surrogatepass")
    encoded = {writing for octets in _octets(secret) for writing in _in_base64(octets)}
    escaped = {repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    in_url = {quote(data), quote(data, safe=""), quote_plus(data)}
    return {secret, *escaped, *in_url, *encoded}


def _in_base64(octets: bytes) -> set[str]:
    """Bytes in base64, alone and in the middle of others: three bytes are four characters, wherever they begin.

    Of characters that hold bits of others, too, nothing is known; what is left of few bytes could be any word.
    """
    found: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found.add(encode(octets).decode().rstrip("="))
        for before in range(3):
            begin, end = -(-8 * before // 6), 8 * (before + len(octets)) // 6
            if end - begin >= FEWEST_CHARACTERS:
                found.add(encode(bytes(before) + octets + b"\0\0").decode()[begin:end])
    return found
