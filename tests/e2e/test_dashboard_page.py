"""The dashboard as a browser sees it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster, Daemon

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging",
]


@pytest.mark.needs("chromium")
@pytest.mark.timeout(120)
def test_the_page_in_a_browser(cluster: Cluster, tmp_path: Path) -> None:
    """It names the cluster while its master answers, says so when not, and logs no error."""
    dashboard = Daemon(
        [sys.executable, "-m", "titan_dashboard", "--port", "0"],
        ready=re.compile(r"titan-dashboard ready on (http://\S+)"),
        log=tmp_path / "dashboard.log",
        env=cluster.client_env(),
        cwd=tmp_path,
    )
    try:
        place = dashboard.wait_ready().group(1)
        with cluster.client() as client:
            name = client.stats().cluster_name
        page = _look(place, tmp_path / "profile")
        assert f"<strong>{name}</strong>" in page
        master = cluster.master
        assert master is not None
        master.kill()
        assert "No master can be reached" in _look(place, tmp_path / "profile")
    finally:
        dashboard.stop()
        cluster.start_master()


def _look(place: str, profile: Path) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    done = subprocess.run(
        [program, *QUIET, f"--user-data-dir={profile}", "--dump-dom", place],
        env={**os.environ, "HOME": str(profile)},  # it keeps more than its profile
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout
