"""Titan's dashboard: Flask pages over the master's own wire. It holds no truth.

It asks the master anew for each view, through ``titan_proto.io.blocking``, and may be started again
at any time: what it knows beyond that is who has signed in.
"""

from __future__ import annotations

from flask import Flask

from titan_dashboard.__about__ import __version__
from titan_dashboard.application import make_app
from titan_dashboard.config import DashboardConfig

__all__ = ["__version__", "create_app"]


def create_app(config: DashboardConfig | None = None) -> Flask:
    """The WSGI application; `flask --app titan_dashboard run` finds it by this name."""
    return make_app(config or DashboardConfig.from_environment())
