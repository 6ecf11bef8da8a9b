"""Where the dashboard finds its master, where it listens, and its limits. Read once, at start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from msgspec import Struct

DEFAULT_PORT: Final = 5000
THREADS: Final = 64
"""Requests served at once: a live page keeps one for as long as it is open."""
STREAMS: Final = 48
"""Event streams at once; the other threads are left for plain pages."""
LINK_TIMEOUT_S: Final = 3.0
"""How long a page waits for the master before it says that it cannot be reached."""
STREAM_TIMEOUT_S: Final = 600.0
"""How long a whole log may take to be read."""
SESSION_S: Final = 8 * 3600
"""A sign-in is good for so long."""
SESSIONS: Final = 1_000
"""Sign-ins remembered at once; one more and the oldest is forgotten."""
SIGN_INS_PER_MINUTE: Final = 20
"""Tries, right or wrong, from anywhere."""
FORM_BYTES: Final = 64 * 1024
"""Of a request's body."""
PAGES_PER_STREAM: Final = 24
"""Pages that one event stream may look at: tabs of one browser share theirs."""


class DashboardConfig(Struct, frozen=True, kw_only=True):
    """What a dashboard needs to know."""

    master: str | None = None
    """`host:port`; None means: look for it as every client does."""
    environ: dict[str, str]
    folder: Path

    @classmethod
    def from_environment(cls, master: str | None = None) -> DashboardConfig:
        """The configuration of a dashboard that is started here and now."""
        return cls(master=master, environ=dict(os.environ), folder=Path.cwd())
