"""Control groups of the real kernel hold attempts to limits, and end them to the last process."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from titan_worker.clock import read_steady_s
from titan_worker.host import cgroups, forking
from titan_worker.host.base import Exit, GuardTimes, Limits, SpawnError
from titan_worker.host.census import signal_exactly, take_census
from titan_worker.host.cgroups import CPU, MEMORY, PIDS, Cgroups, Hierarchy
from titan_worker.host.identity import read_stat

from .conftest import Lab

MIB = 1024 * 1024
NO_LIMITS = Limits()
BOMB = "import sys; held = [b'x' * 2**20 for _ in range(400)]; print(len(held))"


@pytest.fixture
def private(tmp_path):
    folder = tmp_path / ".worker-8080"
    folder.mkdir()
    return folder


@pytest.fixture
def groups(private):
    found = cgroups.find("asked", private)
    if not found.has_any:
        pytest.skip("CONTROL GROUPS ARE NOT WRITABLE HERE: nothing of them is tested")
    yield found
    found.close()


@pytest.fixture
async def held(tmp_path, groups):
    """A lab on a machine with control groups."""
    lab = Lab(tmp_path, groups)
    yield lab
    lab.host.close()


@pytest.fixture
async def bare(tmp_path):
    """A lab on a machine without."""
    lab = Lab(tmp_path)
    yield lab
    lab.host.close()


def needs(groups, controller):
    if controller not in groups.limits:
        pytest.skip(f"NO WRITABLE {controller} CONTROLLER HERE: this limit is not tested")


def spawn(lab, name, *argv, limits=NO_LIMITS, is_service=False, guard=None, env=None):
    plan = lab.plan(name, *argv, env=env)
    lab.host.spawn(lab.ref(name), plan._replace(limits=limits, is_service=is_service), guard)


def sh(line):
    return ("/bin/sh", "-c", line)


def py(code):
    return (sys.executable, "-c", code)


def no_child_left():
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def await_end(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def folders(groups):
    return [
        entry
        for hierarchy in groups._hierarchies
        for entry in Path(hierarchy.folder).glob("*")
        if entry.is_dir()
    ]


async def empty(groups):
    """Until no attempt has a group any more."""
    async with asyncio.timeout(10):
        while folders(groups):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.005)


# -- limits -------------------------------------------------------------------------------------------
async def test_a_memory_bomb_is_killed_and_said_to_be_one(held, groups):
    needs(groups, MEMORY)

    spawn(held, "bomb", *py(BOMB), limits=Limits(memory_bytes=64 * MIB))
    spawn(held, "beside", *sh("exit 0"), limits=Limits(memory_bytes=64 * MIB))

    how = await held.exit_of("bomb")
    assert (how.signal, how.oom_killed) == (signal.SIGKILL, True)
    assert held.out("bomb") == ""
    assert not (await held.exit_of("beside")).oom_killed
    await empty(groups)


async def test_a_child_that_was_killed_for_memory_is_seen_though_its_parent_ends_by_itself(
    held, groups
):
    needs(groups, MEMORY)

    line = '"$0" -c "$1"; exit 3'
    spawn(held, "a", "/bin/sh", "-c", line, sys.executable, BOMB, limits=Limits(0, 64 * MIB))

    how = await held.exit_of("a")
    assert (how.exit_code, how.oom_killed) == (3, True)


async def test_a_fork_bomb_has_so_many_processes_and_no_more(held, groups):
    needs(groups, PIDS)
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 100:\n"
        "        if os.fork() == 0: time.sleep(1000)\n"
        "        made += 1\n"
        "except BlockingIOError: pass\n"
        "print(made)\n"
    )

    spawn(held, "bomb", *py(code), limits=Limits(pids=10))

    await held.exit_of("bomb")
    assert held.out("bomb") == "9\n"
    await empty(groups)  # and the nine are gone with it


async def test_a_cpu_hog_gets_its_share(held, groups):
    needs(groups, CPU)
    code = (
        "import time\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: pass\n"
        "print(time.process_time())\n"
    )

    spawn(held, "hog", *py(code), limits=Limits(cpu_milli=100))

    await held.exit_of("hog")
    assert float(held.out("hog")) < 0.5


async def test_what_it_does_first_is_under_its_limits_already(held, groups):
    """However quick: no process of it is ever outside its group."""
    needs(groups, PIDS)
    spawn(held, "quick", *sh("cat /proc/self/cgroup"), limits=Limits(pids=10))

    await held.exit_of("quick")

    paths = [line.split(":", 2)[2] for line in held.out("quick").splitlines()]
    assert any(f".{held.ref('quick').number}." in path for path in paths)


async def test_an_exclusive_one_is_held_and_its_guard_is_not(held, groups):
    needs(groups, MEMORY)
    end_s = read_steady_s() + 100

    spawn(
        held,
        "bomb",
        *py(BOMB),
        limits=Limits(memory_bytes=64 * MIB, pids=50),
        guard=GuardTimes(end_s, end_s),
    )

    how = await held.exit_of("bomb")
    assert (how.signal, how.oom_killed) == (signal.SIGKILL, True)
    await empty(groups)


async def test_a_limit_that_the_kernel_refuses_is_a_start_that_failed(held, groups):
    needs(groups, PIDS)

    with pytest.raises(SpawnError, match="limits"):
        spawn(held, "a", *sh("exit 0"), limits=Limits(pids=2**60))

    assert folders(groups) == []


# -- without groups -----------------------------------------------------------------------------------
async def test_without_groups_memory_and_processes_have_rlimits(bare):
    code = (
        "import resource\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0])\n"
        "print(resource.getrlimit(resource.RLIMIT_NPROC)[0])\n"
        "try: bytearray(400 * 2**20)\n"
        "except MemoryError: print('held')\n"
    )

    spawn(bare, "a", *py(code), limits=Limits(memory_bytes=200 * MIB, pids=7))

    how = await bare.exit_of("a")
    memory, processes, word = bare.out("a").split()
    assert how.exit_code == 0
    assert int(memory) == 200 * MIB
    assert 7 < int(processes) < 1_000_000
    assert word == "held"


async def test_an_exclusive_one_has_them_too(bare):
    end_s = read_steady_s() + 100
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0])"

    limits = Limits(memory_bytes=200 * MIB)
    spawn(bare, "a", *py(code), limits=limits, guard=GuardTimes(end_s, end_s))

    await bare.exit_of("a")
    assert int(bare.out("a")) == 200 * MIB


async def test_without_limits_nothing_stands_between_worker_and_program(bare):
    spawn(bare, "a", *sh("exit 0"), is_service=True)

    await bare.exit_of("a")

    assert bare.host._forker._channel is None


# -- the forker ---------------------------------------------------------------------------------------
async def test_what_it_starts_is_like_any_other_process(bare, monkeypatch):
    """Session, input, descriptors, environment, folder, signals, outputs."""
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "1")
    code = (
        "import os, signal, sys\n"
        "print(repr(sys.stdin.read()), os.getsid(0) == os.getpid(), os.getppid() == int(sys.argv[1]))\n"
        "print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)])\n"
        "more = [n for n in os.listdir('/proc/self/fd') if int(n) > 2]\n"
        "print([os.readlink(f'/proc/self/fd/{n}') for n in more if os.path.exists(f'/proc/self/fd/{n}')], os.getcwd())\n"
        "print(sorted(os.environ), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
        "print('bad', file=sys.stderr)\n"
    )
    spawn(bare, "a", *py(code), str(os.getpid()), limits=Limits(pids=9), env={"odd.name": "1"})

    assert (await bare.exit_of("a")).exit_code == 0
    first, outputs, second, third = bare.out("a").splitlines()
    assert outputs == f"['/dev/null', '{bare.folder / 'a.out'}', '{bare.folder / 'a.err'}']"
    assert first == "'' True True"
    assert second == f"[] {bare.folder / 'a'}"
    assert "'PATH', 'odd.name'" in third
    assert "SECRET" not in third
    assert third.endswith("True")
    assert bare.err("a") == "bad\n"


async def test_a_program_that_cannot_be_executed_is_told_as_ever(bare):
    (bare.folder / "odd").write_text("no program")
    (bare.folder / "odd").chmod(0o755)

    spawn(bare, "a", "/no/such/program", limits=Limits(pids=9))
    spawn(bare, "b", str(bare.folder / "odd"), limits=Limits(pids=9))

    assert "is missing" in (await bare.exit_of("a")).problem
    assert "no program of this machine" in (await bare.exit_of("b")).problem
    assert bare.started == {}

    bare.host.close()
    no_child_left()
    bare.host._stdin, bare.host._home = os.open(os.devnull, os.O_RDONLY), os.open(".", os.O_RDONLY)


async def test_one_that_was_killed_is_started_anew(bare):
    spawn(bare, "a", *sh("exit 0"), limits=Limits(pids=9))
    await bare.exit_of("a")
    os.kill(bare.host._forker._pid, signal.SIGKILL)
    await_end(bare.host._forker._pid)

    spawn(bare, "b", *sh("exit 4"), limits=Limits(pids=9))

    assert (await bare.exit_of("b")).exit_code == 4


async def test_what_waits_for_one_that_was_killed_is_told_and_leaves_nothing(bare):
    for number in range(20):
        spawn(bare, f"n{number}", *sh("exec sleep 1000"), limits=Limits(pids=9))
    os.kill(bare.host._forker._pid, signal.SIGKILL)

    await bare.until(lambda: any(how.problem for how in bare.exits.values()))
    for name in ("next", "last"):
        spawn(bare, name, *sh("exit 4"), limits=Limits(pids=9))
        assert (await bare.exit_of(name)).exit_code == 4

    assert "could not be put under its limits" in bare.exits["n19"].problem
    assert len(bare.exits) + len(bare.started) >= 22
    bare.host.close()
    # One may have been on its way just then: it ends by itself, or with the next look.
    for stat in take_census().children(os.getpid()):
        signal_exactly(stat, signal.SIGKILL)
        await_end(stat.pid)
        os.waitpid(stat.pid, 0)  # noqa: ASYNC222 - it has ended
    bare.host._stdin, bare.host._home = os.open(os.devnull, os.O_RDONLY), os.open(".", os.O_RDONLY)


async def test_one_that_stands_still_is_ended_and_nobody_waits_for_it(bare, monkeypatch):
    spawn(bare, "first", *sh("exit 0"), limits=Limits(pids=9))
    assert await bare.exit_of("first") == Exit(0, 0)
    # Only now: it may take longer than that to start.
    monkeypatch.setattr(forking, "_ANSWER_S", 0.2)
    os.kill(bare.host._forker._pid, signal.SIGSTOP)

    spawn(bare, "held", *sh("exit 0"), limits=Limits(pids=9))
    bare.shell("beside", "exit 3")

    assert await bare.exit_of("beside") == Exit(3, 0)
    assert "limits" in (await bare.exit_of("held")).problem


@pytest.mark.parametrize("force", [False, True])
async def test_one_that_is_stopped_before_its_start_is_known_is_stopped(bare, force):
    for number in range(10):
        spawn(bare, f"n{number}", *sh("exec sleep 1000"), limits=Limits(pids=9))
        bare.host.terminate(bare.ref(f"n{number}"), force=force)
    assert bare.host.running == 10

    await bare.until(lambda: len(bare.exits) == 10)

    wanted = signal.SIGKILL if force else signal.SIGTERM
    assert {how.signal for how in bare.exits.values()} == {wanted}
    assert bare.host.running == 0


async def test_looks_at_every_process_leave_what_is_being_started_alone(bare):
    """It is a child that nobody knows yet, and has no marks: as what a job has let go of."""
    bare.shell("ends", "exit 0")
    await bare.exit_of("ends")
    for number in range(60):
        spawn(bare, f"n{number}", *sh("sleep 0.01; exit 5"), limits=Limits(pids=900))
        bare.host._look_within(0)
        await asyncio.sleep(0)

    await bare.until(lambda: len(bare.exits) == 61)

    assert {how for name, how in bare.exits.items() if name != "ends"} == {Exit(5, 0)}


async def test_closing_ends_what_was_asked_for_and_is_not_known_yet(bare):
    for number in range(10):
        spawn(bare, f"n{number}", *sh("exec sleep 1000"), limits=Limits(pids=9))

    bare.host.close()

    no_child_left()
    bare.host._stdin, bare.host._home = os.open(os.devnull, os.O_RDONLY), os.open(".", os.O_RDONLY)


async def test_a_long_environment_gets_through(bare):
    spawn(bare, "a", *sh("echo ${#LONG}"), limits=Limits(pids=9), env={"LONG": "x" * 100_000})

    await bare.exit_of("a")

    assert bare.out("a") == "100000\n"


# -- ends ---------------------------------------------------------------------------------------------
ESCAPE = (
    "import os, sys, time\n"
    "for _ in range(20):\n"
    "    if os.fork() == 0:\n"
    "        os.setsid()\n"
    "        if os.fork(): os._exit(0)\n"
    "        os.execve('/bin/sleep', ['sleep', '1000'], {})\n"
    "time.sleep(0.2)\n"  # until they are what they will be; the test does not count on it
    "print('out', flush=True)\n"
)


async def test_what_left_its_session_and_threw_its_marks_away_ends_with_a_service(held, groups):
    """Told together with the end: nothing of it is left by then."""
    spawn(held, "a", *py(ESCAPE + "time.sleep(1000)"), is_service=True)
    await held.printed("a", "out")
    members = next(iter(held.host._children.values())).cgroup.members
    assert len(members) == 21

    held.host.terminate(held.ref("a"), force=True)

    await held.exit_of("a")
    assert not [pid for pid in members if (stat := read_stat(pid)) and stat.is_alive]
    await empty(groups)


async def test_it_ends_at_once_with_one_that_ends_by_itself(held, groups):
    spawn(held, "a", *py(ESCAPE), is_service=True)

    await held.exit_of("a")

    assert not [member for folder in folders(groups) for member in cgroups._members(str(folder))]


async def test_by_default_an_ordinary_task_has_none(held, groups):
    spawn(held, "a", *sh("exec sleep 1000"))
    await held.pid_of("a")

    assert folders(groups) == []


async def test_with_all_every_attempt_has_one(private, tmp_path, groups):
    lab = Lab(tmp_path, Cgroups(groups._hierarchies, "all"))

    spawn(lab, "a", *sh("exec sleep 1000"))

    assert len(folders(groups)) == 1
    await lab.pid_of("a")
    lab.host.close()


def test_with_off_there_is_none(private):
    found = cgroups.find("off", private)

    assert not found.has_any
    assert found.describe() == "rlimits (--cgroups off)"


# -- an earlier life ----------------------------------------------------------------------------------
@pytest.fixture
def sleeper():
    """A process, moved into a group."""
    started = []

    def begin(group):
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        started.append(child)
        for folder in group._folders:
            Path(folder, "cgroup.procs").write_text(str(child.pid))
        return child

    yield begin
    for child in started:
        child.kill()
        child.wait()


def test_what_an_earlier_life_left_is_ended_and_removed(private, groups, sleeper):
    left = groups.make(Lab.ref("a"), Limits(pids=5), is_service=True)
    child = sleeper(left)

    cgroups.find("asked", private)

    assert child.wait(10) == -signal.SIGKILL
    assert folders(groups) == []


def test_another_worker_of_the_same_folder_is_left_alone(private, groups, sleeper, tmp_path):
    """The document's 8081 beside 8080: starting, sweeping and ending one is nothing to the other."""
    other = tmp_path / ".worker-8081"
    other.mkdir()
    child = sleeper(groups.make(Lab.ref("a"), Limits(pids=5), is_service=True))

    beside = cgroups.find("asked", other)
    cgroups.find("asked", other)
    beside.close()

    assert child.poll() is None
    assert folders(groups)


def test_a_note_that_names_somebody_elses_group_ends_nobody(private, groups, sleeper):
    group = groups.make(Lab.ref("a"), Limits(), is_service=True)
    child = sleeper(group)
    other = private.parent / ".worker-9999"
    other.mkdir()
    (other / "cgroups").write_text("".join(f"{Path(path).parent}\n" for path in group._folders))

    cgroups.find("off", other)

    assert child.poll() is None


# -- trees of every kind, as text ---------------------------------------------------------------------
V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = (
    "31 30 0:27 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:28 /docker/x /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory\n"
)


def test_the_mounts_of_both_versions_are_read():
    v2, cpu, memory = cgroups.mounted(V2 + V1)

    assert (v2.version, v2.root, v2.at) == (2, "/", "/sys/fs/cgroup")
    assert (cpu.version, cpu.root, {"cpu", "cpuacct"} <= cpu.names) == (1, "/docker/x", True)
    assert memory.at == "/sys/fs/cgroup/my memory"
    assert cgroups.memberships("0::/a.slice\n4:cpu,cpuacct:/docker/x:y\n") == {
        "": "/a.slice",
        "cpu": "/docker/x:y",
        "cpuacct": "/docker/x:y",
    }


@pytest.fixture
def v2(tmp_path):
    """A folder that looks like a delegated group of version 2; what is written stays readable."""
    base = tmp_path / "own"
    base.mkdir()
    (base / "cgroup.procs").write_text("")
    (base / "cgroup.controllers").write_text("cpuset cpu memory pids hugetlb")
    (base / "cgroup.subtree_control").write_text("")
    return base


def test_version_two_hands_down_and_writes_its_own_names(v2, monkeypatch):
    make = os.mkdir

    def mkdir(path, mode=0o777):
        make(path, mode)
        Path(path, "cgroup.subtree_control").write_text("")
        for name in ("cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max"):
            Path(path, name).write_text("max")

    assert cgroups._hand_down(str(v2), "titan-x") == {CPU, MEMORY, PIDS}
    assert (v2 / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    found = Cgroups([Hierarchy(2, str(v2), frozenset({CPU, MEMORY, PIDS}))], "asked")
    monkeypatch.setattr(cgroups.os, "mkdir", mkdir)

    group = found.make(Lab.ref("a"), Limits(1500, 64 * MIB, 10), is_service=False)

    (folder,) = map(Path, group._folders)
    said = {path.name: path.read_text() for path in folder.iterdir()}
    assert said["cpu.max"].startswith("150000 100000")
    assert said["memory.max"] == str(64 * MIB)
    assert said["memory.oom.group"].startswith("1")
    assert said["pids.max"].startswith("10")
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.oom_kills() == 2
    assert found.describe() == "cgroups v2 (asked): cpu, memory, pids"


def without_clone3(folder):
    text = Path(forking._FORKER).read_text()
    assert "_SYS_CLONE3: Final = 435" in text
    (folder / "forker.py").write_text(text.replace("= 435", "= 99999"))
    return str(folder / "forker.py")


async def test_where_no_process_can_be_born_in_a_group_it_is_moved_there(
    held, groups, monkeypatch, tmp_path
):
    """As with an older kernel, or under a filter that does not let this call through."""
    monkeypatch.setattr(forking, "_FORKER", without_clone3(tmp_path))

    spawn(held, "a", *sh("cat /proc/self/cgroup; exit 3"), is_service=True)

    assert (await held.exit_of("a")).exit_code == 3
    assert f"{held.ref('a').run_id}.a.1" in held.out("a")


def test_a_group_is_made_in_milliseconds(groups):
    """A service that was killed is up again in a few of them."""
    began_s = time.monotonic()
    for _ in range(20):
        assert groups.make(Lab.ref("a"), Limits(), is_service=True).remove()

    assert time.monotonic() - began_s < 1
