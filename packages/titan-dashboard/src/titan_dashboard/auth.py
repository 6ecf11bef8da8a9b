"""Who looks: sessions in memory, and the checks that each request has to pass.

A cookie holds nothing but a session's number, 256 bits drawn here. Whoever changes something shows
the session's second number too, which no other site can know. Sessions are forgotten when they are
eight hours old and when the dashboard ends. Called by the application before and after every request.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import deque
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Request, Response, abort, current_app, g, redirect, request
from msgspec import Struct
from werkzeug.wrappers import Response as BaseResponse

from titan_dashboard.config import SESSION_S, SESSIONS, SIGN_INS_PER_MINUTE
from titan_dashboard.link import Credentials

OPEN: Final = frozenset({"sign_in", "redeem", "static", "healthz", "set_theme"})
"""What can be had without a session."""
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; worker-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Session(Struct, frozen=True, kw_only=True):
    """Somebody who has signed in."""

    number: str
    csrf: str
    who: Credentials
    name: str
    since_s: float
    """By the monotonic clock."""

    @property
    def may_act(self) -> bool:
        """Whether it may change anything at all."""
        return self.who.role in {"client", "admin"}

    @property
    def is_admin(self) -> bool:
        """Whether it may decide about workers."""
        return self.who.role == "admin"

    def __repr__(self) -> str:
        """Without its numbers."""
        return f"Session(name={self.name!r}, role={self.who.role!r})"


class Sessions:
    """Everybody who has signed in. Safe to call from any thread."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._tries: deque[float] = deque()
        self._told: dict[str, str] = {}
        self._lock = threading.Lock()

    def begin(self, who: Credentials, name: str) -> Session:
        """Remember somebody."""
        session = Session(
            number=secrets.token_urlsafe(32),
            csrf=secrets.token_urlsafe(32),
            who=who,
            name=name,
            since_s=time.monotonic(),
        )
        with self._lock:
            while len(self._sessions) >= SESSIONS:
                oldest = next(iter(self._sessions))
                del self._sessions[oldest]
                self._told.pop(oldest, None)
            self._sessions[session.number] = session
        return session

    def find(self, number: str) -> Session | None:
        """The session of that number, if it is good still."""
        with self._lock:
            session = self._sessions.get(number)
            if session is not None and time.monotonic() - session.since_s > SESSION_S:
                del self._sessions[number]
                return None
            return session

    def end(self, session: Session) -> None:
        """Forget it."""
        with self._lock:
            self._sessions.pop(session.number, None)
            self._told.pop(session.number, None)

    def tell(self, session: Session, what: str) -> None:
        """The next page of this session begins with that."""
        with self._lock:
            self._told[session.number] = what

    def told(self, session: Session) -> str:
        """What the next page begins with; only once."""
        with self._lock:
            return self._told.pop(session.number, "")

    def may_try(self) -> bool:
        """Whether another sign-in may be tried now; counts it."""
        now = time.monotonic()
        with self._lock:
            while self._tries and now - self._tries[0] > 60:
                self._tries.popleft()
            if len(self._tries) >= SIGN_INS_PER_MINUTE:
                return False
            self._tries.append(now)
            return True


def cookie_name(asked: Request) -> str:
    """Cookies do not tell ports apart: two dashboards on one machine must not share one."""
    return f"titan_{asked.host.rpartition(':')[2] if ':' in asked.host else '80'}"


def keep(response: BaseResponse, session: Session) -> BaseResponse:
    """Have the browser show the session's number from now on."""
    response.set_cookie(
        cookie_name(request),
        session.number,
        max_age=SESSION_S,
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
    )
    return response


def install(app: Flask, sessions: Sessions) -> None:
    """Put the checks before every request, and the headers after it."""

    @app.before_request
    def check() -> BaseResponse | None:
        # A page of another origin that resolves its own name to loopback sends its own Host; asking
        # for it raises then, on every path.
        host = request.host
        g.session = sessions.find(request.cookies.get(cookie_name(request), ""))
        if request.method not in _READS:
            _check_origin(host)
        if request.endpoint in OPEN or request.endpoint is None:
            return None
        if g.session is None:
            if request.method in _READS and request.endpoint not in {"events", "log_data"}:
                target = request.full_path.rstrip("?")
                return redirect(current_app.url_for("sign_in", next=target), 303)
            abort(401)
        if request.method not in _READS and not hmac.compare_digest(
            request.form.get("csrf", "").encode(), g.session.csrf.encode()
        ):
            abort(403, "The form is of another session, or too old: go back, load the page again.")
        return None

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _check_origin(host: str) -> None:
    """A browser says from where a form was sent; it must have been a page of ours."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        abort(403, "This was sent by a page of another site; nothing was done.")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        abort(403, "This was sent by a page of another site; nothing was done.")
