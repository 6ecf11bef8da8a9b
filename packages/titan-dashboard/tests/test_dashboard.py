"""The dashboard's page tells the truth about the master, and lets nothing else in."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from titan_dashboard import create_app, link
from titan_dashboard.cli import main
from titan_dashboard.config import DashboardConfig
from titan_dashboard.link import Sight
from titan_proto.messages import Stats, WorkerView
from titan_proto.states import WorkerState


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    """A browser at a dashboard whose master does not exist (port 1 is nobody's)."""
    config = DashboardConfig(
        master="127.0.0.1:1", environ={"TITAN_TOKEN": "titan_local_x_" + "0" * 64}, folder=tmp_path
    )
    return create_app(config).test_client()


def test_an_unreachable_master_is_said_with_what_to_do(client: FlaskClient) -> None:
    """No master: status 503, its address, and the command that starts one."""
    answer = client.get("/")
    assert answer.status_code == 503
    assert "127.0.0.1:1" in answer.text
    assert "titan up -d" in answer.text


@pytest.mark.parametrize(
    ("problem", "title", "hint"),
    [
        ("no token", "does not let this dashboard in", "TITAN_TOKEN_FILE"),
        ("bad token", "does not let this dashboard in", "TITAN_TOKEN_FILE"),
        ("no address", "No master can be looked for", "--master HOST:PORT"),
        ("no master", "No master can be reached", "titan up -d"),
        ("neither", "No master can be reached", "titan up -d"),
    ],
)
def test_each_trouble_is_said_with_its_own_remedy(
    tmp_path: Path, problem: str, title: str, hint: str
) -> None:
    """A master that refuses is not "no master", and nothing that goes wrong is a page of status 500."""
    environ = {"HOME": str(tmp_path)}
    if problem not in {"no token", "neither"}:
        environ["TITAN_TOKEN"] = "x" if problem == "bad token" else "titan_local_x_" + "0" * 64
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        listening = f"127.0.0.1:{somebody.getsockname()[1]}"
        master = {"no address": "a:b", "no token": listening}.get(problem, "127.0.0.1:1")
        config = DashboardConfig(master=master, environ=environ, folder=tmp_path)
        answer = create_app(config).test_client().get("/")
    assert answer.status_code == 503
    assert title in answer.text
    assert hint in answer.text


@pytest.mark.parametrize(
    "words", [("--port", "99999"), ("--port", "-1"), ("--master", "a:b"), ("--port", "x")]
)
def test_a_wrong_option_is_refused_at_once(words: tuple[str, ...]) -> None:
    """Not by the first page that is viewed, and not with a traceback."""
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2
    assert "Error: Invalid value" in told.output


def test_help_shows_an_example_as_it_is_typed() -> None:
    """On a line of its own."""
    told = CliRunner().invoke(main, ["-h"])
    assert "\n    titan-dashboard --port" in told.output


def test_a_reachable_master_is_named(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's name stands on the page; without a sign-in, no more of it does."""
    worker = WorkerView(
        worker_id="w",
        host="h",
        port=8080,
        state=WorkerState.ONLINE,
        slots=4,
        used=1,
        skills=("GENERAL",),
    )
    stats = Stats(
        cluster_id="c",
        cluster_name="<harbour>",
        term=1,
        at_ms=0,
        started_at_ms=0,
        workers=(worker,),
        runs_active=2,
        queued=3,
        blocked=0,
        delayed=0,
        running=1,
        services=0,
    )
    monkeypatch.setattr("titan_dashboard.look", lambda _: Sight(address="h:1", stats=stats))
    answer = client.get("/")
    assert answer.status_code == 200
    assert "&lt;harbour&gt;" in answer.text
    assert "8080" not in answer.text


def test_a_foreign_host_header_is_refused(client: FlaskClient) -> None:
    """A name that merely resolves to loopback is somebody else's page."""
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_nothing_may_be_loaded_from_elsewhere(client: FlaskClient) -> None:
    """The policy allows our own stylesheet and image, no script, no frame."""
    policy = client.get("/healthz").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    for line in client.get("/").text.splitlines():
        assert "http://" not in line
        assert "https://" not in line


def test_static_files_are_in_the_package(client: FlaskClient) -> None:
    """What the page names is installed with it."""
    for name in ("titan.css", "titan.svg"):
        with client.get(f"/static/{name}") as answer:
            assert answer.status_code == 200


def test_a_signal_ends_the_server_in_good_order() -> None:
    """It says where it serves, answers there, and SIGTERM ends it with 0."""
    with subprocess.Popen(
        [sys.executable, "-m", "titan_dashboard", "--port", "0", "--master", "127.0.0.1:1"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        place = process.stderr.readline().split()[-1]
        with urllib.request.urlopen(f"{place}/healthz", timeout=20) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(20) == 0


def test_only_proto_is_needed() -> None:
    """The dashboard works where neither master, worker nor SDK is installed."""
    code = (
        "import sys, titan_dashboard.cli\n"
        "print(sorted(m for m in sys.modules if m in "
        "('titan_sdk', 'titan_master', 'titan_worker')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
    package = importlib.util.find_spec("titan_dashboard")
    assert package is not None
    assert link.look is not None
