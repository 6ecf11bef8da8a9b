"""One master per data folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from titan_master.leadership.base import NotLeading
from titan_master.leadership.solo import SoloLeadership

HOLDER = """
import sys
from pathlib import Path
from titan_master.leadership.solo import SoloLeadership

SoloLeadership(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_is_refused_at_once_and_told_who_has_it(tmp_path):
    """It does not wait."""
    first = SoloLeadership(tmp_path / "lock")
    first.acquire()
    with pytest.raises(NotLeading, match=str(os.getpid())):
        SoloLeadership(tmp_path / "lock").acquire()
    first.resign()


def test_after_resigning_the_next_one_leads_and_no_file_is_left(tmp_path):
    """Resigning twice is resigning once."""
    for _ in range(2):
        leadership = SoloLeadership(tmp_path / "lock")
        leadership.acquire()
        leadership.resign()
        leadership.resign()
        assert not (tmp_path / "lock").exists()


def test_a_holder_that_is_killed_holds_nothing(tmp_path):
    """The kernel gives the lock back, whatever lies in the file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(NotLeading, match=str(holder.pid)):
            SoloLeadership(tmp_path / "lock").acquire()
        holder.kill()
    mine = SoloLeadership(tmp_path / "lock")
    mine.acquire()
    mine.resign()
