"""Pictures of the dashboard for the documents: `python tools/screenshots.py [FOLDER] [PAGE...]`.

Starts a cluster of its own with three workers, gives it something to do, and looks at it with the
machine's Chromium at 1280 and 390 pixels in both themes. Needs playwright; nothing is left running.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.harness.cluster import Cluster  # noqa: E402
from tests.harness.dashboard import Dashboard, browser  # noqa: E402
from titan_sdk import TitanClient, TitanGate, TitanJob, TitanService  # noqa: E402

WIDTHS = {1280: 900, 390: 844}
THEMES = ("light", "dark")
DOCUMENTED = ("overview", "workers", "runs", "run", "run-gantt", "log")

_WORK = """
import os, sys, time
what, seconds = sys.argv[1], float(sys.argv[2])
if "flaky" in sys.argv and os.environ["TITAN_ATTEMPT"] == "1":
    seconds = 0.4
print(f"\\033[1m{what}\\033[0m: reading its table")
end, rows = time.monotonic() + seconds, 0
while time.monotonic() < end:
    rows += sum(n % 7 == 0 for n in range(200_000))
    print(f"\\033[32mok\\033[0m   {rows:>10,} rows so far", flush=True)
    if rows % 3 == 0:
        print("\\033[33mwarn\\033[0m a row without a date was left out", file=sys.stderr, flush=True)
    time.sleep(0.12)
if "flaky" in sys.argv and os.environ["TITAN_ATTEMPT"] == "1":
    sys.exit("\\033[31mError\\033[0m: the table is locked by somebody else")
if "broken" in sys.argv:
    sys.exit("\\033[31mKeyError\\033[0m: 'precipitation': the table has no such column")
"""
_SERVER = """
import http.server, os
print("listens on", os.environ["PORT"], flush=True)
place = ("127.0.0.1", int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(place, http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def nightly(*, end: str = "", long: float = 0.8) -> list[TitanJob]:
    """A pipeline that looks like one."""

    def job(name: str, seconds: float, *after: str, how: str = "", retries: int = 0) -> TitanJob:
        words = [name.lower(), str(seconds), *([how] if how else [])]
        return TitanJob(
            id=name,
            script="work.py",
            args=words,
            dependencies=list(after),
            retries={"limit": retries, "delay": "1s", "jitter": False} if retries else 0,
        )

    return [
        job("EXTRACT_ORDERS", 0.6),
        job("EXTRACT_VISITS", 1.1),
        job("EXTRACT_STOCK", 0.4),
        job("CLEAN_ORDERS", 0.7, "EXTRACT_ORDERS"),
        job("CLEAN_VISITS", 0.5, "EXTRACT_VISITS", how="flaky", retries=2),
        job("JOIN", 0.6, "CLEAN_ORDERS", "CLEAN_VISITS", "EXTRACT_STOCK", how=end),
        job("TRAIN", long, "JOIN"),
        job("REPORT", 0.5, "JOIN"),
        job("PUBLISH", 0.4, "TRAIN", "REPORT"),
    ]


def fill(cluster: Cluster, client: TitanClient) -> None:
    """Give the cluster something to show, and return while some of it goes on."""
    (cluster.perm_files / "work.py").write_text(_WORK, encoding="utf-8")
    (cluster.perm_files / "api.py").write_text(_SERVER, encoding="utf-8")
    api = TitanService(id="API", script="api.py", port="auto", healthcheck="/")
    client.submit("weather", [TitanJob(id="TABLE", script="work.py", args=["table", "0.3"]), api])
    for _ in range(2):
        client.wait(client.submit("Nightly-Data-Pipeline", nightly()))
    client.wait(client.submit("Nightly-Data-Pipeline", nightly(end="broken")))
    hourly = [TitanJob(id="SYNC", script="work.py", args=["sync", "0.3"])]
    for _ in range(3):
        client.wait(client.submit("hourly-sync", hourly))
    review = TitanGate(id="REVIEW", message="Do the rows look right?")
    client.submit("release-notes", [review])
    client.submit("Nightly-Data-Pipeline", nightly(long=600))
    batch = [TitanJob(id=f"PART_{n}", script="work.py", args=["part", "600"]) for n in range(5)]
    client.submit("reindex", batch)
    train = TitanJob(id="TRAIN", script="work.py", args=["train", "9"], requirement="GPU")
    client.submit("gpu-training", [train])


def pages(client: TitanClient) -> dict[str, str]:
    """Name → path of what is looked at."""
    runs = {view.alias: view for view in client.runs(ended=True)}
    failed, live = runs["nightly-data-pipeline-3"].run_id, runs["nightly-data-pipeline-4"].run_id
    # The first few are those that the documents show.
    return {
        "overview": "/",
        "workers": "/workers",
        "runs": "/runs",
        "run": f"/runs/{live}",
        "log": f"/runs/{runs['reindex-1'].run_id}/log",
        "run-gantt": f"/runs/{runs['nightly-data-pipeline-2'].run_id}?tab=gantt",
        "run-failed": f"/runs/{failed}",
        "run-jobs": f"/runs/{live}?tab=jobs",
        "job": f"/runs/{failed}/jobs/JOIN",
        "services": "/services",
    }


def main(folder: Path, wanted: list[str]) -> None:
    """Take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, Cluster(Path(scratch)) as cluster:
        cluster.start_master()
        for port, slots in ((8080, 4), (8081, 4), (8082, 2)):
            cluster.start_worker(port, "--skill", "GENERAL", slots=slots)
        with (
            cluster.client() as client,
            Dashboard(cluster, Path(scratch)) as dashboard,
            browser() as chromium,
        ):
            context = chromium.new_context()
            tab = context.new_page()
            dashboard.sign_in(tab)  # somebody looks: from now on workers tell more often
            fill(cluster, client)
            time.sleep(45)  # for lines that are more than a dot
            for name, path in pages(client).items():
                if name not in (wanted or DOCUMENTED):
                    continue
                for width, height in WIDTHS.items():
                    tab.set_viewport_size({"width": width, "height": height})
                    for theme in THEMES:
                        context.add_cookies(
                            [{"name": "titan_theme", "value": theme, "url": dashboard.url}]
                        )
                        tab.goto(dashboard.url + path)
                        tab.wait_for_selector("#live.is-live")
                        tab.wait_for_timeout(700)
                        target = folder / f"{name}-{width}-{theme}.png"
                        tab.screenshot(path=target, full_page=width == 390)
                        print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images", sys.argv[2:])
