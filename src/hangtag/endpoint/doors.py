"""Who may ask, how often, and how much at once: keys, rate limits, load."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hangtag.config import Recipe
from hangtag.endpoint.asgi import Refusal
from hangtag.errors import RecipeError

SHORTEST_KEY = 16
_LONGEST_WAIT_S = 60
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyEntry(Recipe):
    """One client's key, as its SHA-256 (hex). `rate` is in products a minute, None without limit."""

    name: str
    digest: str
    rate: float | None = None


KEY_LIST = TypeAdapter(list[KeyEntry])


def read_key_file(path: Path) -> list[KeyEntry]:
    """Return the keys in a file with one `NAME KEY [PRODUCTS-A-MINUTE]` a line; `#` begins a comment.

    Raises:
        RecipeError: the file cannot be read or holds no keys, or a line is malformed; a key is never shown.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise RecipeError(f"{path}: {reason}; expected lines NAME KEY [PRODUCTS-A-MINUTE]") from None
    entries: dict[str, KeyEntry] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        where = f"{path}:{number}"
        if len(fields) not in (2, 3) or not _NAME.fullmatch(fields[0]):
            raise RecipeError(f"{where}: expected NAME KEY [PRODUCTS-A-MINUTE]")
        name, key = fields[:2]
        if len(key) < SHORTEST_KEY or not key.isascii():
            raise RecipeError(f"{where}: the key of {name} needs at least {SHORTEST_KEY} ASCII characters")
        rate = _rate(fields[2], where) if len(fields) == 3 else None
        digest = hashlib.sha256(key.encode()).hexdigest()
        if name in entries or any(entry.digest == digest for entry in entries.values()):
            raise RecipeError(f"{where}: the name or the key of {name} stands there twice")
        entries[name] = KeyEntry(name=name, digest=digest, rate=rate)
    if not entries:
        raise RecipeError(f"{path}: no keys; expected lines NAME KEY [PRODUCTS-A-MINUTE]")
    return list(entries.values())


def _rate(text: str, where: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise RecipeError(f"{where}: got {text!r:.20}, expected products a minute, a number above 0")
    return rate


def load_keys(path: Path) -> list[KeyEntry]:
    """Return the keys that the starting process wrote. Raises RecipeError: it wrote none."""
    try:
        return KEY_LIST.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecipeError(f"{path}: no keys ({type(error).__name__})") from None


class RateLimit:
    """A bucket that fills by `rate` products a minute and holds one minute's worth.

    Whoever finds anything in it may take any number and leave a debt: a call of 256 products is possible under
    every rate, and what follows waits.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._left = max(rate, 1.0)
        self._at = clock()

    def take(self, num_products: int) -> None:
        """Take products out. Raises Refusal: the bucket is empty."""
        now = self._clock()
        self._left = min(max(self.rate, 1.0), self._left + (now - self._at) * self.rate / 60)
        self._at = now
        if self._left <= 0:
            wait = math.ceil((1e-9 - self._left) * 60 / self.rate)
            raise Refusal(
                429, "rate", f"this key has {self.rate:g} products a minute; wait", retry_after_s=max(1, wait)
            )
        self._left -= num_products


@dataclass(frozen=True)
class Client:
    """Who asks; `name` goes into logs, "" where no key is needed."""

    name: str
    limit: RateLimit | None = None


class Keyring:
    """The keys in force; `replace` keeps the buckets of keys whose rate stays."""

    def __init__(self, entries: Sequence[KeyEntry] | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`entries` None means that no key is needed."""
        self._clock = clock
        self._entries = entries
        self._limits: dict[str, RateLimit] = {}
        self.replace(entries)

    def replace(self, entries: Sequence[KeyEntry] | None) -> None:
        """Put other keys in force."""
        limits = {}
        for entry in entries or ():
            held = self._limits.get(entry.name)
            if entry.rate is not None:
                same = held is not None and held.rate == entry.rate
                limits[entry.name] = held if same and held else RateLimit(entry.rate, self._clock)
        self._entries, self._limits = entries, limits

    def identify(self, authorization: bytes | None) -> Client:
        """Return who brings this `Authorization` header.

        Every key is compared, each in constant time.

        Raises:
            Refusal: a key is needed, and this is none.
        """
        if self._entries is None:
            return Client("")
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        found: KeyEntry | None = None
        for entry in self._entries:
            if hmac.compare_digest(digest, entry.digest):
                found = entry
        if found is None or scheme.lower() != b"bearer":
            raise Refusal(401, "key", "a key is needed: Authorization: Bearer KEY")
        return Client(found.name, self._limits.get(found.name))


class Load:
    """How many products wait or are worked on, and when to turn a request away.

    A request enters if there is room for one product, whatever it brings: large calls never starve, and the
    excess is bounded by one call.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.num_products = 0
        self._clock = clock
        self._finished: deque[tuple[float, int]] = deque(maxlen=64)

    def enter(self, num_products: int) -> None:
        """Count products in. Raises Refusal: there is no room."""
        if self.num_products >= self.limit:
            raise Refusal(
                429, "load", f"{self.num_products} products are waiting; try again", retry_after_s=self._wait_s()
            )
        self.num_products += num_products

    def leave(self, num_products: int) -> None:
        """Count products out."""
        self.num_products -= num_products
        self._finished.append((self._clock(), num_products))

    def _wait_s(self) -> int:
        """Return how long half of what waits will take, at the pace of what finished last."""
        if len(self._finished) < 2:
            return 1
        span = self._clock() - self._finished[0][0]
        pace = sum(number for _, number in self._finished) / max(span, 1e-3)
        return max(1, min(_LONGEST_WAIT_S, math.ceil(self.num_products / 2 / max(pace, 1e-3))))
