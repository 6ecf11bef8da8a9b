"""The composition root: routes, checks, filters and error pages, put together here and nowhere else."""

from __future__ import annotations

import atexit
import logging
from typing import Any, Final

from flask import Flask, Response, g, redirect, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from titan_dashboard import auth, words
from titan_dashboard.__about__ import __version__
from titan_dashboard.config import FORM_BYTES, PAGES_PER_STREAM, STREAMS, DashboardConfig
from titan_dashboard.feed import Feed, Render
from titan_dashboard.link import Kind, Master, Trouble
from titan_dashboard.pages import Look, Pages
from titan_dashboard.views import actions, cluster, logs, runs, services, session

_log = logging.getLogger("titan.dashboard")
_THEMES: Final = ("system", "light", "dark")
_TITLES: Final = {
    Kind.UNNAMED: "No master can be looked for",
    Kind.REFUSED: "The master does not let this dashboard in",
    Kind.AWAY: "No master can be reached",
    Kind.MISSING: "Not found",
    Kind.FORBIDDEN: "Not permitted",
    Kind.CONFLICT: "Not done",
    Kind.FAILED: "The master refused",
}


def make_app(config: DashboardConfig) -> Flask:
    """The application, with everything that it holds."""
    app = Flask("titan_dashboard")
    app.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost", "[::1]"]
    app.config["MAX_CONTENT_LENGTH"] = FORM_BYTES
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        duration=words.duration,
        size=words.size,
        stamp=words.stamp,
        clock=words.clock,
        percent=words.percent,
        cores=words.cores,
        mark=words.mark,
        reason=words.reason,
        attempt_reason=words.attempt_reason,
    )
    app.jinja_env.globals.update(version=__version__)
    master = Master(config)
    sessions = auth.Sessions()
    feed = Feed(STREAMS)
    atexit.register(feed.close)
    pages = Pages(app, master)
    auth.install(app, sessions)
    session.install(app, master, sessions)
    logs.install(app, master)
    actions.install(app, master, sessions)
    for known in (cluster.PAGES, runs.PAGES, services.PAGES, logs.make_pages(logs.Marks())):
        for endpoint, page in known.items():
            pages.add(endpoint, page)

    def show(endpoint: str, **args: str) -> str:
        return pages.show(endpoint, g.session.who, args, request.args)

    @app.get("/")
    def overview() -> str:
        return show("overview")

    @app.get("/services", endpoint="services")
    def service_list() -> str:
        return show("services")

    @app.get("/workers")
    def workers() -> str:
        return show("workers")

    @app.get("/workers/<worker>")
    def worker(worker: str) -> str:
        return show("worker", worker=worker)

    @app.get("/runs", endpoint="runs")
    def run_list() -> str:
        return show("runs")

    @app.get("/runs/<run>")
    def run(run: str) -> str:
        return show("run", run=run)

    @app.get("/runs/<run>/jobs/<job>")
    def job(run: str, job: str) -> str:
        look = Look(master, g.session.who)
        args = {"run": run, "job": job}
        tail = logs.tail_of(look, run, job, request.args)
        return pages.show("job", look.who, args, request.args, tail=tail)

    @app.get("/runs/<run>/log")
    def run_log(run: str) -> str:
        return show("run_log", run=run)

    @app.get("/find")
    def find() -> BaseResponse:
        text = request.args.get("q", "").strip()
        return redirect(runs.find(Look(master, g.session.who), text) if text else "/runs", 303)

    @app.get("/healthz")
    def healthz() -> str:
        return "ok\n"

    @app.get("/events")
    def events() -> Response:
        return _stream(feed, pages)

    @app.context_processor
    def common() -> dict[str, Any]:
        theme = request.cookies.get("titan_theme", "system")
        return {
            "session": g.get("session"),
            "told": sessions.told(g.session) if g.get("session") else "",
            "theme": theme if theme in _THEMES else "system",
            "here": request.full_path.rstrip("?"),
        }

    _explain_errors(app)
    return app


def _stream(feed: Feed, pages: Pages) -> Response:
    if feed.is_full:
        refusal = Response("too many pages are open\n", 503)
        refusal.headers["Retry-After"] = "5"
        return refusal
    who = g.session.who
    renders: dict[str, Render] = {}
    for path in request.args.getlist("page")[:PAGES_PER_STREAM]:
        render = pages.render_of(path, who)
        if render is not None:
            renders[path] = render
    # waitress tells by this whether the browser has gone; other servers find out by writing.
    is_gone = request.environ.get("waitress.client_disconnected", lambda: False)
    body = feed.stream(who, renders, request.headers.get("Last-Event-ID", ""), is_gone)
    return Response(
        body,
        mimetype="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


def _explain_errors(app: Flask) -> None:
    """Whatever goes wrong is a short page of the right status, and never a traceback."""

    @app.errorhandler(Trouble)
    def trouble(error: Trouble) -> tuple[str, int]:
        return _error_page(_TITLES[error.kind], error.problem, error.status, error)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[str, int]:
        status = error.code or 500
        title = {404: "Not found", 403: "Not permitted", 401: "Signed out"}.get(status, error.name)
        text = error.description or ""
        if status == 404:
            text = "There is no such page."
        return _error_page(title, text, status)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> tuple[str, int]:  # outermost
        _log.exception("page failed path=%s", request.path, exc_info=error)
        text = f"This page failed ({type(error).__name__}); the dashboard's own log says where."
        return _error_page("The dashboard failed", text, 500)


def _error_page(
    title: str, text: str, status: int, trouble: Trouble | None = None
) -> tuple[str, int]:
    if status == 400:
        # A foreign Host: its page gets no link to anything of ours.
        return f"{title}\n", status
    return render_template("error.html", title=title, text=text, trouble=trouble), status
