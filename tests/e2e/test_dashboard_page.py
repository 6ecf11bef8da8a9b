"""The dashboard as people see it: in Chromium, with workers under load, and through kills."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT
from tests.harness.cluster import Cluster, Daemon
from tests.harness.dashboard import Complaints, Dashboard, browser
from titan_sdk import TitanGate, TitanJob, TitanService

pytestmark = [pytest.mark.needs("chromium", "playwright"), pytest.mark.timeout(240)]

NOISE = """
import sys, time
print("begins", flush=True)
end = time.monotonic() + float(sys.argv[1])
n = 0
while time.monotonic() < end:
    n += 1
    print("line", n, flush=True)
    sum(range(100_000))
    time.sleep(0.05)
"""


@pytest.fixture
def dashboard(cluster: Cluster, tmp_path: Path) -> Iterator[Dashboard]:
    (cluster.perm_files / "noise.py").write_text(NOISE)
    with Dashboard(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def chromium() -> Iterator[Any]:
    with browser() as made:
        yield made


@pytest.fixture
def page(chromium: Any, dashboard: Dashboard) -> Iterator[Any]:
    """A tab that has signed in; whatever its console says fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.complaints = Complaints(tab, dashboard.url)
    dashboard.sign_in(tab)
    yield tab
    assert tab.complaints.found == []
    context.close()


def noise(seconds: float, name: str = "NOISE") -> TitanJob:
    return TitanJob(id=name, script="noise.py", args=[str(seconds)])


def unloaded(page: Any) -> None:
    """Mark this document: if the mark is there later, nothing was loaded anew."""
    page.evaluate("() => { window.neverReloaded = true; }")


def assert_same_document(page: Any) -> None:
    assert page.evaluate("() => window.neverReloaded") is True


def test_workers_under_load_move_without_a_reload(
    cluster: Cluster, dashboard: Dashboard, page: Any
) -> None:
    """Slots fill as boxes, jobs appear where they run, lines grow, and empty again."""
    for port in (8080, 8081, 8082):
        cluster.start_worker(port)
    page.goto(f"{dashboard.url}/workers")
    page.wait_for_selector("#live.is-live")
    unloaded(page)
    page.wait_for_selector("article:nth-of-type(3)")
    assert page.locator(".slot.taken").count() == 0
    with cluster.client() as client:
        run = client.submit("busy", [noise(15, f"N{n}") for n in range(6)])
        page.wait_for_selector(".slot.taken >> nth=5")
        page.wait_for_selector("text=busy-1/N3")
        page.wait_for_selector(".spark .line >> nth=5", state="attached")
        before = page.locator(".spark .line").first.get_attribute("d")
        page.wait_for_selector(f".spark .line:not([d='{before}'])", state="attached")
        client.cancel(run)
    page.locator(".slot.taken").first.wait_for(state="detached")
    assert_same_document(page)


def test_a_run_is_watched_as_it_goes(cluster: Cluster, dashboard: Dashboard, page: Any) -> None:
    """A new run slides in; its graph, Gantt chart and table change; a try that failed stays to be seen."""
    cluster.start_worker(8080)
    page.goto(f"{dashboard.url}/runs")
    page.wait_for_selector("text=Nothing has run yet")
    unloaded(page)
    flaky = 'test "$TITAN_ATTEMPT" = 2 || { echo no >&2; exit 3; }'
    jobs = [
        noise(1, "FIRST"),
        TitanJob(
            id="FLAKY",
            run=flaky,
            dependencies=["FIRST"],
            retries={"limit": 1, "delay": "100ms", "jitter": False},
        ),
        TitanJob(id="BROKEN", run="kill -9 $$", dependencies=["FLAKY"]),
        TitanJob(id="NEVER", run="true", dependencies=["BROKEN"]),
    ]
    with cluster.client() as client:
        run = client.submit("shown", jobs)
        page.wait_for_selector(".lane >> text=shown-1")
        assert_same_document(page)
        page.click("text=shown-1")
        page.wait_for_selector(".node:has-text('FIRST')")
        unloaded(page)
        page.wait_for_selector(".node.is-failed:has-text('BROKEN')")
        page.wait_for_selector(".node.is-skipped:has-text('NEVER')")
        page.wait_for_selector(".notice:has-text('killed by SIGKILL')")
        assert page.title().startswith("✕ shown-1")
        assert_same_document(page)
        client.wait(run)
    page.click("text=Gantt")
    page.wait_for_selector(".b-past", state="attached")
    page.click("text=Jobs")
    page.wait_for_selector("td:has-text('a job before it did not succeed')")
    page.click("text=FLAKY >> nth=0")
    page.click("text=Attempt 1")
    page.wait_for_selector("dd:has-text('exit 3')")
    page.keyboard.press("/")
    page.keyboard.type("shown-1/BROKEN")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('BROKEN')")


def test_a_log_is_followed_searched_and_downloaded(
    cluster: Cluster, dashboard: Dashboard, page: Any
) -> None:
    """Lines come while they are printed; a search finds later ones too; the file is what was written."""
    cluster.start_worker(8080)
    with cluster.client() as client:
        run = client.submit("talks", [noise(30)])
        page.goto(f"{dashboard.url}/runs/talks-1/jobs/NOISE")
        unloaded(page)
        page.wait_for_selector(".line:has-text('line 5')")
        page.fill("[data-find]", "/line \\d*77$/")
        page.wait_for_selector("mark:has-text('line 77')")
        page.fill("[data-find]", "")
        page.wait_for_selector(".line:has-text('line 90')")
        client.cancel(run)
        page.wait_for_selector("h1 + span:has-text('cancelled')")
        assert_same_document(page)
        (folder,) = cluster.attempt_folders(run.id)
        written = cluster.home / "titan_workspace" / "jobs" / run.id / folder / "stdout.log"
        page.click("text=stdout >> nth=0")
        with page.expect_download() as download:
            page.click("a:has-text('Download')")
        assert download.value.path().read_bytes() == written.read_bytes()


def test_the_log_of_a_run_has_job_and_worker_before_each_line(
    cluster: Cluster, dashboard: Dashboard, page: Any
) -> None:
    """Of all its jobs, on whichever worker, and of those that begin later."""
    cluster.start_worker(8080, slots=1)
    cluster.start_worker(8081, slots=1)
    later = TitanJob(id="LATER", run="echo at last", dependencies=["A", "B"])
    with cluster.client() as client:
        run = client.submit("all", [noise(4, "A"), noise(4, "B"), later])
        page.goto(f"{dashboard.url}/runs/all-1/log")
        unloaded(page)
        for job in ("A", "B"):
            page.wait_for_selector(
                f".line:has(.from:text-matches('^{job} .*:808')):has-text('line')"
            )
        page.wait_for_selector(".line:has(.from:text-matches('^LATER ')):has-text('at last')")
        assert_same_document(page)
        client.wait(run)


def test_two_hundred_thousand_lines_are_no_strain(
    cluster: Cluster, dashboard: Dashboard, page: Any
) -> None:
    """The end is there at once, the document stays small, the last line is found, the file is whole."""
    cluster.start_worker(8080)
    script = "for n in range(200_000): print(f'{n:06} the quick brown fox jumps over the lazy dog')"
    with cluster.client() as client:
        run = client.submit("long", [TitanJob(id="L", command=["python3", "-c", script])])
        client.wait(run)
        page.goto(f"{dashboard.url}/runs/long-1/jobs/L")
        page.wait_for_selector(".line:has-text('199999 the quick')")
        assert page.locator("#log .line").count() < 150
        page.fill("[data-find]", "/^000007 /")
        page.click("[data-do=next]")
        page.wait_for_selector(".line.is-current:has-text('000007 the quick')")
        page.fill("[data-find]", "199999")
        page.wait_for_selector("[data-count]:has-text('1 found')")
        answer = page.request.get(f"{dashboard.url}/runs/long-1/jobs/L/log?stream=stdout")
        written = "".join(
            f"{n:06} the quick brown fox jumps over the lazy dog\n" for n in range(200_000)
        )
        assert answer.body() == written.encode()


def test_hostile_content_is_only_text(
    cluster: Cluster, dashboard: Dashboard, page: Any, tmp_path: Path
) -> None:
    """Markup, control sequences and links in names and logs are shown, and do nothing."""
    cluster.start_worker(8080)
    lines = [
        "<img src=x onerror=alert(1)>",
        "<script>alert(2)</script>",
        "\x1b]0;owned\x07title \x1b]8;;javascript:alert(3)\x1b\\link\x1b]8;;\x1b\\",
        "\x1b[2J\x1b[H\x1b[31mred\x1b[0m plain",
        "\x1b[38;2;255;0;0;background:url(//evil)mx",
        "a\u202etxt.exe",
    ]
    script = f"print({chr(10).join(lines)!r})"
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    with cluster.client() as client:
        run = client.submit(
            "<img src=x onerror=alert(4)>",
            [TitanJob(id="H", command=["python3", "-X", "utf8", "-c", script])],
        )
        client.wait(run)
    for path in ("/", "/runs", f"/runs/{run.id}", f"/runs/{run.id}/log", f"/runs/{run.id}/jobs/H"):
        page.goto(dashboard.url + path)
        page.wait_for_selector("#live.is-live")
        assert page.locator("main img, main script:not([src])").count() == 0
    page.wait_for_selector(".line:has-text('<img src=x onerror=alert(1)>')")
    page.wait_for_selector(".line:has-text('title link')")
    page.wait_for_selector(".line .a-1:has-text('red')")
    assert page.locator(".line a:not(.no)").count() == 0
    assert page.title().endswith("H · Titan")
    assert dialogs == []


def test_what_is_done_from_a_page_is_asked_first_and_said_after(
    cluster: Cluster, dashboard: Dashboard, page: Any
) -> None:
    """Cancel, run again, approve, replace and stop a service, drain a worker: by the keyboard where it can be."""
    cluster.start_worker(8080)
    with cluster.client() as client:
        gate = TitanGate(id="REVIEW", message="Do the rows look right?")
        after = TitanJob(id="AFTER", run="echo approved", dependencies=["REVIEW"])
        client.submit("asks", [gate, after])
        client.submit("long", [noise(60)])
        client.submit("web", [TitanService(id="API", script="noise.py", args=["600"])])
        page.goto(f"{dashboard.url}/runs/long-1")
        page.wait_for_selector(".node.is-running")
        page.keyboard.press("x")
        page.wait_for_selector("text=1 running job will be stopped")
        page.keyboard.press("Enter")
        page.wait_for_selector(".notice:has-text('long-1 is')")
        page.wait_for_selector(".node.is-cancelled")
        page.click("text=Run again")
        page.click("button:has-text('Run again')")
        page.wait_for_selector("h1:has-text('long-2')")
        page.goto(f"{dashboard.url}/runs/asks-1")
        page.click("text=Approve")
        page.fill("#f-comment", "they do")
        page.click("button:has-text('Approve')")
        page.wait_for_selector(".node.is-succeeded:has-text('AFTER')")
        page.goto(f"{dashboard.url}/services")
        page.wait_for_selector("text=healthy")
        page.click("[aria-label='Stop web/API']")
        page.click("button:has-text('Stop the service')")
        page.wait_for_selector("h2:has-text('Ended')")
        page.goto(f"{dashboard.url}/workers/8080")
        page.click("text=Drain")
        page.click("button:has-text('Drain the worker')")
        page.wait_for_selector(".notice:has-text('has been told to leave')")
        page.wait_for_selector("text=No worker is here")
        assert client.view("asks-1").state == "SUCCEEDED"


def test_killing_a_worker_and_the_master_is_seen_and_survived(
    cluster: Cluster, dashboard: Dashboard, page: Any
) -> None:
    """The open page says what is lost, that it is stale, and is current again, in one document."""
    first = cluster.start_worker(8080)
    cluster.start_worker(8081)
    page.wait_for_selector("#live.is-live")
    page.wait_for_selector("text=[8081]")
    unloaded(page)
    page.complaints.expected = re.compile("Failed to load resource|net::ERR")
    page.goto(f"{dashboard.url}/workers")
    page.wait_for_selector("article:nth-of-type(2)")
    unloaded(page)
    os.kill(first.pid, signal.SIGKILL)
    page.wait_for_selector("text=no link")
    master = cluster.master
    assert master is not None
    master.kill()
    page.wait_for_selector("#banner:has-text('The master does not answer')")
    page.wait_for_selector("#live.is-away")
    answer = page.request.get(f"{dashboard.url}/workers")
    assert answer.status == 503
    assert "titan up -d" in answer.text()
    cluster.start_master()
    page.wait_for_selector("#live.is-live")
    page.wait_for_selector("#banner", state="hidden")
    cluster.start_worker(8083)
    page.wait_for_selector("text=[8083]")
    assert_same_document(page)


def test_a_job_whose_worker_is_killed_is_seen_to_run_again(chromium: Any, tmp_path: Path) -> None:
    """The page of the job says so within the lease, in one document: lost, then attempt 2."""
    with Cluster(tmp_path / "short", lost_after="2s") as cluster:
        cluster.start_master()
        (cluster.perm_files / "noise.py").write_text(NOISE)
        first = cluster.start_worker(8080)
        with cluster.client() as client, Dashboard(cluster, tmp_path) as dashboard:
            run = client.submit("lost", [noise(60)])
            tab = chromium.new_context().new_page()
            dashboard.sign_in(tab)
            tab.goto(f"{dashboard.url}/runs/lost-1/jobs/NOISE")
            tab.wait_for_selector(".line:has-text('line 3')")
            unloaded(tab)
            cluster.start_worker(8081)
            os.kill(first.pid, signal.SIGKILL)
            tab.wait_for_selector("nav[aria-label=Attempts] >> text=Attempt 2")
            tab.wait_for_selector(".is-notice:has-text('attempt 2 on')")
            tab.wait_for_selector("dd:has-text(':8081')")
            assert_same_document(tab)
            tab.click("text=Attempt 1")
            tab.wait_for_selector("dd:has-text('its worker was lost')")
            client.cancel(run)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (("-m", "flask", "run", "--port", "0"), "packages/titan-dashboard"),
        (("dashboard.py", "--port", "0"), "packages/titan-dashboard"),
        (("-m", "flask", "--app", "titan_dashboard", "run", "--port", "0"), "docs"),
    ],
)
def test_each_way_to_start_it_serves_the_same(
    cluster: Cluster, tmp_path: Path, words: tuple[str, ...], folder: str
) -> None:
    """By Flask's own command, and as the manual starts it."""
    daemon = Daemon(
        [sys.executable, *words],
        ready=re.compile(r"(http://127\.0\.0\.1:\d+)"),
        log=tmp_path / "dashboard.log",
        env=cluster.client_env(),
        cwd=ROOT / folder,
    )
    try:
        place = daemon.wait_ready().group(1)
        with urllib.request.urlopen(f"{place}/sign-in", timeout=20) as answer:
            assert b"Sign in to Titan" in answer.read()
    finally:
        daemon.process.send_signal(signal.SIGINT)
        daemon.process.wait(20)


def test_a_dashboard_that_is_killed_is_said_and_found_again(
    cluster: Cluster, dashboard: Dashboard, page: Any, tmp_path: Path
) -> None:
    """The page says that it is stale; the new dashboard wants a sign-in, and says so."""
    page.wait_for_selector("#live.is-live")
    page.complaints.expected = re.compile("Failed to load resource|net::ERR")
    dashboard.daemon.kill()
    page.wait_for_selector("#banner:has-text('The dashboard does not answer')")
    port = int(dashboard.url.rpartition(":")[2])
    with Dashboard(cluster, tmp_path, port=port):
        page.wait_for_selector("#banner:has-text('signed out')")
        page.click("#banner >> text=Sign in")
        page.fill("#token", cluster.token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#live.is-live")


def test_the_link_of_titan_open_signs_in_once(
    cluster: Cluster, dashboard: Dashboard, chromium: Any, titan: Any
) -> None:
    """At the page that was named; the second one who opens it has to sign in."""
    cluster.start_worker(8080)
    with cluster.client() as client:
        client.wait(client.submit("shown", [noise(0)]))
    link = titan("open", "shown-1", "--dashboard", dashboard.url).stdout.strip()
    assert re.fullmatch(re.escape(dashboard.url) + r"/open\?t=[0-9a-f]{32}&to=/runs/\w{16}", link)
    first = chromium.new_context().new_page()
    first.goto(link)
    first.wait_for_selector("h1:has-text('shown-1')")
    assert "t=" not in first.url
    second = chromium.new_context().new_page()
    second.goto(link)
    second.wait_for_selector("text=That link was used")
    told = json.loads(titan("open", "-o", "json").stdout)
    assert (told["kind"], told["goodForSeconds"]) == ("Link", 600)
    assert told["url"].startswith("http://localhost:5000/open?t=")


def test_without_a_script_everything_is_there(
    cluster: Cluster, dashboard: Dashboard, chromium: Any
) -> None:
    """Signing in, pages, the theme: by links and forms alone."""
    cluster.start_worker(8080)
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    dashboard.sign_in(tab)
    tab.click("text=Workers >> nth=0")
    tab.wait_for_selector(".slot >> nth=3")
    tab.click("[data-theme-button]")
    tab.wait_for_selector("html[data-theme=light]")
    assert tab.locator(".slot").count() == 4
    context.close()


def test_twelve_tabs_are_live_and_a_plain_page_answers(
    cluster: Cluster, dashboard: Dashboard, page: Any
) -> None:
    """They share one stream, so a browser's six connections are enough."""
    tabs = [page.context.new_page() for _ in range(11)]
    for tab in tabs:
        tab.goto(f"{dashboard.url}/workers")
    cluster.start_worker(8080)
    for tab in tabs:
        tab.wait_for_selector("text=[8080]")
    with urllib.request.urlopen(f"{dashboard.url}/healthz", timeout=20) as answer:
        assert answer.status == 200
    assert page.request.get(f"{dashboard.url}/workers").status == 200


@pytest.mark.needs("axe")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_fault_that_keeps_people_out(
    cluster: Cluster, dashboard: Dashboard, page: Any, theme: str
) -> None:
    """axe-core finds none that is serious; nothing scrolls sideways at 390 pixels."""
    cluster.start_worker(8080)
    with cluster.client() as client:
        client.submit("web", [TitanService(id="API", script="noise.py", args=["600"])])
        client.wait(client.submit("done", [noise(0.1), TitanJob(id="BAD", run="exit 3")]))
        client.submit(
            "goes-on", [noise(60), TitanJob(id="NEXT", run="true", dependencies=["NOISE"])]
        )
    page.context.add_cookies([{"name": "titan_theme", "value": theme, "url": dashboard.url}])
    page.complaints.expected = re.compile("status of 404")  # of a run that there is not
    runs = ["/runs", *(f"/runs/done-1{tab}" for tab in ("", "?tab=gantt", "?tab=jobs"))]
    for path in (
        "/",
        "/workers",
        "/workers/8080",
        "/sign-in",
        *runs,
        "/runs/goes-on-1/log",
        "/services",
        "/do/cancel?target=goes-on-1",
        "/do/launch",
        "/runs/nothing",
        "/runs/goes-on-1/jobs/NOISE",
    ):
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(dashboard.url + path)
            page.wait_for_selector("h1")
            assert faults(page) == [], f"{path} at {width} in {theme}"
            wide = page.evaluate("() => document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide at {width}"


def faults(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    # Into a world of its own: the page's policy lets no other script in, and that is as it should be.
    page.evaluate(script.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run()")
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
