"""Processes on Linux: started in a session of their own, ended as a group, awaited by pidfd.

There is no thread per child and no code between fork and exec. Everything happens on the loop's
thread. Called by the engine alone.

`os.posix_spawn` costs half of what `subprocess.Popen` does here (0.08 against 0.16 ms). It cannot
set a working folder, so the worker steps into the attempt's folder for the moment of the call; the
child starts where its parent stands. For that reason no other code of the worker may use a
relative path.

A start is told a few milliseconds late, or together with the end if that comes first: while a
process is still loading its program, the kernel makes whoever asks for its start time wait (0.3 ms,
a third of what a short job costs), and of short jobs one report is enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from pathlib import Path
from typing import Final

from titan_proto.ids import AttemptRef
from titan_worker.host.base import Exit, LaunchPlan, OnExit, OnStarted, SpawnError
from titan_worker.host.identity import ProcessIdentity, list_pids, read_stat

_LOG: Final = logging.getLogger(__name__)
_LOG_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_LOG_MODE: Final = 0o644
_SIGNALS_DEFAULT: Final = (
    # Python ignores these itself; a job starts with what a shell would give it.
    signal.SIGPIPE,
    signal.SIGXFSZ,
    # A worker started by nohup, or in the background of a script, was given these ignored.
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
)
_TELL_AFTER_S: Final = 0.005
_GROUP_CHECK_S: Final = 0.002
_GROUP_CHECK_MAX_S: Final = 0.1
_GROUP_GONE_WITHIN_S: Final = 5.0


class _Child:
    """A first process that has not been waited for: while that holds its pid is its own."""

    __slots__ = ("pid", "pidfd", "ref", "telling")

    def __init__(self, ref: AttemptRef, pid: int, pidfd: int) -> None:
        self.ref = ref
        self.pid = pid
        self.pidfd = pidfd
        self.telling: asyncio.TimerHandle | None = None
        """Until its start has been told."""


class PosixHost:
    """The ProcessHost of this machine."""

    def __init__(
        self, *, loop: asyncio.AbstractEventLoop, on_started: OnStarted, on_exit: OnExit
    ) -> None:
        self._loop = loop
        self._on_started = on_started
        self._on_exit = on_exit
        self._children: dict[AttemptRef, _Child] = {}
        self._stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _keep_descriptors()

    @property
    def running(self) -> int:
        """First processes not yet waited for."""
        return len(self._children)

    def spawn(self, ref: AttemptRef, plan: LaunchPlan) -> None:
        """Start the attempt's first process in a session of its own. Raises SpawnError."""
        pid = self._start(plan)
        try:  # it has not been waited for, so the number is surely its own
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # no descriptor is left: nobody could ever hear of its end
            _signal_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise SpawnError(f"cannot watch process {pid}: {error.strerror}") from error
        child = self._children[ref] = _Child(ref, pid, pidfd)
        self._loop.add_reader(pidfd, self._first_process_ended, child)
        child.telling = self._loop.call_later(_TELL_AFTER_S, self._tell_start, child)

    def _start(self, plan: LaunchPlan) -> int:
        """The pid of the new process."""
        opened: list[int] = []
        try:
            opened.append(os.open(plan.stdout, _LOG_FLAGS, _LOG_MODE))
            opened.append(os.open(plan.stderr, _LOG_FLAGS, _LOG_MODE))
            os.chdir(plan.folder)
            # All descriptors of this process but these three close at exec: Python opens them
            # so, and those the worker was started with have been set so.
            return os.posix_spawn(
                plan.program,
                plan.argv,
                plan.env,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, self._stdin, 0),
                    (os.POSIX_SPAWN_DUP2, opened[0], 1),
                    (os.POSIX_SPAWN_DUP2, opened[1], 2),
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS_DEFAULT,
            )
        except (OSError, ValueError) as error:
            raise SpawnError(_explain(plan, error)) from error
        finally:
            os.fchdir(self._home)
            for fd in opened:
                os.close(fd)

    def terminate(self, ref: AttemptRef, *, force: bool) -> None:
        """SIGTERM to the attempt's group, with `force` SIGKILL; nothing if it is not running."""
        child = self._children.get(ref)
        if child is None:
            return
        if force:
            _signal_group(child.pid, signal.SIGKILL)
            return
        _signal_group(child.pid, signal.SIGTERM)
        _signal_group(child.pid, signal.SIGCONT)  # a stopped process would never see the SIGTERM

    def kill_all(self) -> None:
        """SIGKILL to every group, now. Their ends are still told."""
        for child in self._children.values():
            _signal_group(child.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill and await what still runs, without telling anybody; give the descriptors back."""
        self.kill_all()
        for child in self._children.values():
            if child.telling is not None:
                child.telling.cancel()
            self._loop.remove_reader(child.pidfd)
            os.close(child.pidfd)
            os.waitpid(child.pid, 0)
        self._children.clear()
        os.close(self._stdin)
        os.close(self._home)

    def _tell_start(self, child: _Child) -> None:
        child.telling = None
        stat = read_stat(child.pid)
        assert stat is not None  # until it is waited for, /proc shows it, dead or alive
        self._on_started(child.ref, ProcessIdentity(child.pid, stat.start_ticks))

    def _first_process_ended(self, child: _Child) -> None:
        if child.telling is not None:
            child.telling.cancel()
            self._tell_start(child)
        self._loop.remove_reader(child.pidfd)
        os.close(child.pidfd)
        # Before waiting: until then the group's number is surely ours.
        _signal_group(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        del self._children[child.ref]
        code = os.waitstatus_to_exitcode(status)
        how = Exit(code, 0) if code >= 0 else Exit(0, -code)
        if _group_exists(child.pid):
            deadline = self._loop.time() + _GROUP_GONE_WITHIN_S
            self._loop.call_later(
                _GROUP_CHECK_S, self._await_group, child, how, _GROUP_CHECK_S, deadline
            )
        else:
            self._on_exit(child.ref, how)

    def _await_group(self, child: _Child, how: Exit, waited_s: float, deadline: float) -> None:
        """Tell the end once nothing of the group executes any more."""
        if _group_exists(child.pid) and _group_executes(child.pid):
            # A member may have forked while the first signal went round.
            _signal_group(child.pid, signal.SIGKILL)
            if self._loop.time() < deadline:
                wait_s = min(waited_s * 2, _GROUP_CHECK_MAX_S)
                self._loop.call_later(wait_s, self._await_group, child, how, wait_s, deadline)
                return
            _LOG.warning("leftovers_remain attempt=%s group=%d", child.ref, child.pid)
        self._on_exit(child.ref, how)


def _keep_descriptors() -> None:
    """What the worker itself was started with is not for its jobs."""
    for entry in Path("/proc/self/fd").iterdir():
        fd = int(entry.name)
        if fd > 2:
            with contextlib.suppress(OSError):  # the listing's own, closed by now
                os.set_inheritable(fd, False)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        # Every member has changed its user; nothing that an ordinary worker may do about it.
        _LOG.warning("signal_refused group=%d signal=%d", group, number)


def _group_exists(group: int) -> bool:
    """Whether the group has a member, dead ones that nobody waited for included."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _group_executes(group: int) -> bool:
    """Whether a member of the group is alive. Looks at every process: for rare moments only."""
    stats = (read_stat(pid) for pid in list_pids())
    return any(stat.group == group and stat.is_alive for stat in stats if stat is not None)


def _explain(plan: LaunchPlan, error: OSError | ValueError) -> str:
    """Why the process did not start, in words."""
    if isinstance(error, ValueError):
        return f"cannot start {plan.program}: {error}"
    if error.errno == errno.ENOEXEC:
        return (
            f"cannot execute {plan.program}: it is no program of this machine. "
            "A script needs a first line such as #!/bin/sh, or a name that ends in .py or .sh"
        )
    if error.errno == errno.EACCES and error.filename in {None, plan.program}:
        return f"cannot execute {plan.program}: it has no execute permission (chmod +x)"
    if error.errno == errno.ENOENT and error.filename in {None, plan.program}:
        return (
            f"cannot execute {plan.program}: it, or the interpreter in its first line, is missing"
        )
    if error.errno == errno.E2BIG:
        return f"cannot start {plan.program}: its arguments and environment are too long"
    return f"cannot start {plan.program}: {error.strerror} ({error.filename or plan.folder})"
