"""What goes with every request beside its body: the address, headers with the key, a proxy. Secrets are kept here.

The variables of the environment are those that OpenAI's own client reads, and curl's for proxies.
"""

from __future__ import annotations

import base64
import os
import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tts_search.addresses import SHORT_VALUE, Address, Redaction, without_credentials
from tts_search.errors import InvalidInputError

PUBLIC = ("accept", "accept-encoding", "content-type", "user-agent")  # headers that carry no secret


@dataclass(frozen=True, slots=True)
class Access:
    """The way to a server: nothing in it is to be shown but the address's `name`, and what `redact` has gone over."""

    address: Address
    headers: dict[str, str] = field(repr=False)
    proxy: str | None = field(repr=False)
    redact: Redaction = field(repr=False)

    @classmethod
    def of(cls, base_url: str, api_key: str | None) -> Access:
        """To the server at `base_url`, with a key or with what the environment says.

        Raises:
            InvalidInputError: `base_url` is no URL, a header cannot be sent, or the proxy is of no kind that we know.
        """
        address = Address.of(base_url, "base_url").under("/v1")
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        custom = _custom_headers()
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "tts-search"}
        headers["Accept-Encoding"] = "identity"  # a few packed bytes can be a whole memory full
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        for name, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
            headers |= {name: os.environ[variable]} if os.environ.get(variable) else {}
        headers |= custom
        if address.authorization is not None:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            headers["Authorization"] = address.authorization
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise InvalidInputError(
                    f"the header {name} can hold printable ASCII only: check api_key, OPENAI_API_KEY and "
                    "OPENAI_CUSTOM_HEADERS (the value is not shown)"
                )
        proxy = _proxy_of(base_url)
        hidden = [key, *address.secrets, *_secrets_of(custom)]
        if proxy is not None:
            hidden += Address.of(proxy, "the proxy").secrets
        return cls(address, headers, proxy, Redaction(hidden))


def _custom_headers() -> dict[str, str]:
    """`OPENAI_CUSTOM_HEADERS`: one `Name: value` a line."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    # Names are the same in any case; ours give way to the user's.
    ours = {name.lower(): name for name in ("Accept", "Accept-Encoding", "Authorization", "Content-Type", "User-Agent")}
    return {ours.get(name.strip().lower(), name.strip()): value.strip() for name, _, value in pairs}


def _secrets_of(headers: Mapping[str, str]) -> Iterator[str]:
    """What in the user's own headers is not to be shown, whole and in parts: servers repeat a key without `Bearer`."""
    for name, value in headers.items():
        if name.lower() in PUBLIC:
            continue
        scheme, _, credentials = value.partition(" ")
        if name.lower() in ("authorization", "proxy-authorization"):
            yield from (value, credentials)
            yield from _basic(credentials) if scheme.lower() == "basic" else ()
        parts = re.split(r"[\s,;]+", value)
        parts += [part.partition("=")[2] for part in parts]  # of a cookie, or of a scheme with several values
        yield from (part for part in (value, *parts) if len(part) >= SHORT_VALUE)


def _basic(credentials: str) -> tuple[str, ...]:
    """The password, with the user and without, out of basic authorization; empty where it is none."""
    try:
        plain = base64.b64decode(credentials, validate=True).decode("utf-8", "replace")
    except ValueError:
        return ()
    return plain, plain.partition(":")[2]


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for this address (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, ...).

    aiohttp would look it up anew for every request, in a thread, and put the credentials of a .netrc beside the key.
    """
    place = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(place.scheme) or proxies.get("all")
    host = place.netloc.rpartition("@")[2]
    names = (host, place.hostname or host)  # the second without the brackets of an IPv6 address, as NO_PROXY has it
    if not proxy or any(urllib.request.proxy_bypass(name) for name in names):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise InvalidInputError(
            f"the proxy that the environment names, {without_credentials(proxy)}, is none that speaks HTTP: name "
            f"another, or put {host} into NO_PROXY"
        )
    return proxy
