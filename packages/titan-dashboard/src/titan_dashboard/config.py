"""Where the dashboard finds its master, and where it listens. Read once, at start."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

DEFAULT_PORT = 5000
THREADS = 8
"""Requests served at once."""
LINK_TIMEOUT_S = 3.0
"""How long a page waits for the master before it says that it cannot be reached."""


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
