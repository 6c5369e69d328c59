"""Who is signed in, and who has tried. In memory only: a restart signs all out."""

import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_urlsafe
from time import monotonic

from compliance.people import Actor
from parties.errors import SignInLimited

IDLE_SECONDS = 15 * 60.0
LASTING_SECONDS = 8 * 3600.0
MAX_SESSIONS = 64
MAX_FOUND = 100  # people looked up in one session

WINDOW_SECONDS = 15 * 60.0
PER_NAME, IN_ALL = 5, 30  # failures within the window

Clock = Callable[[], float]


@dataclass
class Session:
    """One sign-in. `actor` holds the user's key, which is nowhere else in clear."""

    actor: Actor
    since: float
    seen: float
    form_token: str = field(default_factory=token_urlsafe)
    notes: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # to be shown once
    found: dict[str, str] = field(default_factory=dict)  # subjects, by what addresses call them

    def refer(self, subject: str) -> str:
        """What an address calls a person in this session: it says nothing of them."""
        for name, known in self.found.items():
            if known == subject:
                return name
        while len(self.found) >= MAX_FOUND:
            del self.found[next(iter(self.found))]
        name = token_urlsafe(12)
        self.found[name] = subject
        return name


class Sessions:
    """The sessions by their cookies, of which only a digest is kept."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}

    def open(self, actor: Actor) -> str:
        """Signs in; the cookie's value. Whoever has been idle the longest makes room."""
        cookie, now = token_urlsafe(32), self._clock()
        with self._lock:
            self._expire()
            while len(self._open) >= MAX_SESSIONS:
                del self._open[min(self._open, key=lambda name: self._open[name].seen)]
            self._open[_digest(cookie)] = Session(actor, now, now)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session, which is not idle any more; None if it has expired."""
        with self._lock:
            self._expire()
            session = self._open.get(_digest(cookie))
            if session is not None:
                session.seen = self._clock()
            return session

    def close(self, cookie: str) -> None:
        with self._lock:
            self._open.pop(_digest(cookie), None)

    def _expire(self) -> None:
        now = self._clock()
        for name, session in list(self._open.items()):
            if now - session.seen >= IDLE_SECONDS or now - session.since >= LASTING_SECONDS:
                del self._open[name]


class Attempts:
    """Failed sign-ins: after a few, a name has to wait, and after more everybody."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[str, deque[float]] = defaultdict(deque)
        self._all: deque[float] = deque()

    def check(self, name: str) -> None:
        """Raises SignInLimited."""
        with self._lock:
            self._expire()
            failed = self._failed.get(name, deque())
            if len(failed) < PER_NAME and len(self._all) < IN_ALL:
                return
        raise SignInLimited(
            "Too many sign-ins have failed.",
            f"Wait {WINDOW_SECONDS / 60:.0f} minutes, then try again.",
        )

    def failed(self, name: str) -> None:
        with self._lock:
            now = self._clock()
            self._failed[name].append(now)
            self._all.append(now)

    def succeeded(self, name: str) -> None:
        with self._lock:
            self._failed.pop(name, None)

    def _expire(self) -> None:
        earliest = self._clock() - WINDOW_SECONDS
        for times in (self._all, *self._failed.values()):
            while times and times[0] <= earliest:
                times.popleft()
        for name in [name for name, times in self._failed.items() if not times]:
            del self._failed[name]


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode(errors="replace")).hexdigest()
