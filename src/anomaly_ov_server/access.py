"""Who may ask: the Host and Origin headers, and the token or the cookie that stands for it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from anomaly_ov_server.faults import Fault
from anomaly_ov_server.settings import ServeSettings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN = frozenset({"/", "/healthz", "/readyz", "/favicon.ico", "/favicon.svg", "/v1/session"})
OPEN_FOLDER = "/static/"
_PORTS = {"http": 80, "https": 443}


class Access:
    """Decides from a request's head alone. Raises ``Fault`` 401 or 403."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        names = {settings.host, "localhost", "127.0.0.1", "::1", *settings.allowed_hosts}
        self._hosts = {name.strip("[]").rstrip(".").lower() for name in names}
        self.cookie_name = f"anomaly_ov_{settings.port}"

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Raises unless the request may go on."""
        self._check_host(headers)
        if method not in SAFE:
            self._check_origin(headers)
        if not (path in OPEN or path.startswith(OPEN_FOLDER)):
            self._check_token(headers)

    @property
    def cookie(self) -> str:
        """What the cookie holds: derived from the token, which it does not tell."""
        return hmac.new((self._settings.token or "").encode(), b"anomaly-ov session", hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Whether ``given`` is the token, in a time that does not depend on where they differ."""
        return self._settings.token is None or _same(given, self._settings.token)

    def _check_host(self, headers: Headers) -> None:
        """Another site whose name leads here must not be answered as if it were us (DNS rebinding)."""
        given = headers.getlist("host")
        place = _place(f"http://{given[0]}") if len(given) == 1 else None
        if place is None or not (place[0] in self._hosts or (self._settings.any_address and _is_address(place[0]))):
            what = "the request's Host is none of this service's"
            raise Fault(403, "wrong_host", what, hint="start it with --allow-host NAME to be reached under that name")

    def _check_origin(self, headers: Headers) -> None:
        """Another site's page must not make the browser change anything here."""
        given = headers.getlist("origin")
        if not given:
            return
        scheme = given[0].partition(":")[0].lower()
        if len(given) > 1 or scheme not in _PORTS or _place(given[0]) != _place(f"{scheme}://{headers['host']}"):
            raise Fault(403, "wrong_origin", "the request comes from another site", hint="use this service's own page")

    def _check_token(self, headers: Headers) -> None:
        if self._settings.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return
        if _same(_cookie(headers, self.cookie_name), self.cookie):
            return
        hint = "send the header 'Authorization: Bearer TOKEN', or sign in on the page"
        asks = {"WWW-Authenticate": 'Bearer realm="anomaly-ov"'}
        raise Fault(401, "unauthorized", "the token is missing or wrong", hint=hint, headers=asks)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _place(url: str) -> tuple[str, int] | None:
    """Host in lower case and port of an address; None if it is no plain one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname.rstrip("."), _PORTS[parts.scheme] if port is None else port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
