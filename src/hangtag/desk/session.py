"""Who asks: signed cookies, a token for other machines, and forms that no other site can send."""

from __future__ import annotations

import base64
import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

COOKIE = "hangtag_review"
_LONGEST_NAME = 40
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def is_local(host: str) -> bool:
    """Return whether a host's name can only mean this machine."""
    return host in _LOCAL


@dataclass(frozen=True, slots=True)
class Sessions:
    """Signs and checks. `token` None asks for none: then only this machine may be served.

    `secret` is the store's own, so a login outlives a restart.
    """

    secret: str
    token: str | None = None

    def _sign(self, purpose: str, text: str) -> str:
        # The token is part of what signs: a new one ends all logins.
        key = f"{self.secret}\0{self.token or ''}".encode()
        return hmac.new(key, f"{purpose}\0{text}".encode(), "sha256").hexdigest()

    def accepts(self, token: str) -> bool:
        """Return whether a token opens the desk, in the same time whatever it is."""
        return self.token is None or hmac.compare_digest(token.encode(), self.token.encode())

    def cookie(self, reviewer: str) -> str:
        """Return the value of a reviewer's cookie."""
        name = base64.urlsafe_b64encode(reviewer.encode()).decode()
        return f"{name}.{self._sign('session', reviewer)}"

    def reviewer(self, cookie: str | None) -> str | None:
        """Return whose cookie it is; None for one that was not signed here."""
        name, _, signature = (cookie or "").partition(".")
        try:
            reviewer = base64.urlsafe_b64decode(name.encode()).decode()
        except ValueError:
            return None
        good = hmac.compare_digest(signature.encode(), self._sign("session", reviewer).encode())
        return reviewer if reviewer and good else None

    def form_token(self, reviewer: str) -> str:
        """Return what each of a reviewer's forms has to bring back."""
        return self._sign("form", reviewer)

    def is_own_form(self, reviewer: str, headers: Mapping[str, str], sent: str) -> bool:
        """Return whether a form came from a page of ours: its token, and where the browser says it is from."""
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return False
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        return hmac.compare_digest(sent.encode(), self.form_token(reviewer).encode())

    def is_own_host(self, host: str) -> bool:
        """Return whether a Host header may be served: without a token only names of this machine.

        Otherwise a site could have its own name resolve to this machine, and read pages as if they were its own.
        """
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return self.token is not None or (name is not None and is_local(name))


def reviewer_name(text: str) -> str | None:
    """Return the name under which decisions are kept; None where `text` is none."""
    name = " ".join(text.split())
    is_plain = all(unicodedata.category(character)[0] != "C" for character in name)
    return name if 0 < len(name) <= _LONGEST_NAME and is_plain else None
