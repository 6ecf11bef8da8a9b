"""Leftovers of earlier lives are killed, and nobody else is."""

import os
import subprocess
import sys

import pytest

from titan_proto.ids import AttemptRef
from titan_worker.host import orphans
from titan_worker.host.identity import ProcessIdentity, is_running, read_stat

# Its own for each run of the tests: two at once would sweep away each other's processes.
HOME = f"/data/of/{os.getpid()}/.worker-8080"


@pytest.fixture
def start():
    """Start a process as an earlier worker's job would have been started; ended at the end."""
    children = []

    def begin(*argv, home=HOME, **env):
        marked = {"PATH": os.environ["PATH"], **env}
        if home:
            marked[orphans.MARK] = home
        child = subprocess.Popen(
            argv, env=marked, start_new_session=True, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


SLEEPER = ("sh", "-c", "echo ready; exec sleep 1000")


def identity(child):
    return ProcessIdentity(child.pid, read_stat(child.pid).start_ticks)


def test_a_process_with_this_workers_mark_is_killed(start):
    child = start(*SLEEPER)

    assert orphans.sweep(HOME, []) == 1

    assert child.wait(10) == -9


def test_other_workers_processes_and_unmarked_ones_are_left_alone(start):
    others = [start(*SLEEPER, home=f"{HOME}1"), start(*SLEEPER, home="")]

    assert orphans.sweep(HOME, []) == 0

    assert [child.poll() for child in others] == [None, None]


def test_a_recorded_process_is_killed_with_its_group_even_without_the_mark(start, wait_gone):
    child = start("sh", "-c", "sleep 1000 & echo ready; wait", home="")
    (grandchild,) = (
        pid for pid in orphans.list_pids() if (s := read_stat(pid)) and s.parent == child.pid
    )
    pidfd = os.pidfd_open(grandchild)

    assert orphans.sweep(HOME, [identity(child)]) == 1

    assert child.wait(10) == -9
    assert wait_gone(pidfd)
    assert (stat := read_stat(grandchild)) is None or not stat.is_alive
    os.close(pidfd)


def test_a_recycled_pid_is_not_touched(start):
    """The number is the recorded one, the start time is not: it is somebody else by now."""
    child = start(*SLEEPER, home="")
    foreign = identity(child)._replace(start_ticks=identity(child).start_ticks - 1)

    assert orphans.sweep(HOME, [foreign]) == 0

    assert child.poll() is None
    assert is_running(identity(child))


RECYCLING = """
import os, subprocess, sys, time
from titan_worker.host import orphans
from titan_worker.host.census import open_exactly, signal_exactly
from titan_worker.host.identity import ProcessIdentity, read_stat

same_tick = 0
for turn in range(30):
    job = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    recorded, seen = ProcessIdentity(job.pid, read_stat(job.pid).start_ticks), read_stat(job.pid)
    if turn % 3:
        time.sleep(0.02)  # another tick: of both kinds there shall be some
    job.kill()
    job.wait()
    open("/proc/sys/kernel/ns_last_pid", "w").write(str(recorded.pid - 1))
    innocent = subprocess.Popen(["sleep", "1000"])
    assert innocent.pid == recorded.pid, "its number was not given out again"
    is_same = read_stat(innocent.pid).start_ticks == recorded.start_ticks
    same_tick += is_same
    assert orphans.sweep("/of/nobody", [recorded]) == 0, (turn, is_same)
    if not is_same:
        assert open_exactly(recorded) is None
        signal_exactly(seen, 9)
    time.sleep(0.002)
    assert innocent.poll() is None, (turn, is_same)
    innocent.kill()
    innocent.wait()
print("same tick:", same_tick)
"""


def test_a_number_that_was_really_given_out_again_is_never_signalled(tmp_path):
    """Also where the later owner began in the same tick of the clock that start times count in.

    In a process namespace of its own, where nobody else takes numbers; only root may make one.
    """
    apart = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NO PROCESS NAMESPACES FOR US HERE: nothing is given out again")

    done = subprocess.run(
        [*apart, sys.executable, "-c", RECYCLING],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("same tick:")


def test_a_pid_that_nobody_has_any_more_is_no_trouble(start):
    child = start(*SLEEPER, home="")
    past = identity(child)
    child.kill()
    child.wait()

    assert orphans.sweep(HOME, [past]) == 0


def test_one_that_left_its_group_is_found_by_its_mark(start):
    # The one that leaves says so itself, after it has left.
    child = start("sh", "-c", "setsid sh -c 'echo ready; exec sleep 1000' & exec sleep 1000")

    assert orphans.sweep(HOME, []) == 2

    assert child.wait(10) == -9


def test_the_sweeper_and_those_who_started_it_are_never_hit(start):
    """A worker may be started from a job of its own earlier life."""
    script = (
        "from titan_worker.host import orphans\n"
        f"print('ready', flush=True); print(orphans.sweep({HOME!r}, []))\n"
    )
    child = start(
        "sh",
        "-c",
        'echo ready; "$0" -c "$1" | tail -n +2; exit 5',
        sys.executable,
        script,
        PYTHONPATH=os.pathsep.join(sys.path),
    )

    # `tail` is a sibling, carries the mark, and goes; sweeper and shell stay.
    assert child.wait(30) == 5


def test_what_a_stopped_attempt_left_elsewhere_is_found_by_its_name(start):
    own = {"TITAN_RUN_ID": "r" * 16, "TITAN_JOB_ID": "a"}
    escaped = start(*SLEEPER, **own, TITAN_ATTEMPT="1")
    next_try = start(*SLEEPER, **own, TITAN_ATTEMPT="2")

    assert orphans.kill_escaped(HOME, [AttemptRef("r" * 16, "a", 1)]) == 1

    assert escaped.wait(10) == -9
    assert next_try.poll() is None
