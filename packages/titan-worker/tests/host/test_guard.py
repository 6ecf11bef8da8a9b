"""An exclusive attempt has a guard: it ends when its lease does, whatever became of its worker."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from titan_worker.clock import read_steady_s
from titan_worker.host import guard as guarding
from titan_worker.host import stub
from titan_worker.host.base import Exit, GuardTimes, SpawnError
from titan_worker.host.census import take_census
from titan_worker.host.identity import read_stat

SLEEP = "echo $$; exec sleep 1000"


def times(term_s=60.0, kill_s=None):
    """So many seconds from now."""
    now_s = read_steady_s()
    return GuardTimes(now_s + term_s, now_s + (term_s if kill_s is None else kill_s))


def is_ready(pidfd):
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the system tells nobody
            await asyncio.sleep(0.005)


async def printed_pid(lab, name):
    await until(lambda: lab.out(name).strip())
    return int(lab.out(name).split()[0])


@pytest.fixture
def held():
    """Descriptors of processes, closed at the end."""
    pidfds = []

    def hold(pid):
        pidfds.append(os.pidfd_open(pid))
        return pidfds[-1]

    yield hold
    for fd in pidfds:
        os.close(fd)


# -- it changes nothing for the job -------------------------------------------------------------------
async def test_ends_are_told_as_those_of_any_other(lab):
    lab.shell("good", "exit 0", guard=times())
    lab.shell("bad", "exit 7", guard=times())
    lab.shell("shot", "kill -9 $$", guard=times())
    lab.shell("termed", "kill -15 $$", guard=times())

    assert await lab.exit_of("good") == Exit(0, 0)
    assert await lab.exit_of("bad") == Exit(7, 0)
    assert await lab.exit_of("shot") == Exit(0, signal.SIGKILL)
    assert await lab.exit_of("termed") == Exit(0, signal.SIGTERM)
    assert lab.host.running == 0


async def test_the_job_finds_what_it_would_find_without_a_guard(lab):
    code = (
        "import os, sys\n"
        "print(repr(sys.stdin.read()), os.getsid(0) == os.getpid() == os.getpgid(0), os.getcwd())\n"
        "print(sorted(os.listdir('/proc/self/fd')), sorted(os.environ.items()))\n"
        "print([l for l in open('/proc/self/status') if l.startswith(('SigIgn', 'SigBlk'))])"
    )
    lab.python("plain", code, env={"MINE": "yes"})
    await lab.exit_of("plain")
    lab.python("guarded", code, env={"MINE": "yes"}, guard=times())
    await lab.exit_of("guarded")

    assert lab.err("guarded") == ""
    assert lab.out("guarded").replace("/guarded", "/plain") == lab.out("plain")


async def test_the_start_is_told_once_the_job_runs_and_before_its_end(lab):
    order = []
    tell_start, tell_exit = lab.host._on_started, lab.host._on_exit
    lab.host._on_started = lambda ref, who: (order.append("start"), tell_start(ref, who))
    lab.host._on_exit = lambda ref, how: (order.append("end"), tell_exit(ref, how))

    lab.start("short", "/bin/true", guard=times())
    await lab.exit_of("short")

    assert order == ["start", "end"]


async def test_a_job_that_is_over_before_its_host_can_look_has_started_and_ended(
    lab, wait_gone, monkeypatch
):
    """Where others have the processor for so long: its end is seen first, and its start not lost."""
    watch = lab.host._watch

    def watch_late(pid, keeper):
        pidfd = watch(pid, keeper)
        assert wait_gone(pidfd)
        return pidfd

    monkeypatch.setattr(lab.host, "_watch", watch_late)
    lab.shell("short", "exit 3", guard=times())

    assert await lab.exit_of("short") == Exit(3, 0)
    assert "short" in lab.started


async def test_what_cannot_be_executed_is_said_and_was_never_started(lab):
    lab.start("broken", "/no/such/program", guard=times())

    exit_of = await lab.exit_of("broken")

    assert "No such file" in exit_of.problem
    assert "broken" not in lab.started
    with pytest.raises(SpawnError, match="too long"):
        lab.start("huge", "/bin/true", "x" * 3_000_000, guard=times())
    assert lab.host.running == 0


async def test_a_guard_that_cannot_start_is_said(lab, monkeypatch):
    monkeypatch.setattr(guarding, "_STUB", "/no/such/stub.py")

    lab.shell("unguarded", "exit 0", guard=times())

    exit_of = await lab.exit_of("unguarded")
    assert "guard ended first" in exit_of.problem
    assert "unguarded" not in lab.started


# -- the lease ----------------------------------------------------------------------------------------
async def test_an_unrenewed_job_is_ended_at_its_times(lab):
    lab.shell(
        "deaf", "trap 'echo heard' TERM; echo $$; while :; do sleep 0.01; done", guard=times()
    )
    await printed_pid(lab, "deaf")  # or its times could be over before it begins
    end = times(0.1, 0.4)
    lab.host.renew(lab.ref("deaf"), end)

    exit_of = await lab.exit_of("deaf")

    assert exit_of == Exit(0, signal.SIGKILL, lease_ended=True)
    assert "heard" in lab.out("deaf")
    assert end.kill_at_s <= read_steady_s() < end.kill_at_s + 5


async def test_a_job_whose_lease_was_over_before_its_guard_began_is_never_started(lab):
    """Found by the simulator, seed 107: the worker had decided in time, and slept."""
    lab.shell("never", "echo ran", guard=times(-0.1))

    assert (await lab.exit_of("never")).lease_ended
    assert lab.out("never") == ""
    assert "never" not in lab.started


async def test_one_that_ends_in_its_grace_was_ended_by_its_lease_all_the_same(lab):
    lab.shell("hears", "trap 'exit 3' TERM; echo $$; while :; do sleep 0.01; done", guard=times())
    await printed_pid(lab, "hears")
    lab.host.renew(lab.ref("hears"), times(0.1, 60))

    assert await lab.exit_of("hears") == Exit(3, 0, lease_ended=True)


async def test_a_renewed_job_goes_on(lab, held):
    lab.shell("goes", SLEEP, guard=times())
    pid = held(await printed_pid(lab, "goes"))
    first = times(0.5)
    lab.host.renew(lab.ref("goes"), first)

    lab.host.renew(lab.ref("goes"), times(60))
    await until(lambda: read_steady_s() > first.kill_at_s + 0.1)
    assert not is_ready(pid)

    lab.host.renew(lab.ref("goes"), times(0.0))
    assert (await lab.exit_of("goes")).lease_ended


async def test_a_renewal_that_comes_too_late_saves_nothing(lab):
    """It has had its SIGTERM: what it does from then on is to end."""
    lab.shell(
        "late", "trap 'echo heard' TERM; echo $$; while :; do sleep 0.01; done", guard=times()
    )
    await printed_pid(lab, "late")
    lab.host.renew(lab.ref("late"), times(0.0, 1))
    await lab.printed("late", "heard")

    lab.host.renew(lab.ref("late"), times(60))

    assert await lab.exit_of("late") == Exit(0, signal.SIGKILL, lease_ended=True)


async def test_renewals_for_others_and_for_the_dead_are_no_trouble(lab):
    lab.shell("plain", "exit 0")
    lab.host.renew(lab.ref("plain"), times())
    await lab.exit_of("plain")
    lab.host.renew(lab.ref("plain"), times())
    lab.host.renew(lab.ref("never"), times())


async def test_a_guard_that_stood_still_acts_as_soon_as_it_goes_on(lab, held):
    """As after a machine that slept: it may be late, it must not be kind."""
    lab.shell("slept", "trap '' TERM; echo $$; while :; do sleep 0.01; done", guard=times())
    job = held(await printed_pid(lab, "slept"))
    keeper = await lab.pid_of("slept")
    end = times(1.0, 1.2)
    lab.host.renew(lab.ref("slept"), end)
    os.kill(keeper, signal.SIGSTOP)
    await until(lambda: read_steady_s() > end.kill_at_s + 0.1)
    assert not is_ready(job)

    os.kill(keeper, signal.SIGCONT)
    woken_s = read_steady_s()

    assert (await lab.exit_of("slept")).lease_ended
    assert read_steady_s() - woken_s < 5
    assert is_ready(job)


# -- stopping -----------------------------------------------------------------------------------------
async def test_it_is_terminated_like_any_other(lab):
    lab.shell("family", "setsid sleep 1000 & echo $$; wait", guard=times())
    await printed_pid(lab, "family")

    lab.host.terminate(lab.ref("family"), force=False)

    assert await lab.exit_of("family") == Exit(0, signal.SIGTERM)


async def test_one_that_ignores_sigterm_needs_force(lab):
    lab.shell("deaf", "trap '' TERM; echo $$; while :; do sleep 0.01; done", guard=times())
    await printed_pid(lab, "deaf")
    lab.host.terminate(lab.ref("deaf"), force=False)

    lab.host.terminate(lab.ref("deaf"), force=True)

    assert await lab.exit_of("deaf") == Exit(0, signal.SIGKILL)


@pytest.mark.parametrize("how", ["ends", "killed", "lease"])
async def test_when_its_end_is_told_nothing_of_it_is_left(lab, held, how):
    """Another worker may begin it at that very moment."""
    lab.python(
        "leaver",
        "import os, signal, sys, time\n"
        "ready, go = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        print(os.getpid(), flush=True)\n"
        "        os.write(go, b'!')\n"
        "        time.sleep(1000)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "os.read(ready, 1)\n" + ("" if how == "ends" else "time.sleep(1000)\n"),
        guard=times(),
    )
    if how == "ends":
        await lab.exit_of("leaver")
        with pytest.raises(ProcessLookupError):
            os.kill(await printed_pid(lab, "leaver"), 0)
        return
    left = held(await printed_pid(lab, "leaver"))
    if how == "killed":
        lab.host.terminate(lab.ref("leaver"), force=True)
    else:
        lab.host.renew(lab.ref("leaver"), times(0.1, 0.3))
    await lab.exit_of("leaver")

    assert is_ready(left)
    assert take_census().children(os.getpid()) == []


async def test_a_guard_that_is_killed_takes_its_job_along(lab, held):
    """By the kernel the first process, by its host what that had let go of, before it is told."""
    lab.shell("orphan", "(setsid sh -c 'echo $$; exec sleep 1000' &); sleep 1000", guard=times())
    job = held(await printed_pid(lab, "orphan"))
    os.kill(await lab.pid_of("orphan"), signal.SIGKILL)

    assert await lab.exit_of("orphan") == Exit(0, signal.SIGKILL)

    assert is_ready(job)
    assert take_census().children(os.getpid()) == []


async def test_closing_ends_it(lab, held):
    lab.shell("left", SLEEP, guard=times())
    job = held(await printed_pid(lab, "left"))

    lab.host.close()

    assert is_ready(job)
    assert take_census().children(os.getpid()) == []
    lab.host._stdin = os.open(os.devnull, os.O_RDONLY)  # for the fixture's own close
    lab.host._home = os.open(".", os.O_RDONLY)


async def test_a_guard_that_stands_still_is_not_waited_for_for_ever(lab, held, monkeypatch):
    monkeypatch.setattr("titan_worker.host.posix._GONE_WITHIN_S", 0.2)
    lab.shell("still", SLEEP, guard=times())
    job = held(await printed_pid(lab, "still"))
    keeper = await lab.pid_of("still")
    # Its last words from its host are lost on it: the host wakes it, this one sleeps on.
    monkeypatch.setattr(lab.host, "terminate", lambda ref, *, force: None)
    os.kill(keeper, signal.SIGSTOP)

    lab.host.close()

    assert read_stat(keeper) is None
    await until(lambda: is_ready(job))
    lab.host._stdin = os.open(os.devnull, os.O_RDONLY)  # for the fixture's own close
    lab.host._home = os.open(".", os.O_RDONLY)


# -- its worker ---------------------------------------------------------------------------------------
HOSTING = """
import asyncio, sys
from titan_proto.ids import AttemptRef
from titan_worker.clock import read_steady_s
from titan_worker.host.base import GuardTimes, LaunchPlan
from titan_worker.host.cgroups import Cgroups
from titan_worker.host.posix import PosixHost

async def main(folder, lease_s, line):
    host = PosixHost(loop=asyncio.get_running_loop(), home=folder, cgroups=Cgroups((), "off"),
                     on_started=lambda *_: print("started", flush=True), on_exit=lambda *_: None)
    end_s = read_steady_s() + float(lease_s)
    plan = LaunchPlan("/bin/sh", ("/bin/sh", "-c", line), {"PATH": "/bin:/usr/bin"}, folder,
                      folder + "/out", folder + "/err")
    host.spawn(AttemptRef("r" * 16, "job", 1), plan, GuardTimes(end_s, end_s))
    await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def hosting(tmp_path):
    """A worker's process host in a process of its own, with one guarded job; its pid and the job's."""
    started = []

    def begin(lease_s, line):
        child = subprocess.Popen(
            [sys.executable, "-c", HOSTING, str(tmp_path), str(lease_s), line],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(child)
        assert child.stdout.readline() == "started\n"
        return child, tmp_path / "out"

    yield begin
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


DAEMONISES = "setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & echo $$; wait"


async def test_a_worker_that_is_killed_takes_the_whole_of_it_along(hosting, held):
    worker, out = hosting(60, DAEMONISES)
    await until(lambda: len(out.read_text().split()) == 2)
    whole = [held(int(word)) for word in out.read_text().split()]

    worker.kill()

    await until(lambda: all(map(is_ready, whole)))


def test_a_worker_that_ends_before_it_heard_of_the_start_takes_all_of_it_along(held):
    """What it had not read makes its end an error of the channel, where it is an end otherwise."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end = times()
    line = "setsid sh -c 'echo $$; exec sleep 60' & wait"
    lease = (repr(end.term_at_s), repr(end.kill_at_s))
    job = ("/bin/sh", "/bin/sh", "-c", line)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", stub.__file__, str(its.fileno()), *lease, "", "", *job],
        pass_fds=[its.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    ) as keeper:
        its.close()
        left = held(int(keeper.stdout.readline()))
        assert select.select([ours], [], [], 10)[0]  # it says that the job runs
        ours.close()

        assert keeper.wait(10) == 0
        assert is_ready(left)


async def test_a_worker_that_stands_still_does_not_keep_its_job_alive(hosting, held):
    worker, out = hosting(3.0, DAEMONISES)
    await until(lambda: len(out.read_text().split()) == 2)
    whole = [held(int(word)) for word in out.read_text().split()]

    os.kill(worker.pid, signal.SIGSTOP)
    await until(lambda: all(map(is_ready, whole)))

    assert worker.poll() is None


# -- the program itself -------------------------------------------------------------------------------
def test_it_needs_nothing_that_is_installed():
    """It starts for every exclusive job: what it loads is the standard library's smallest part."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", stub.__file__],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "IndexError" in done.stderr  # no arguments
    assert not {name for name in loaded if name.startswith(("titan", "msgspec", "asyncio"))}


def test_it_reads_the_clock_that_the_worker_reads():
    assert abs(stub.read_steady_s() - read_steady_s()) < 1
