"""D1: the dashboard in Chromium, with 10,000 runs in history: first paint, what moves, twelve tabs, memory.

There is no floor: the bars are what people notice. Needs playwright and the machine's Chromium.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.workloads import Figure, quantile, rss_bytes, true_job
from tests.harness.cluster import Cluster
from tests.harness.dashboard import Dashboard, browser
from titan_sdk import TitanClient, TitanJob

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUNS = 10_000
TABS = 12
CHANGES = 20
_TALK = """
import time
for n in range(60):
    print("at", time.time_ns() // 1_000_000, flush=True)
    time.sleep(0.1)
"""
_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_WHEN_SHOWN = """(name) => {
    window.shown = new Promise((done) => {
        const is = () => [...document.querySelectorAll('.lane a')].some((a) => a.textContent === name);
        const watch = new MutationObserver(() => is() && (watch.disconnect(), done(Date.now())));
        watch.observe(document.body, { subtree: true, childList: true, characterData: true });
    });
}"""
_LINES = """() => {
    window.late = [];
    const seen = new Set();
    new MutationObserver(() => {
        for (const line of document.querySelectorAll('#log .line .text')) {
            const at = /^at (\\d+)$/.exec(line.textContent);
            if (!at || seen.has(at[1])) continue;
            seen.add(at[1]);
            window.late.push(Date.now() - Number(at[1]));
        }
    }).observe(document.querySelector('[data-screen]'), { subtree: true, childList: true });
}"""


def d1(root: Path, repeats: int) -> list[Figure]:
    """All of it on one cluster; `repeats` is how often each page is opened."""
    root.mkdir(parents=True, exist_ok=True)
    with Cluster(root / "titan") as cluster:
        cluster.start_master()
        for port in (8080, 8081, 8082):
            cluster.start_worker(port)
        with (
            cluster.client() as client,
            Dashboard(cluster, root) as dashboard,
            browser() as chromium,
        ):
            runs = [client.submit(f"run-{n % 100}", [true_job("a")]) for n in range(RUNS)]
            for run in runs[-100:]:
                run.wait(timeout=300)
            page = chromium.new_context().new_page()
            dashboard.sign_in(page)
            ended = runs[RUNS // 2].id
            paths = ("/", "/runs", "/runs?state=FAILED", "/workers", "/services")
            paints = _paints(page, dashboard, (*paths, f"/runs/{ended}"), repeats)
            changes = _changes(page, dashboard, client)
            lines = _lines(page, dashboard, client)
            tabs = _tabs(page, dashboard)
            rss_mb = rss_bytes(dashboard.daemon.pid) / 1e6
    plain = "of 10,000 runs in history"
    return [
        _figure("D1 paint", f"first paint of the slowest page, {plain}", max(paints), 1_000),
        _figure("D1 change", "a run is submitted → it is on screen", quantile(changes, 0.5), 250),
        _figure("D1 line", "a line is printed → it is on screen", quantile(lines, 0.5), 250),
        _figure("D1 tabs", f"a plain page, {TABS} live tabs open", max(tabs), 300),
        Figure(
            "D1 memory", "the dashboard after all that", "–", f"{rss_mb:.0f} MB", rss_mb, 90, "MB"
        ),
    ]


def _figure(name: str, what: str, took_ms: float, bar: float) -> Figure:
    return Figure(name, what, "–", f"{took_ms:.0f} ms", took_ms, bar, "ms")


def _paints(page: Page, dashboard: Dashboard, paths: tuple[str, ...], repeats: int) -> list[float]:
    """Of each page, the median."""
    found = []
    for path in paths:
        times = []
        for _ in range(repeats):
            page.goto(dashboard.url + path)
            page.wait_for_selector("main h1")
            painted: Any = None
            while painted is None:
                painted = page.evaluate(_PAINT)
            times.append(float(painted))
        found.append(statistics.median(times))
    return found


def _changes(page: Page, dashboard: Dashboard, client: TitanClient) -> list[float]:
    """From a submission's receipt to the moment at which its run stands in the list."""
    page.goto(f"{dashboard.url}/runs")
    page.wait_for_selector("#live.is-live")
    late = []
    for n in range(CHANGES):
        page.evaluate(_WHEN_SHOWN, f"change-{n}-1")
        client.submit(f"change-{n}", [true_job("a")])
        begin_ms = time.time_ns() / 1e6
        late.append(max(0.0, float(page.evaluate("() => window.shown")) - begin_ms))
    return late


def _lines(page: Page, dashboard: Dashboard, client: TitanClient) -> list[float]:
    """From a line's own time stamp to the moment at which it is in the document."""
    talk = TitanJob(id="talk", command=["python3", "-c", _TALK])
    run = client.submit("talk", [talk])
    page.goto(f"{dashboard.url}/runs/{run.id}/jobs/talk")
    page.wait_for_selector("#live.is-live")
    page.evaluate(_LINES)
    run.wait(timeout=60)
    late = [float(one) for one in page.evaluate("() => window.late")]
    # What was printed before anybody looked is no news.
    return late[len(late) // 3 :]


def _tabs(page: Page, dashboard: Dashboard) -> list[float]:
    tabs = [page.context.new_page() for _ in range(TABS - 1)]
    for tab in tabs:
        tab.goto(f"{dashboard.url}/workers")
    for tab in tabs:
        tab.wait_for_selector("#live.is-live")
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        page.request.get(f"{dashboard.url}/workers")
        times.append((time.perf_counter() - begin) * 1000)
    for tab in tabs:
        tab.close()
    return times
