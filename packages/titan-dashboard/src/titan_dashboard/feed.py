"""What moves on open pages: one event stream per browser, fed by looking again and again.

A live page is a function that makes its fragments anew. For each page that somebody has open, one
thread calls that function as often as it is cheap; a fragment that came out otherwise gets the next
number, and every stream that shows the page is woken. Nothing is queued: a stream sends what is
newer than what its browser has, so a slow one skips what it missed, and one that comes back with
the number it had last gets exactly what changed since. Holds no truth: all of it is forgotten when
the last browser leaves a page. Called by the view of `/events`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from titan_dashboard.link import Credentials, Trouble

Render = Callable[[], Mapping[str, str]]
"""Makes a page's fragments: name → HTML."""
_LOOK_EVERY_S: Final = 0.1
_SHARE: Final = 4
"""A page that takes long to make is made less often: it rests so many times as long."""
_LOOK_RARELY_S: Final = 1.0
"""While the master is away."""
_LINGER_S: Final = 3.0
"""A page that nobody shows is kept for so long: browsers come back after a reload."""
_BEAT_S: Final = 5.0
"""A stream on which nothing happens says so, or nobody would notice that its browser has gone."""


class _Page:
    """One page that is open in some browser."""

    def __init__(self, name: str, render: Render) -> None:
        self.name = name
        self.render = render
        self.fragments: dict[str, tuple[int, str]] = {}
        self.trouble = ""
        self.changed = -1
        """The number of the last change of `trouble`; -1 before the first look."""
        self.watchers = 0
        self.left_s = 0.0


class Feed:
    """The pages that are open now. Safe to call from any thread."""

    def __init__(self, streams_max: int) -> None:
        self._epoch = secrets.token_hex(4)
        self._streams_max = streams_max
        self._streams = 0
        self._serial = 0
        self._pages: dict[tuple[Credentials, str], _Page] = {}
        self._news = threading.Condition()
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether another stream would take a thread that plain pages need."""
        return self._streams >= self._streams_max

    def close(self) -> None:
        """End every stream and every thread."""
        with self._news:
            self._is_closed = True
            self._news.notify_all()

    def stream(
        self,
        who: Credentials,
        renders: Mapping[str, Render],
        last_id: str,
        is_gone: Callable[[], bool],
    ) -> Iterator[str]:
        """The events of these pages, for ever. `last_id` is what the browser had last."""
        pages = self._enter(who, renders)
        try:
            yield "retry: 1000\n\n"
            epoch, _, number = last_id.partition(".")
            seen = int(number) if epoch == self._epoch and number.isdecimal() else -1
            while not is_gone():
                events, seen = self._wait(pages, seen)
                if self._is_closed:
                    return
                yield events or ": still here\n\n"
        finally:
            self._leave(pages)

    def _enter(self, who: Credentials, renders: Mapping[str, Render]) -> list[_Page]:
        pages = []
        with self._news:
            self._streams += 1
            for name, render in renders.items():
                page = self._pages.get((who, name))
                if page is None:
                    page = self._pages[who, name] = _Page(name, render)
                    threading.Thread(
                        target=self._watch, args=((who, name), page), daemon=True
                    ).start()
                page.watchers += 1
                pages.append(page)
        return pages

    def _leave(self, pages: Sequence[_Page]) -> None:
        with self._news:
            self._streams -= 1
            for page in pages:
                page.watchers -= 1
                page.left_s = time.monotonic()

    def _wait(self, pages: Sequence[_Page], seen: int) -> tuple[str, int]:
        """What is newer than `seen`, as events; none when nothing was for a while."""
        deadline = time.monotonic() + _BEAT_S
        with self._news:
            while not self._is_closed:
                # The number that was reached is told last: a stream that is cut before it is
                # continued from the one before, and hears some of it twice.
                found = list(_newer(pages, seen))
                if found:
                    return "".join(
                        [*found, f"id: {self._epoch}.{self._serial}\nevent: mark\ndata: \n\n"]
                    ), self._serial
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._news.wait(left)
        return "", seen

    # -- looking ----------------------------------------------------------------------------------

    def _watch(self, key: tuple[Credentials, str], page: _Page) -> None:
        while self._is_wanted(key, page):
            before = time.monotonic()
            try:
                made: Mapping[str, str] = page.render()
                trouble = ""
            except Trouble as error:
                made, trouble = {}, error.problem
            except Exception as error:  # outermost  # noqa: BLE001
                made, trouble = {}, f"this page failed: {type(error).__name__}"
            self._take(page, made, trouble)
            took = time.monotonic() - before
            rest = _LOOK_RARELY_S if trouble else max(_LOOK_EVERY_S, took * _SHARE)
            with self._news:
                if self._is_closed:
                    return
            time.sleep(rest)

    def _is_wanted(self, key: tuple[Credentials, str], page: _Page) -> bool:
        with self._news:
            idle = not page.watchers and time.monotonic() - page.left_s > _LINGER_S
            if idle or self._is_closed:
                self._pages.pop(key, None)
                return False
            return True

    def _take(self, page: _Page, made: Mapping[str, str], trouble: str) -> None:
        with self._news:
            changed = {
                name: html
                for name, html in made.items()
                if page.fragments.get(name, (0, None))[1] != html
            }
            is_told = page.changed >= 0 and trouble == page.trouble
            if not changed and is_told:
                return
            self._serial += 1
            if not is_told:
                page.trouble, page.changed = trouble, self._serial
            for name, html in changed.items():
                page.fragments[name] = (self._serial, html)
            self._news.notify_all()


def _newer(pages: Sequence[_Page], seen: int) -> Iterator[str]:
    for page in pages:
        if page.changed > seen:
            yield _event("master", {"page": page.name, "trouble": page.trouble})
        for name, (number, html) in page.fragments.items():
            if number > seen:
                yield _event("fragment", {"page": page.name, "name": name, "html": html})


def _event(kind: str, data: Mapping[str, str]) -> str:
    # JSON has no bare line ends, which would end the event.
    return f"event: {kind}\ndata: {msgspec.json.encode(data).decode()}\n\n"
