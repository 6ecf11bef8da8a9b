"""A dashboard beside a test's cluster, and a browser in front of it."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.harness.cluster import Cluster, Daemon

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_READY = re.compile(r"titan-dashboard ready on (http://\S+)")


class Dashboard:
    """`titan-dashboard` as a process of its own."""

    def __init__(self, cluster: Cluster, folder: Path, *words: str, port: int = 0) -> None:
        self._cluster = cluster
        self._folder = folder
        self.daemon = Daemon(
            [sys.executable, "-m", "titan_dashboard", "--port", str(port), *words],
            ready=_READY,
            log=folder / "dashboard.log",
            env=cluster.client_env(),
            cwd=folder,
        )
        self.url = self.daemon.wait_ready().group(1)

    def log(self) -> str:
        """What it has said."""
        return (self._folder / "dashboard.log").read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()

    def sign_in(self, page: Page) -> None:
        """Sign in by the form, with the cluster's own token."""
        page.goto(f"{self.url}/sign-in")
        page.fill("#token", self._cluster.token)
        page.click("text=Sign in >> nth=-1")
        page.wait_for_url(f"{self.url}/")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """The machine's own Chromium; nothing is fetched for it."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        try:
            yield made
        finally:
            made.close()


class Complaints:
    """Everything that a page's console says, and every request that leaves its origin."""

    def __init__(self, page: Page, url: str) -> None:
        self.found: list[str] = []
        self.expected: re.Pattern[str] | None = None
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.found.append(f"error {error}"))
        page.on("request", lambda one: self._left(one.url, url))

    def _heard(self, message: Any) -> None:
        text = f"{message.type}: {message.text}"
        if message.type in {"error", "warning"} and not (
            self.expected is not None and self.expected.search(text)
        ):
            self.found.append(text)

    def _left(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "data:", "blob:")):
            self.found.append(f"request to {asked}")
