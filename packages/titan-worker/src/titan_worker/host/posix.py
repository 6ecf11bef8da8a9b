"""Processes on Linux: started in a session of their own, ended with all they started, awaited by pidfd.

There is no thread per child and no code between fork and exec. Everything happens on the loop's
thread, but for the look at every process, which is done only after something ended or is to end.
Called by the engine alone.

`os.posix_spawn` costs half of what `subprocess.Popen` does here (0.08 against 0.16 ms). It cannot
set a working folder, so the worker steps into the attempt's folder for the moment of the call; the
child starts where its parent stands. For that reason no other code of the worker may use a
relative path.

A start is told a few milliseconds late, or together with the end if that comes first: while a
process is still loading its program, the kernel makes whoever asks for its start time wait (0.3 ms,
a third of what a short job costs), and of short jobs one report is enough.

An attempt's group is signalled by its number. What has left the group is found among the
descendants of the first process, or, once its parents are gone, among our own children: this
process is a subreaper. An exclusive attempt is started by ``stub.py``, its guard, which does both
for it.

A service, and an attempt that asks for limits, has a control group of its own where there are any:
whatever is in it when its first process ends is ended with it, at once. Such a process is started
by ``forker.py``, or its guard, which puts it in there before it does anything. What no group can
hold it to is left to rlimits, as far as these can.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import resource
import select
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from titan_proto.ids import AttemptRef
from titan_worker.clock import read_steady_s
from titan_worker.host.base import (
    LOG_FLAGS,
    LOG_MODE,
    Exit,
    GuardTimes,
    LaunchPlan,
    Limits,
    OnExit,
    OnStarted,
    SpawnError,
)
from titan_worker.host.census import (
    Census,
    be_subreaper,
    is_subreaper,
    signal_exactly,
    take_census,
)
from titan_worker.host.cgroups import MEMORY, PIDS, Cgroup, Cgroups
from titan_worker.host.forking import Forker, Hold, HoldFailed
from titan_worker.host.guard import Guard
from titan_worker.host.identity import ProcessIdentity, ProcessStat, read_stat
from titan_worker.host.strays import Stray, Strays

_LOG: Final = logging.getLogger(__name__)
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
_LOOK_MIN_S: Final = 0.002
_LOOK_MAX_S: Final = 0.1
"""Looks at every process follow each other faster or slower while something has to go."""
_LOOK_AFTER_END_S: Final = 1.0
"""How long what an attempt that ended by itself has left outside its group may live on."""
_LOOK_NOW_AND_THEN_S: Final = 5.0
"""While something runs: dead strays are to be waited for."""
_GONE_WITHIN_S: Final = 5.0
_PIDS_SPARE: Final = 256
"""The system counts processes by user: so many others of this one may come while a job runs."""
_NO_HOLD: Final = Hold()
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_CLEAN_UPS: Final = 100
_CLEAN_UP_S: Final = 0.01


class _Child:
    """A first process that has not been waited for: while that holds its pid is its own."""

    __slots__ = (
        "cgroup",
        "guard",
        "pid",
        "pidfd",
        "ref",
        "start_ticks",
        "stopped_by",
        "telling",
        "warned",
    )

    def __init__(
        self, ref: AttemptRef, pid: int, pidfd: int, guard: Guard | None, cgroup: Cgroup | None
    ) -> None:
        self.ref = ref
        self.cgroup = cgroup
        self.pid = pid
        """Of an exclusive attempt: its guard's."""
        self.pidfd = pidfd
        self.guard = guard
        self.start_ticks = 0
        """0 until its start has been told."""
        self.stopped_by = 0
        """The strongest signal that was asked for."""
        self.telling: asyncio.TimerHandle | None = None
        """Until its start has been told."""
        self.warned: set[ProcessIdentity] = set()
        """What has had its SIGTERM outside the group."""


class _Coming:
    """An attempt whose first process was asked for, and not told of yet."""

    __slots__ = ("asked_ticks", "cgroup", "plan", "stopped_by")

    def __init__(self, plan: LaunchPlan, cgroup: Cgroup | None) -> None:
        self.plan = plan
        self.cgroup = cgroup
        self.asked_ticks = int(read_steady_s() * _TICKS_PER_S) - 1
        """No process of it began before."""
        self.stopped_by = 0


class _Leaving(NamedTuple):
    """A first process is gone, and the attempt's end not told yet: something may be left of it."""

    child: _Child
    how: Exit
    look: int
    """Only a look that began after this one counts."""
    deadline_s: float


class PosixHost:
    """The ProcessHost of this machine."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        home: str,
        cgroups: Cgroups,
        on_started: OnStarted,
        on_exit: OnExit,
    ) -> None:
        self._loop = loop
        self._cgroups = cgroups
        self._forker = Forker(loop)
        self._coming: dict[AttemptRef, _Coming] = {}
        # Their attempts are over, and something in them was still dying.
        self._old_cgroups: list[Cgroup] = []
        self._on_started = on_started
        self._on_exit = on_exit
        self._children: dict[AttemptRef, _Child] = {}
        self._leaving: dict[AttemptRef, _Leaving] = {}
        self._strays = Strays(home)
        self.siblings: set[int] = set()
        """Workers that this process has spawned: its children too, and no job's strays ..."""
        self.siblings_spared = self._strays.spared
        """... nor are those that have one of these variables with this very value."""
        # A thread of its own: those of the loop may be busy for long with copies of large files.
        self._observer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="census")
        self._looks = 0
        self._is_looking = False
        self._look_again_s = 0.0
        """When the next look is due that was asked for during one; 0: none was."""
        self._look_timer: asyncio.TimerHandle | None = None
        self._pause_s = _LOOK_MIN_S
        self._is_closed = False
        self._stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._was_subreaper = is_subreaper()
        # What the forker starts becomes our child by that.
        self._can_hold = be_subreaper(wanted=True)
        if not self._can_hold:
            _LOG.warning(
                "no_subreaper why=this system has none: what leaves its job is found by its "
                "environment alone, and no job is held to limits"
            )
        _keep_descriptors()

    @property
    def running(self) -> int:
        """First processes not yet waited for."""
        return len(self._children) + len(self._coming)

    # -- starting -------------------------------------------------------------------------------
    def spawn(self, ref: AttemptRef, plan: LaunchPlan, guard: GuardTimes | None) -> None:
        """Start the attempt's first process in a session of its own. Raises SpawnError."""
        cgroup = self._make_cgroup(ref, plan)
        hold = Hold(rlimits=self._rlimits(plan.limits))
        if cgroup is not None:
            hold = hold._replace(born_in=cgroup.born_in, joins=cgroup.joins)
        keeper: Guard | None = None
        try:
            if guard is not None:
                keeper, pid = self._start_guarded(plan, guard, hold)
            elif hold != _NO_HOLD:
                self._start_held(ref, plan, hold, cgroup)
                return
            else:
                pid = self._start(plan, plan.program, plan.argv)
            pidfd = self._watch(pid, keeper)
        except SpawnError:
            if cgroup is not None:
                self._let_go(cgroup)
            raise
        self._began(ref, pid, pidfd, keeper, cgroup)

    def _began(
        self,
        ref: AttemptRef,
        pid: int,
        pidfd: int,
        keeper: Guard | None,
        cgroup: Cgroup | None,
    ) -> _Child:
        child = self._children[ref] = _Child(ref, pid, pidfd, keeper, cgroup)
        self._loop.add_reader(pidfd, self._first_process_ended, child)
        if keeper is None:
            child.telling = self._loop.call_later(_TELL_AFTER_S, self._tell_start, child)
        else:
            self._loop.add_reader(keeper.fileno(), self._hear, child, keeper)
        return child

    def _watch(self, pid: int, keeper: Guard | None) -> int:
        try:  # it has not been waited for, so the number is surely its own
            return os.pidfd_open(pid)
        except OSError as error:  # no descriptor is left: nobody could ever hear of its end
            if keeper is None:
                _signal_group(pid, signal.SIGKILL)
            else:
                keeper.close()  # it ends its job, and then itself
            os.waitpid(pid, 0)
            raise SpawnError(f"cannot watch process {pid}: {error.strerror}") from error

    def _start_guarded(self, plan: LaunchPlan, times: GuardTimes, hold: Hold) -> tuple[Guard, int]:
        try:
            guard = Guard()
        except OSError as error:
            raise SpawnError(_explain(plan, error)) from error
        try:
            pid = self._start(plan, sys.executable, guard.argv(plan, times, hold), guard.handed)
        except SpawnError:
            guard.close()
            raise
        guard.started()
        return guard, pid

    def _start(
        self,
        plan: LaunchPlan,
        program: str,
        argv: tuple[str, ...],
        *handed: tuple[int, int],
    ) -> int:
        """The pid of the new process; `handed`: what else it is given, as (ours, its)."""
        opened: list[int] = []
        try:
            opened.append(os.open(plan.stdout, LOG_FLAGS, LOG_MODE))
            opened.append(os.open(plan.stderr, LOG_FLAGS, LOG_MODE))
            os.chdir(plan.folder)
            # All descriptors of this process but these close at exec: Python opens them so, and
            # those the worker was started with have been set so.
            return os.posix_spawn(
                program,
                argv,
                plan.env,
                file_actions=(
                    *((os.POSIX_SPAWN_DUP2, mine, its) for mine, its in handed),
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

    def _start_held(
        self, ref: AttemptRef, plan: LaunchPlan, hold: Hold, cgroup: Cgroup | None
    ) -> None:
        """Have a process put under `hold` before it becomes its program: its start is told later."""
        opened: list[int] = []
        try:
            opened.append(os.open(plan.stdout, LOG_FLAGS, LOG_MODE))
            opened.append(os.open(plan.stderr, LOG_FLAGS, LOG_MODE))
            self._coming[ref] = _Coming(plan, cgroup)
            answered = partial(self._held_started, ref)
            self._forker.start(plan, hold, (opened[0], opened[1]), answered)
        except (OSError, ValueError) as error:
            self._coming.pop(ref, None)
            raise SpawnError(_explain_held(plan, error)) from error
        finally:
            for fd in opened:
                os.close(fd)

    def _held_started(self, ref: AttemptRef, answer: int | OSError) -> None:
        coming = self._coming.pop(ref)
        try:
            if isinstance(answer, OSError):
                raise SpawnError(_explain_held(coming.plan, answer)) from answer
            pidfd = self._watch(answer, None)
        except SpawnError as error:
            if coming.cgroup is not None:
                self._let_go(coming.cgroup)
            if not self._is_closed:
                self._on_exit(ref, Exit(1, 0, problem=str(error)))
            return
        self._began(ref, answer, pidfd, None, coming.cgroup)
        if coming.stopped_by:
            self.terminate(ref, force=coming.stopped_by == signal.SIGKILL)

    # -- limits ---------------------------------------------------------------------------------
    def _make_cgroup(self, ref: AttemptRef, plan: LaunchPlan) -> Cgroup | None:
        """The group that this process shall run in, if any. Raises SpawnError."""
        if not self._can_hold:
            return None
        try:
            return self._cgroups.make(ref, plan.limits, is_service=plan.is_service)
        except OSError as error:
            if any(plan.limits):
                raise SpawnError(
                    f"it could not be given limits: {error.strerror} ({error.filename})"
                ) from error
            _LOG.warning("no_cgroup attempt=%s why=%s", ref, error)
            return None

    def _rlimits(self, limits: Limits) -> tuple[tuple[int, int], ...]:
        """What no group can hold a process to, as far as the system can by itself.

        Memory for each process, not for all of them together; processes by user, with room for
        others. Nothing for processor time: a limit of that kind would end the job.
        """
        held = self._cgroups.limits
        found = []
        if not self._can_hold:
            return ()
        if limits.memory_bytes and MEMORY not in held:
            found.append((resource.RLIMIT_DATA, limits.memory_bytes))
        if limits.pids and PIDS not in held:
            most = _tasks_of_user() + limits.pids + _PIDS_SPARE
            found.append((resource.RLIMIT_NPROC, most))
        return tuple(
            (which, value if hard == resource.RLIM_INFINITY else min(value, hard))
            for which, value in found
            for hard in (resource.getrlimit(which)[1],)
        )

    def _let_go(self, cgroup: Cgroup) -> None:
        """Its attempt is over: it goes as soon as nothing in it is left."""
        if not cgroup.remove():
            self._old_cgroups.append(cgroup)
            self._look_within(_LOOK_MIN_S)

    def _remove_old_cgroups(self) -> None:
        for cgroup in list(self._old_cgroups):
            cgroup.kill()
            if cgroup.remove():
                self._old_cgroups.remove(cgroup)

    def _tell_start(self, child: _Child) -> None:
        child.telling = None
        stat = read_stat(child.pid)
        assert stat is not None  # until it is waited for, /proc shows it, dead or alive
        child.start_ticks = stat.start_ticks
        self._strays.attempt_started(stat.start_ticks)
        self._on_started(child.ref, ProcessIdentity(child.pid, stat.start_ticks))

    # -- guards ---------------------------------------------------------------------------------
    def renew(self, ref: AttemptRef, guard: GuardTimes) -> None:
        """The attempt's guard may wait longer; nothing if there is none."""
        child = self._children.get(ref)
        if child is not None and child.guard is not None:
            child.guard.renew(guard)

    def _hear(self, child: _Child, guard: Guard) -> None:
        """The guard says that the job runs, or how it ended: that counts once it is gone itself."""
        if not guard.hear():
            self._loop.remove_reader(guard.fileno())
        if guard.has_begun and not child.start_ticks:
            self._tell_start(child)

    # -- stopping -------------------------------------------------------------------------------
    def terminate(self, ref: AttemptRef, *, force: bool) -> None:
        """SIGTERM to all of the attempt, with `force` SIGKILL; nothing if it is not running."""
        child = self._children.get(ref)
        if child is None:
            coming = self._coming.get(ref)
            if coming is not None:
                coming.stopped_by = signal.SIGKILL if force else signal.SIGTERM
            return
        child.stopped_by = signal.SIGKILL if force else signal.SIGTERM
        if child.guard is not None:
            _signal_group(child.pid, signal.SIGCONT)
            if force:
                if child.cgroup is not None:
                    child.cgroup.kill()
                child.guard.kill()
            else:
                child.guard.terminate()
            return
        if force:
            if child.cgroup is not None:
                child.cgroup.kill()
            _signal_group(child.pid, signal.SIGKILL)
        else:
            _signal_group(child.pid, signal.SIGTERM)
            # A stopped process would never see the SIGTERM.
            _signal_group(child.pid, signal.SIGCONT)
        self._look_within(0.0)

    def kill_all(self) -> None:
        """SIGKILL to all of every attempt, now. Their ends are still told."""
        for ref in [*self._children, *self._coming]:
            self.terminate(ref, force=True)

    def close(self) -> None:
        """Kill and await what still runs, without telling anybody; give the descriptors back."""
        self._is_closed = True
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._observer.shutdown(wait=False, cancel_futures=True)
        self._forker.close()
        self.kill_all()
        for child in self._children.values():
            if child.telling is not None:
                child.telling.cancel()
            self._loop.remove_reader(child.pidfd)
            _await_end(child)
            if child.guard is not None:
                self._loop.remove_reader(child.guard.fileno())
                child.guard.close()
            if child.cgroup is not None:
                self._old_cgroups.append(child.cgroup)
        self._old_cgroups += [
            leaving.child.cgroup
            for leaving in self._leaving.values()
            if leaving.child.cgroup is not None
        ]
        self._children.clear()
        for _ in range(_CLEAN_UPS):
            census = take_census()
            strays, dead = self._strays.find(census, known=self.siblings, running={})
            self._kill_strays(census, strays)
            self._remove_old_cgroups()
            if not strays and not dead and not self._old_cgroups:
                break
            time.sleep(_CLEAN_UP_S)
        self._cgroups.close()
        if not self._was_subreaper:
            be_subreaper(wanted=False)
        os.close(self._stdin)
        os.close(self._home)

    # -- ends -----------------------------------------------------------------------------------
    def _first_process_ended(self, child: _Child) -> None:
        if child.telling is not None:
            child.telling.cancel()
            self._tell_start(child)
        if child.guard is not None:
            # All that it had to say is there. Before waiting, too: perhaps the start is told now.
            self._hear(child, child.guard)
        self._loop.remove_reader(child.pidfd)
        os.close(child.pidfd)
        # Before waiting: until then the group's number is surely ours.
        _signal_group(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        del self._children[child.ref]
        code = os.waitstatus_to_exitcode(status)
        how = Exit(code, 0) if code >= 0 else Exit(0, -code)
        if child.guard is not None:
            how = child.guard.verdict(how)
            self._loop.remove_reader(child.guard.fileno())
            child.guard.close()
        was_cut_short = child.guard is not None and not child.guard.has_finished
        is_left = _group_exists(child.pid)
        if child.cgroup is not None:
            child.cgroup.kill()
            how = how._replace(oom_killed=child.cgroup.oom_kills() > 0)
            is_left = is_left or not child.cgroup.is_empty
        if child.stopped_by or was_cut_short or is_left:
            deadline_s = self._loop.time() + _GONE_WITHIN_S
            self._leaving[child.ref] = _Leaving(child, how, self._looks, deadline_s)
            self._look_within(0.0)
        else:
            self._look_within(_LOOK_AFTER_END_S)
            if child.cgroup is not None:
                self._let_go(child.cgroup)
            self._on_exit(child.ref, how)

    # -- looking at every process ---------------------------------------------------------------
    def _look_within(self, wait_s: float) -> None:
        """Look so soon, or sooner if that is planned already."""
        when_s = self._loop.time() + wait_s
        if self._is_closed:
            return
        if self._is_looking:  # what it sees may be older than what is to be seen
            self._look_again_s = min(when_s, self._look_again_s or when_s)
            return
        if self._look_timer is not None:
            if self._look_timer.when() <= when_s:
                return
            self._look_timer.cancel()
        self._look_timer = self._loop.call_at(when_s, self._look)

    def _look(self) -> None:
        self._look_timer = None
        self._is_looking = True
        self._looks += 1
        future = self._loop.run_in_executor(self._observer, take_census)
        future.add_done_callback(partial(self._looked, self._looks))

    def _looked(self, look: int, future: asyncio.Future[Census]) -> None:
        self._is_looking = False
        if self._is_closed or future.cancelled():
            return
        if self._look_again_s:
            self._look_timer = self._loop.call_at(self._look_again_s, self._look)
            self._look_again_s = 0.0
        try:
            census = future.result()
        except OSError as error:  # no descriptor is left just now
            _LOG.warning("processes_unseen why=%s", error.strerror)
            self._look_within(_LOOK_MAX_S)
            return
        for child in self._children.values():
            if child.stopped_by and child.guard is None:
                self._signal_descendants(census, child)
        # What it has started by now is known from here on; one at most may be on its way.
        self._forker.hear()
        running = {ref: child.start_ticks for ref, child in self._children.items()}
        known = {child.pid for child in self._children.values()} | self.siblings
        until_ticks = min(
            (coming.asked_ticks for coming in self._coming.values()), default=math.inf
        )
        strays, dead = self._strays.find(
            census,
            known=known,
            running=running | dict.fromkeys(self._coming, 0),
            until_ticks=until_ticks,
        )
        self._kill_strays(census, strays)
        self._remove_old_cgroups()
        for leaving in list(self._leaving.values()):
            self._see_off(leaving, look, census, strays, dead)
        self._plan_next_look(is_going=any(stray.is_doomed for stray in strays) or dead > 0)

    def _plan_next_look(self, *, is_going: bool) -> None:
        if is_going or self._leaving or self._old_cgroups:
            self._look_within(self._pause_s)
            self._pause_s = min(self._pause_s * 2, _LOOK_MAX_S)
            return
        self._pause_s = _LOOK_MIN_S
        if self._children:
            self._look_within(_LOOK_NOW_AND_THEN_S)

    def _signal_descendants(self, census: Census, child: _Child) -> None:
        """What a stopped attempt's processes have started beside its group."""
        for stat in census.below(child.pid):
            if stat.group != child.pid:
                self._stop_one(stat, child)

    def _kill_strays(self, census: Census, strays: list[Stray]) -> None:
        killed = 0
        for stray in strays:
            owner = self._children.get(stray.ref) if stray.ref is not None else None
            for stat in (stray.stat, *census.below(stray.stat.pid)):
                if stray.is_doomed:
                    signal_exactly(stat, signal.SIGKILL)
                    killed += 1
                elif owner is not None and owner.stopped_by:
                    self._stop_one(stat, owner)
        if killed:
            _LOG.info("strays_killed count=%d", killed)

    def _stop_one(self, stat: ProcessStat, child: _Child) -> None:
        identity = ProcessIdentity(stat.pid, stat.start_ticks)
        if child.stopped_by == signal.SIGKILL:
            signal_exactly(stat, signal.SIGKILL)
        elif identity not in child.warned:
            child.warned.add(identity)
            signal_exactly(stat, signal.SIGTERM, signal.SIGCONT)

    def _see_off(
        self, leaving: _Leaving, look: int, census: Census, strays: list[Stray], dead: int
    ) -> None:
        """Tell an attempt's end once nothing of it executes any more."""
        ref, group, cgroup = leaving.child.ref, leaving.child.pid, leaving.child.cgroup
        is_group_alive = census.executes(group) and _group_exists(group)
        if is_group_alive:
            # A member may have forked while the first signal went round.
            _signal_group(group, signal.SIGKILL)
        is_left = (
            is_group_alive
            or dead > 0  # it may have let go of more while we looked
            or any(stray.is_doomed and stray.ref in {None, ref} for stray in strays)
            or (cgroup is not None and not cgroup.is_empty)
        )
        if look <= leaving.look or is_left:
            if self._loop.time() < leaving.deadline_s:
                return
            _LOG.warning("leftovers_remain attempt=%s group=%d", ref, group)
        del self._leaving[ref]
        if cgroup is not None:
            self._let_go(cgroup)
        self._on_exit(ref, leaving.how)


def _tasks_of_user() -> int:
    """Processes and threads of this user, as RLIMIT_NPROC counts them, more or less."""
    own, count = os.geteuid(), 0
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == own:
                    # A folder's links: itself, its name above, and one for each thread below.
                    count += Path(entry.path, "task").stat().st_nlink - 2
    return count


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


def _await_end(child: _Child) -> None:
    """Wait for a first process that was killed, for a guard only so long."""
    poller = select.poll()
    poller.register(child.pidfd, select.POLLIN)
    if child.guard is not None and not poller.poll(_GONE_WITHIN_S * 1000):
        _signal_group(child.pid, signal.SIGKILL)
    os.close(child.pidfd)
    os.waitpid(child.pid, 0)


def _explain_held(plan: LaunchPlan, error: OSError | ValueError) -> str:
    if isinstance(error, HoldFailed):
        return f"it could not be put under its limits: {error.strerror}"
    return _explain(plan, error)


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
