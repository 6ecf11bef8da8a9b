"""Pages that may be live: what each is made of, for the first view and for the feed alike.

A page has a template and named parts. `make` asks the master and gives the names that the templates
use; it needs no request, so the feed calls it from its own threads. Nothing in a part may depend on
the session: everybody with the same rights sees the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from flask import Flask
from markupsafe import Markup
from msgspec import Struct
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException

from titan_dashboard.link import Credentials, Master
from titan_proto.messages import Request

ReplyT = TypeVar("ReplyT")


class Look(Struct, frozen=True):
    """The master, as somebody with certain rights sees it."""

    master: Master
    who: Credentials

    def ask(self, request: Request[ReplyT]) -> ReplyT:
        """Now. Raises Trouble."""
        return self.master.call(self.who, request)

    def kept(self, request: Request[ReplyT], for_s: float) -> ReplyT:
        """Not older than that. Raises Trouble."""
        return self.master.kept(self.who, request, for_s)


Query = MultiDict[str, str]
Make = Callable[[Look, Mapping[str, str], Query], dict[str, Any]]


class Page(Struct, frozen=True, kw_only=True):
    """A page, by the name of its route."""

    template: str
    make: Make
    parts: tuple[str, ...]
    """Each is a template in `parts/`, and a place in the page."""
    tabs: Mapping[str, tuple[str, ...]] = {}
    """By the word `tab` of the query: further parts. The first is the usual one."""

    def tab(self, query: Query) -> str:
        """Which of its tabs is meant; empty where it has none."""
        wanted = query.get("tab", "")
        return wanted if wanted in self.tabs else next(iter(self.tabs), "")

    def fragments(self, app: Flask, context: Mapping[str, Any], tab: str) -> dict[str, str]:
        """Its parts as HTML."""
        return {
            part: app.jinja_env.get_template(f"parts/{part}.html").render(context)
            for part in (*self.parts, *self.tabs.get(tab, ()))
        }


class Pages:
    """Every page there is."""

    def __init__(self, app: Flask, master: Master) -> None:
        self._app = app
        self._master = master
        self._pages: dict[str, Page] = {}

    def add(self, endpoint: str, page: Page) -> None:
        """This route shows that page."""
        self._pages[endpoint] = page

    def show(
        self, endpoint: str, who: Credentials, args: Mapping[str, str], query: Query, **more: Any
    ) -> str:
        """The whole page. Raises Trouble."""
        page = self._pages[endpoint]
        context = page.make(Look(self._master, who), args, query)
        tab = page.tab(query)
        made = page.fragments(self._app, context, tab)

        def live(part: str) -> Markup:
            # What the parts' own templates have made, escaped where it came from outside.
            inner = Markup(made[part])  # noqa: S704
            return Markup('<div data-live="{}">{}</div>').format(part, inner)

        template = self._app.jinja_env.get_or_select_template(page.template)
        self._app.update_template_context(context)
        return template.render({**context, **more}, live=live, is_live=bool(page.parts), tab=tab)

    def render_of(self, path: str, who: Credentials) -> Callable[[], Mapping[str, str]] | None:
        """How the parts of the page with this path are made anew; None if it is no live page."""
        bare, _, query = path.partition("?")
        adapter = self._app.url_map.bind("localhost")
        match = _match(adapter, bare)
        if match is None:
            return None
        endpoint, args = match
        page = self._pages.get(endpoint)
        if page is None or not page.parts:
            return None
        look, asked = Look(self._master, who), _query(query)
        tab = page.tab(asked)
        return lambda: page.fragments(self._app, page.make(look, args, asked), tab)


def _match(adapter: Any, path: str) -> tuple[str, Mapping[str, str]] | None:
    try:
        endpoint, args = adapter.match(path, method="GET")
    except HTTPException:
        return None
    return endpoint, args


def _query(text: str) -> Query:
    return MultiDict(parse_qsl(text, keep_blank_values=True))
