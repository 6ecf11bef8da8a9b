"""Guards one exclusive job: is its parent, and ends it when its lease ends or its worker does.

A program of its own, run by the worker's interpreter without anything installed (``-I -S``), because
it must act while the worker stands still. It decides nothing: the two times come from the worker's
core, over a socket, again and again. Single-threaded on purpose: what the kernel does at a parent's
death it does at the death of the *thread* that forked.

    stub.py FD TERM_AT KILL_AT JOINS RLIMITS PROGRAM ARGV0 [ARG ...]

    JOINS     files that the job's first process writes 0 into before it begins, one a line
    RLIMITS   WHICH VALUE ..., set for it likewise

    in:   R TERM_AT KILL_AT   the lease is renewed; too late once the job was told to stop for it
          T                   SIGTERM to everything
          (closed)            SIGKILL to everything: the worker says so, or is gone
    out:  S                   the job runs
          F ERRNO             it could not be executed
          E CODE SIGNAL LEASE it ended, and nothing of it is left; LEASE 1: stopped by us
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final, NoReturn

# A program that starts for every exclusive job: no pathlib.
# ruff: noqa: PTH208

_MESSAGE_BYTES: Final = 256
_LOOK_S: Final = 1.0
"""The longest sleep: the system's timers stand still while the machine does, leases do not."""
_PASS_S: Final = 0.005
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_STAT_BYTES: Final = 4096
_SIGNALS_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
"""A terminal's or an operator's signal is for the worker, which then stops its jobs itself."""
_SIGNALS_DEFAULT: Final = (signal.SIGPIPE, signal.SIGXFSZ, *_SIGNALS_IGNORED)
"""What is ignored here, by Python itself or by us, and must not be in the job."""


def read_steady_s() -> float:
    """As ``titan_worker.clock`` reads it; that module cannot be imported here."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Job:
    """The first process, and everything that descends from it."""

    def __init__(self, program: str, argv: list[str], joins: str, rlimits: str) -> None:
        self.exit_code = 0
        self.signal = 0
        # What our descendants let go of becomes our child, and so is found at the end.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        reading, writing = os.pipe()
        guard = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become(program, argv, guard, writing, joins, rlimits)
        os.close(writing)
        # Closed by a successful exec; else it holds the reason.
        self.errno = int(os.read(reading, 16) or b"0")
        os.close(reading)

    def terminate(self) -> None:
        """SIGTERM to all of it, also to what has left its group; and let the stopped ones hear."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
        for pid, start, group in _below(os.getpid()):
            if group != self.pid:
                _signal_exactly(pid, start)

    def end(self) -> None:
        """SIGKILL to whatever is left, until nothing is; the first process's status is kept."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        while self._reap():
            # Only our own children: until we wait for one its number is surely its own. Theirs
            # become ours when they are gone.
            for pid, _start, parent, _group in list(_processes()):
                if parent == os.getpid():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_PASS_S)

    def _reap(self) -> bool:
        """Wait for the dead; whether anybody lives."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                code = os.waitstatus_to_exitcode(status)
                self.exit_code, self.signal = max(0, code), max(0, -code)


def main() -> None:
    """Start the job, guard it, say how it ended."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    term_at_s, kill_at_s = float(sys.argv[2]), float(sys.argv[3])
    for number in _SIGNALS_IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if read_steady_s() >= term_at_s:
        # Our worker decided in time, and stood still before it started us: it is not its job any more.
        _say(channel, "E 0 0 1")
        return
    job = Job(sys.argv[6], sys.argv[7:], sys.argv[4], sys.argv[5])
    if job.errno:
        job.end()
        _say(channel, f"F {job.errno}")
        return
    _say(channel, "S")
    is_lease_over = _guard(channel, job, term_at_s, kill_at_s)
    job.end()
    _say(channel, f"E {job.exit_code} {job.signal} {int(is_lease_over)}")


def _guard(channel: socket.socket, job: Job, term_at_s: float, kill_at_s: float) -> bool:
    """Until the first process is gone or must go; whether that is because of the lease."""
    is_lease_over = False
    first = os.pidfd_open(job.pid)
    poller = select.poll()
    poller.register(first, select.POLLIN)
    poller.register(channel, select.POLLIN)
    while True:
        now_s = read_steady_s()
        if now_s >= kill_at_s:
            return True
        if now_s >= term_at_s and not is_lease_over:
            is_lease_over = True
            job.terminate()
        next_s = kill_at_s if is_lease_over else term_at_s
        ready = {fd for fd, _event in poller.poll(1000 * min(_LOOK_S, max(0.0, next_s - now_s)))}
        if first in ready:
            return is_lease_over
        if channel.fileno() in ready:
            words = _hear(channel)
            if not words:
                return is_lease_over
            if words[0] == b"T":
                job.terminate()
            elif not is_lease_over:
                term_at_s, kill_at_s = float(words[1]), float(words[2])


def _become(
    program: str, argv: list[str], guard: int, writing: int, joins: str, rlimits: str
) -> NoReturn:
    """The child: a session of its own, the signals of a shell, its limits, then the program."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it died before the kernel knew what to do then
            os._exit(1)
        os.setsid()
        for number in _SIGNALS_DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        for path in joins.splitlines():
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b"0")
            os.close(fd)
        if rlimits:
            import resource

            numbers = [int(word) for word in rlimits.split()]
            for which, value in zip(numbers[::2], numbers[1::2], strict=True):
                resource.setrlimit(which, (value, value))
        os.execv(program, argv)  # noqa: S606 - a shell is not what was asked for
    except OSError as error:
        os.write(writing, b"%d" % (error.errno or 1))
    finally:
        os._exit(1)


def _hear(channel: socket.socket) -> list[bytes]:
    """What the worker says; nothing once it is gone."""
    try:
        return channel.recv(_MESSAGE_BYTES).split()
    except ConnectionResetError:  # it went before it had read what we said
        return []


def _say(channel: socket.socket, line: str) -> None:
    # Nobody listens any more: then nobody needs to know.
    with contextlib.suppress(OSError):
        channel.send(line.encode())


def _processes() -> Iterator[tuple[int, int, int, int]]:
    """Every living process: (pid, start time, parent, group)."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat is not None:
                yield stat


def _stat(pid: int) -> tuple[int, int, int, int] | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, _STAT_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in b"ZX":
        return None
    return pid, int(fields[19]), int(fields[1]), int(fields[2])


def _below(root: int) -> list[tuple[int, int, int]]:
    """The living descendants of a process: (pid, start time, group)."""
    found = list(_processes())
    below = {root}
    while True:
        more = {pid for pid, _start, parent, _group in found if parent in below} - below
        if not more:
            return [(pid, start, group) for pid, start, _, group in found if pid in below - {root}]
        below |= more


def _signal_exactly(pid: int, start: int) -> None:
    """SIGTERM to the process that was seen, and to no later one of its number."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        seen = _stat(pid)
        if seen is not None and seen[1] == start:
            for number in (signal.SIGTERM, signal.SIGCONT):
                signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass  # it is gone, or another user's by now
    finally:
        os.close(pidfd)


def _prctl(option: int, value: int) -> None:
    # Where there is no such call the worker's own nets remain.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
