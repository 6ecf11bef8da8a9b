"""The `titan>` prompt as a person meets it: on a terminal, whose screen is read."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from tests.harness.cluster import Cluster

COLUMNS, LINES = 100, 40
PATIENCE_S = 30.0


class Screen:
    """A program on a terminal of its own, and what stands on that."""

    def __init__(self, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],  # so that Ctrl-C reaches it
            cwd=cwd,
            env={**env, "TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": str(LINES)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        """The screen's lines, without the empty ones at its end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def type(self, keys: str) -> None:
        """As if somebody typed it."""
        os.write(self._ours, keys.encode())

    def wait(self, wanted: str, *, times: int = 1) -> str:
        """Until the screen shows it; what the screen shows then."""
        deadline = time.monotonic() + PATIENCE_S
        while self.text.count(wanted) < times:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} never came:\n{self.text}"
            self._read(left)
        return self.text

    def end(self) -> int:
        """The exit code, once it has ended."""
        while self._read(PATIENCE_S):
            pass
        os.close(self._ours)
        return self.process.wait(20)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # on Linux: nobody has the other side open any more
            return False
        self._stream.feed(data)
        if b"\x1b[6n" in data:  # where is the cursor? a terminal answers
            cursor = self._screen.cursor
            os.write(self._ours, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())
        return bool(data)


@pytest.fixture(params=["prompt-toolkit", "readline"])
def open_prompt(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path
) -> Iterator[Callable[[], Screen]]:
    """Opens `titan` on a terminal, with the library of the extra and without it."""
    opened: list[Screen] = []
    here = tmp_path / "here"
    here.mkdir()
    hidden = "import sys; sys.modules['prompt_toolkit'] = None\n"
    program = hidden if request.param == "readline" else "import sys\n"
    program += "from titan_sdk.cli import main; main(sys.argv[1:])\n"

    def open_one() -> Screen:
        opened.append(Screen([sys.executable, "-c", program], here, cluster.client_env()))
        return opened[-1]

    yield open_one
    for screen in opened:
        if screen.process.poll() is None:
            screen.process.kill()
            screen.process.wait()


def test_the_screen_is_the_documents(cluster: Cluster, open_prompt: Callable[[], Screen]) -> None:
    """Banner, prompt, `stats`: line for line."""
    cluster.start_worker(8080)
    screen = open_prompt()
    screen.wait("titan>")
    screen.type("stats\r")

    text = screen.wait("Load:")

    port = cluster.port
    assert text.startswith(
        f"""\
==========================================
    [INFO] TITAN DISTRIBUTED ORCHESTRATOR
==========================================
Connected to: localhost:{port}
Commands: stats, json, submit <skill> <data>, dag <raw_dag>, exit
          run <file>, deploy <file> [port], stop <service_id>, shutdown <port>, help

titan> stats
--- TITAN SYSTEM MONITOR ---
Active Workers:    1
Execution Queue:   0 jobs
Blocked (DAG):     0 jobs
-------------------------------
Worker Status:
 • [8080] Load: 0/4 (0%)     | Skills: [GENERAL]"""
    )
    screen.type("exit\r")
    assert screen.end() == 0


def test_a_master_that_is_started_again_is_talked_to_again(
    cluster: Cluster, open_prompt: Callable[[], Screen]
) -> None:
    """The prompt outlives it; while it is away a command says so."""
    screen = open_prompt()
    screen.wait("titan>")
    assert cluster.master is not None
    cluster.master.stop()
    screen.type("stats\r")
    screen.wait("No Titan master at")
    cluster.start_master()
    screen.type("stats\r")
    screen.wait("Active Workers:    0")
    screen.type("\x04")  # Ctrl-D
    assert screen.end() == 0


def test_lines_are_remembered_and_ids_completed(
    cluster: Cluster, open_prompt: Callable[[], Screen]
) -> None:
    """The arrow key finds the last shell's line; Tab knows the runs of the cluster."""
    cluster.start_worker(8080)
    first = open_prompt()
    first.wait("titan>")
    first.type("dag A|GENERAL|RUN_PAYLOAD|a.py|cHJpbnQoMSk=|5|0|[]\r")
    first.wait("dag-1")
    first.type("exit\r")
    assert first.end() == 0

    second = open_prompt()
    second.wait("titan>")
    second.type("\x1b[A")  # up
    second.wait("titan> exit")
    second.type("\x1b[A")
    second.wait("titan> dag A|GENERAL|RUN_PAYLOAD")
    second.type("\x03")  # Ctrl-C: forget it
    second.wait("titan>", times=2)
    second.type("ps da\t")
    second.wait("titan> ps dag-1")
    second.type("\r")
    second.wait("SUCCEEDED")
    second.type("exit\r")
    assert second.end() == 0
