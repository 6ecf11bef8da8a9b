"""The feed: what changed goes to every browser that looks, once, and again to none that has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from titan_dashboard.feed import Feed
from titan_dashboard.link import Credentials, Kind, Trouble

WHO = Credentials("t", "viewer")


class Source:
    """A page whose parts a test changes."""

    def __init__(self) -> None:
        self.parts = {"a": "1", "b": "1"}
        self.trouble: Exception | None = None
        self.made = 0

    def __call__(self) -> dict[str, str]:
        self.made += 1
        if self.trouble is not None:
            raise self.trouble
        return dict(self.parts)


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed(4)
    yield made
    made.close()


class Browser:
    """Reads a stream as a browser does, and remembers the last id."""

    def __init__(self, feed: Feed, source: Source, last_id: str = "") -> None:
        self.gone = threading.Event()
        self.last_id = last_id
        self._stream = feed.stream(WHO, {"/": source}, last_id, self.gone.is_set)
        assert next(self._stream).startswith("retry:")

    def news(self) -> dict[str, str]:
        """The parts of the next events."""
        found = {}
        for event in next(self._stream).split("\n\n"):
            fields = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line)
            if "id" in fields:
                self.last_id = fields["id"]
            if fields.get("event") == "fragment":
                data = json.loads(fields["data"])
                found[data["name"]] = data["html"]
            elif fields.get("event") == "master":
                found["trouble"] = json.loads(fields["data"])["trouble"]
        return found

    def leave(self) -> None:
        self._stream.close()


def test_a_browser_gets_everything_once_and_then_what_changed(feed: Feed) -> None:
    source = Source()
    browser = Browser(feed, source)
    assert browser.news() == {"a": "1", "b": "1", "trouble": ""}
    source.parts["b"] = "2"
    assert browser.news() == {"b": "2"}
    browser.leave()


def test_one_that_comes_back_hears_what_it_missed_and_no_more(feed: Feed) -> None:
    source = Source()
    browser, other = Browser(feed, source), Browser(feed, source)
    assert browser.news() == {"a": "1", "b": "1", "trouble": ""}
    other.news()
    browser.leave()
    source.parts["a"] = "2"
    assert other.news() == {"a": "2"}
    again = Browser(feed, source, browser.last_id)
    assert again.news() == {"a": "2"}
    again.leave()
    other.leave()


def test_one_of_another_dashboard_gets_everything(feed: Feed) -> None:
    """The dashboard was started again: its numbers begin anew."""
    source = Source()
    browser = Browser(feed, source, "abcd1234.7000")
    assert browser.news() == {"a": "1", "b": "1", "trouble": ""}
    browser.leave()


def test_a_master_that_goes_and_comes_back_is_told(feed: Feed) -> None:
    source = Source()
    browser = Browser(feed, source)
    assert browser.news() == {"a": "1", "b": "1", "trouble": ""}
    source.trouble = Trouble(Kind.AWAY, "nobody answers")
    assert browser.news() == {"trouble": "nobody answers"}
    source.trouble = None
    source.parts["a"] = "2"
    assert browser.news() == {"a": "2", "trouble": ""}
    browser.leave()


def test_a_page_that_fails_says_so_and_goes_on(feed: Feed) -> None:
    source = Source()
    source.trouble = ZeroDivisionError()
    browser = Browser(feed, source)
    assert browser.news()["trouble"] == "this page failed: ZeroDivisionError"
    source.trouble = None
    assert browser.news()["trouble"] == ""
    browser.leave()


def test_many_browsers_cost_one_look(feed: Feed) -> None:
    """And there is an end to how many there may be."""
    source = Source()
    browsers = [Browser(feed, source) for _ in range(4)]
    assert feed.is_full
    for browser in browsers:
        browser.news()
    assert len(feed._pages) == 1
    for browser in browsers:
        browser.leave()
    assert not feed.is_full
