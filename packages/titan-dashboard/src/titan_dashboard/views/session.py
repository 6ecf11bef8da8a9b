"""Signing in and out, and the theme: what a browser keeps is a number and a word."""

from __future__ import annotations

from flask import Flask, abort, g, redirect, render_template, request
from werkzeug.wrappers import Response

from titan_dashboard.auth import Sessions, cookie_name, keep
from titan_dashboard.link import Credentials, Kind, Master, Trouble
from titan_proto.handshake import BadToken, parse_token
from titan_proto.messages import RedeemTicket

_THEME_S = 365 * 24 * 3600
_THEMES = ("system", "light", "dark")


def install(app: Flask, master: Master, sessions: Sessions) -> None:
    """Add the routes."""

    @app.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> Response | tuple[str, int]:
        target = _local(request.values.get("next", "/"))
        if request.method == "GET":
            return _form(master, target)
        if not sessions.may_try():
            return _form(master, target, "Too many tries: wait a minute.", 429)
        text = request.form.get("token", "").strip()
        try:
            name = parse_token(text).token_id
            who = master.admit(text)
        except BadToken as error:
            return _form(master, target, f"That is {error}.", 403)
        except Trouble as trouble:
            if trouble.kind is not Kind.REFUSED:
                raise
            return _form(master, target, "The master does not take that token.", 403)
        return keep(redirect(target, 303), sessions.begin(who, name))

    @app.get("/open")
    def redeem() -> Response | tuple[str, int]:
        """The link that `titan open` prints. A HEAD, as a preview sends it, uses nothing up."""
        if request.method != "GET":
            return "", 204
        target = _local(request.args.get("to", "/"))
        if not sessions.may_try():
            return _form(master, target, "Too many tries: wait a minute.", 429)
        token = master.own_token()
        if token is None:
            text = "This dashboard was started without a token, so it cannot give a ticket in: sign in with one."
            return _form(master, target, text, 403)
        try:
            who = master.call(
                Credentials(token, "viewer"), RedeemTicket(ticket=request.args.get("t", ""))
            )
        except Trouble as trouble:
            if trouble.kind is not Kind.MISSING:
                raise
            text = "That link was used, or is too old: titan open prints a new one."
            return _form(master, target, text, 403)
        session = sessions.begin(Credentials(token, who.role), who.name)
        return keep(redirect(target, 303), session)

    @app.post("/sign-out")
    def sign_out() -> Response:
        sessions.end(g.session)
        response = redirect("/sign-in", 303)
        response.delete_cookie(cookie_name(request))
        return response

    @app.post("/theme")
    def set_theme() -> Response:
        theme = request.form.get("theme", "")
        if theme not in _THEMES:
            abort(400)
        response = redirect(_local(request.form.get("next", "/")), 303)
        response.set_cookie("titan_theme", theme, max_age=_THEME_S, samesite="Strict")
        return response


def _form(master: Master, target: str, problem: str = "", status: int = 200) -> tuple[str, int]:
    address = str(master.address())
    if not master.is_listening():
        raise Trouble(Kind.AWAY, "Nobody listens there.", address)
    page = render_template("sign_in.html", address=address, next=target, problem=problem)
    return page, status


def _local(target: str) -> str:
    """A path of ours: what follows a sign-in must not lead to another site."""
    is_path = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_path and target.isprintable() else "/"
