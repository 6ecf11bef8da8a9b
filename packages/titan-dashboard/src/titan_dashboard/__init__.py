"""Titan's dashboard: Flask pages over the master's own wire. It holds no truth.

For now one honest page: which cluster this is, and whether its master can be reached. It asks the
master anew for each view, through ``titan_proto.io.blocking``.
"""

from __future__ import annotations

from flask import Flask, Response, render_template

from titan_dashboard.__about__ import __version__
from titan_dashboard.config import DashboardConfig
from titan_dashboard.link import look

__all__ = ["__version__", "create_app"]

# Nothing but our own stylesheet may be loaded, by anybody, from anywhere.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(config: DashboardConfig | None = None) -> Flask:
    """The WSGI application; `flask --app titan_dashboard run` finds it by this name."""
    app = Flask(__name__)
    settings = config or DashboardConfig.from_environment()
    # A page of another origin that resolves its own name to loopback sends its own Host.
    app.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost", "[::1]"]

    @app.get("/")
    def overview() -> tuple[str, int]:
        sight = look(settings)
        return render_template("overview.html", sight=sight), 200 if sight.reachable else 503

    @app.get("/healthz")
    def healthz() -> tuple[str, int]:
        return "ok\n", 200

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return app
