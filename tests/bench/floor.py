"""The floor: what a plain Python loop needs for the same processes on the same file system.

For each process it makes a folder and a log file and spawns the command there with `subprocess`,
under the same number of slots. It keeps nothing, survives nothing and talks to nobody; what Titan
takes beyond it is the price of all that Titan does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from pathlib import Path


def _spawn(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    folder.mkdir()
    with (folder / "stdout.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _reap(running: dict[int, subprocess.Popen[bytes]]) -> None:
    pid, status = os.wait()
    running.pop(pid).returncode = os.waitstatus_to_exitcode(status)


def makespan(root: Path, jobs: int, slots: int, command: list[str]) -> float:
    """Seconds for `jobs` processes, at most `slots` at a time."""
    root.mkdir()
    running: dict[int, subprocess.Popen[bytes]] = {}
    begin = time.perf_counter()
    for number in range(jobs):
        if len(running) == slots:
            _reap(running)
        process = _spawn(root / str(number), command)
        running[process.pid] = process
    while running:
        _reap(running)
    return time.perf_counter() - begin


def hop(root: Path, jobs: int, command: list[str]) -> float:
    """Seconds per process when each waits for the one before."""
    return makespan(root, jobs, 1, command) / jobs


def moment_latencies(count: int) -> list[float]:
    """How long after its moment a process starts that a plain loop waits for and spawns, in seconds."""
    late = []
    for _ in range(count):
        at_s = time.time() + 0.1
        time.sleep(at_s - time.time())
        done = subprocess.run(STAMP, capture_output=True, text=True, check=True)
        late.append(float(done.stdout) - at_s)
    return late


def start_latencies(root: Path, tries: int) -> list[float]:
    """Seconds from the decision to the process's own first time stamp, once per try."""
    root.mkdir()
    found = []
    for number in range(tries):
        folder = root / str(number)
        begin = time.time()
        _spawn(folder, STAMP).wait()
        found.append(float((folder / "stdout.log").read_text()) - begin)
    return found


def log_copy(root: Path, command: list[str]) -> float:
    """Seconds for what a process prints: to its file, from there through a socket, to another file."""
    root.mkdir()
    near, far = socket.socketpair()
    begin = time.perf_counter()
    with near, far, (root / "copy.log").open("wb") as copy:
        process = _spawn(root / "job", command)

        def send() -> None:
            with (root / "job" / "stdout.log").open("rb") as log:
                is_over = False
                while not is_over:
                    is_over = process.poll() is not None  # before reading: the rest comes then
                    while block := log.read(_BLOCK_BYTES):
                        near.sendall(block)
            near.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while block := far.recv(_BLOCK_BYTES):
            copy.write(block)
        sender.join()
    return time.perf_counter() - begin


_BLOCK_BYTES = 256 * 1024

STAMP = ["date", "+%s.%N"]
"""A process whose first act is to print the time; all it costs, the floor pays too."""
