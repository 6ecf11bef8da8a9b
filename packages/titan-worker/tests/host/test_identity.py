"""Who shares what with whom, as the kernel tells it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from titan_worker.host import identity

LINE = "from titan_worker.host import identity; print(identity.network_id())"


def told(*prefix: str) -> subprocess.CompletedProcess[str]:
    """What another process says."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", LINE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_processes_of_one_network_say_the_same_and_it_is_this_boots():
    mine = identity.network_id()
    assert mine.startswith(f"{identity.boot_id()} net:")
    assert told().stdout.strip() == mine


def test_a_process_with_a_network_of_its_own_says_another():
    done = told("unshare", "--net", "--map-root-user")
    if done.returncode:
        pytest.skip(f"no network of its own can be made here: {done.stderr.strip()}")
    other = done.stdout.strip()
    assert other.startswith(identity.boot_id())
    assert other != identity.network_id()


def test_where_the_kernel_tells_nothing_nothing_is_said(monkeypatch):
    monkeypatch.setattr(identity, "_NETWORK", "/nowhere/net")
    assert identity.network_id() == ""
