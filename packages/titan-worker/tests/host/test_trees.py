"""Nothing that an attempt has started outlives it, wherever it went; nobody else is touched."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from titan_proto.ids import AttemptRef
from titan_worker.host import census, orphans, posix, strays
from titan_worker.host.base import Exit
from titan_worker.host.census import be_subreaper, is_subreaper, take_census
from titan_worker.host.cgroups import Cgroups
from titan_worker.host.identity import read_stat

# Forks twice, leaves the session, ignores SIGTERM, and holds whatever was open.
DAEMON = """
import os, signal, sys, time
def daemon(say, ignore=True):
    ready, go = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if ignore else signal.SIG_DFL)
            print(say, os.getpid(), flush=True)
            os.write(go, b"!")
            signal.pause()
            os._exit(0)
        os._exit(0)
    os.wait()
    os.read(ready, 1)
"""


def marks(lab, name):
    ref = lab.ref(name)
    return dict(
        zip(orphans.MARKS, (lab.home, ref.run_id, ref.job_id, str(ref.number)), strict=True)
    )


def pids(text):
    return [int(word) for word in text.split() if word.isdigit()]


class Watched:
    """Processes held by descriptors: whether they are gone is not a matter of numbers."""

    def __init__(self, numbers):
        self.pidfds = [os.pidfd_open(number) for number in numbers]

    @property
    def are_gone(self):
        """Now, without waiting."""
        poller = select.poll()
        for fd in self.pidfds:
            poller.register(fd, select.POLLIN)
        return len(poller.poll(0)) == len(self.pidfds)

    async def gone(self):
        """Until they are: it is this loop that kills, so it must not be blocked."""
        await until(lambda: self.are_gone)

    def close(self):
        for fd in self.pidfds:
            os.close(fd)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the system tells nobody
            await asyncio.sleep(0.01)


async def looks(lab, count=2):
    """Until the host has looked at every process so often."""
    before = lab.host._looks

    def looked():
        lab.host._look_within(0.0)
        return lab.host._looks >= before + count

    await until(looked)
    await until(lambda: not lab.host._is_looking)


@pytest.fixture
def watch():
    made = []

    def begin(numbers):
        made.append(Watched(numbers))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def stranger():
    """A child of this process that is none of the host's business; ended at the end."""
    children = []

    def begin(*argv, session=False, env=None):
        child = subprocess.Popen(argv, start_new_session=session, env=env)
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill()
        child.wait()


def zombies():
    return [stat for stat in take_census().children(os.getpid()) if not stat.is_alive]


async def test_when_the_end_of_a_stopped_attempt_is_told_nothing_of_it_is_left(lab, watch):
    """The worst job: deaf to SIGTERM, daemonised, its outputs held open."""
    lab.python(
        "worst",
        DAEMON + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for n in range(3): daemon('daemon')\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(1000)",
        env=marks(lab, "worst"),
    )
    await lab.printed("worst", "ready")
    daemons = watch(pids(lab.out("worst")))
    assert len(daemons.pidfds) == 3
    lab.host.terminate(lab.ref("worst"), force=False)
    await asyncio.sleep(0)
    assert "worst" not in lab.exits

    lab.host.terminate(lab.ref("worst"), force=True)

    assert await lab.exit_of("worst") == Exit(0, signal.SIGKILL)
    assert daemons.are_gone
    assert zombies() == []


async def test_sigterm_reaches_what_has_left_the_group_too(lab, watch):
    """Whether its parents still live or not; and each gets it once."""
    lab.python(
        "family",
        DAEMON + "def heard(*_):\n"
        "    print('heard', flush=True)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    signal.signal(signal.SIGTERM, heard)\n"
        "    print('child', os.getpid(), flush=True)\n"
        "    while True: time.sleep(1000)\n"
        "daemon('daemon', ignore=False)\n"
        "while True: time.sleep(1000)",
        env=marks(lab, "family"),
    )
    await lab.printed("family", "child")
    await lab.printed("family", "daemon")
    child, daemon = (watch(pids(line)) for line in sorted(lab.out("family").splitlines()))

    lab.host.terminate(lab.ref("family"), force=False)

    await lab.printed("family", "heard")
    await daemon.gone()
    await looks(lab)
    assert lab.out("family").count("heard") == 1
    lab.host.terminate(lab.ref("family"), force=True)
    await lab.exit_of("family")
    assert child.are_gone


@pytest.mark.parametrize("marked", [True, False])
async def test_what_an_ended_attempt_left_outside_its_group_is_killed(
    lab, watch, monkeypatch, marked
):
    """After an ordinary end too, and whether or not it has kept its marks."""
    monkeypatch.setattr(posix, "_LOOK_AFTER_END_S", 0.01)
    lab.python("leaver", DAEMON + "daemon('daemon')", env=marks(lab, "leaver") if marked else {})

    assert await lab.exit_of("leaver") == Exit(0, 0)

    with contextlib.suppress(ProcessLookupError):  # gone and waited for already
        await watch(pids(lab.out("leaver"))).gone()
    await until(lambda: zombies() == [])


async def test_what_flees_from_generation_to_generation_is_caught(lab):
    """Each leaves its session, forks the next, and is gone before anybody can signal it twice."""
    lab.python(
        "rabbits",
        "import os, time\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        while True:\n"
        "            if os.fork(): os._exit(0)\n"
        "            os.setsid()\n"
        "            time.sleep(0.02)\n"
        "print('ready', flush=True)\ntime.sleep(1000)",
        env=marks(lab, "rabbits"),
    )
    await lab.printed("rabbits", "ready")

    lab.host.terminate(lab.ref("rabbits"), force=True)
    await lab.exit_of("rabbits")

    home = os.fsencode(lab.home)
    await until(lambda: not orphans._marked(lambda found: found[0] == home))
    await until(lambda: zombies() == [])


async def test_a_stray_of_a_running_attempt_lives_as_long_as_it(lab, watch, monkeypatch):
    """Marked or not, and whatever else ends meanwhile."""
    monkeypatch.setattr(posix, "_LOOK_AFTER_END_S", 0.01)
    code = DAEMON + "daemon('daemon')\nprint('ready', flush=True)\ntime.sleep(1000)"
    lab.python("marked", code, env=marks(lab, "marked"))
    lab.python("bare", code)
    daemons = {}
    for name in ("marked", "bare"):
        await lab.printed(name, "ready")
        await lab.pid_of(name)
        daemons[name] = watch(pids(lab.out(name)))

    lab.shell("other", "exit 0", env=marks(lab, "other"))
    await lab.exit_of("other")
    await looks(lab)

    assert not daemons["marked"].are_gone
    assert not daemons["bare"].are_gone
    lab.host.terminate(lab.ref("marked"), force=True)
    await lab.exit_of("marked")
    assert daemons["marked"].are_gone
    assert not daemons["bare"].are_gone
    lab.host.terminate(lab.ref("bare"), force=True)
    await lab.exit_of("bare")
    assert daemons["bare"].are_gone


async def test_a_dying_stray_is_still_its_attempts(lab, watch, monkeypatch):
    """Its environment goes before it does, and another that runs could own what says nothing."""
    code = DAEMON + "daemon('daemon')\nprint('ready', flush=True)\ntime.sleep(1000)"
    lab.shell("other", "exec sleep 1000")
    await lab.pid_of("other")
    lab.python("job", code, env=marks(lab, "job"))
    await lab.printed("job", "ready")
    daemon = watch(pids(lab.out("job")))

    (number,) = pids(lab.out("job"))
    said = {}

    # Each by itself: a look may still have seen the first process, which is gone and says nothing.
    def says_once(pid, home):
        if pid in said:
            return None
        said[pid] = orphans.attempt_of(pid, home)
        return said[pid]

    monkeypatch.setattr(strays, "attempt_of", says_once)
    # What is signalled dies at its own pace: here, not before the third look.
    signals = []

    def signal_late(stat, *numbers):
        signals.append(stat.pid)
        if signals.count(stat.pid) > 2:
            census.signal_exactly(stat, *numbers)

    monkeypatch.setattr(posix, "signal_exactly", signal_late)
    lab.host.terminate(lab.ref("job"), force=True)
    await lab.exit_of("job")

    assert daemon.are_gone
    assert said[number] == lab.ref("job")


async def test_children_that_the_worker_started_for_itself_are_left_alone(
    lab, stranger, monkeypatch
):
    """Neither killed nor waited for: their exit codes are their starter's."""
    monkeypatch.setattr(posix, "_LOOK_AFTER_END_S", 0.01)
    elder = stranger("/bin/sleep", "1000", session=True)
    await asyncio.sleep(0.02)  # another tick of the clock that start times are told in
    lab.shell("job", "exit 0")
    await lab.exit_of("job")
    own = stranger("/bin/sleep", "1000")
    dead = stranger("/bin/sh", "-c", "exit 7")

    lab.shell("next", "exit 0")
    await lab.exit_of("next")
    await looks(lab)

    assert (elder.poll(), own.poll(), dead.wait(10)) == (None, None, 7)


async def test_dead_strays_are_waited_for_while_their_attempt_runs(lab, monkeypatch):
    monkeypatch.setattr(posix, "_LOOK_NOW_AND_THEN_S", 0.01)
    lab.python(
        "father",
        "import os, time\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0: time.sleep(0.05)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print('ready', flush=True)\ntime.sleep(1000)",
        env=marks(lab, "father"),
    )
    await lab.printed("father", "ready")
    lab.shell("other", "exit 0")
    await lab.exit_of("other")
    lab.host._look_within(0.0)

    await until(lambda: len(take_census().children(os.getpid())) == 1)
    assert lab.host.running == 1


async def test_short_jobs_that_leave_nothing_cost_no_look_each(lab):
    before = lab.host._looks

    for number in range(30):
        lab.start(f"n{number}", "/bin/true")
    await lab.until(lambda: len(lab.exits) == 30)

    assert lab.host._looks - before <= 1


async def test_closing_leaves_no_stray_and_gives_the_role_back(lab, watch):
    was = lab.host._was_subreaper
    assert is_subreaper()
    lab.python("left", DAEMON + "daemon('daemon')\ntime.sleep(1000)", env=marks(lab, "left"))
    await lab.printed("left", "daemon")
    daemon = watch(pids(lab.out("left")))
    await lab.pid_of("left")

    lab.host.close()

    assert daemon.are_gone
    assert is_subreaper() == was
    assert zombies() == []
    lab.host._stdin = os.open(os.devnull, os.O_RDONLY)  # for the fixture's own close
    lab.host._home = os.open(".", os.O_RDONLY)


async def test_without_a_subreaper_it_says_so_and_works(lab, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(posix, "be_subreaper", lambda *, wanted: False)

    other = posix.PosixHost(
        loop=asyncio.get_running_loop(),
        home=lab.home,
        cgroups=Cgroups((), "off"),
        on_started=lab._on_started,
        on_exit=lab._on_exit,
    )

    assert "no_subreaper" in caplog.text
    other.spawn(lab.ref("a"), lab.plan("a", "/bin/true"), None)
    assert await lab.exit_of("a") == Exit(0, 0)
    other.close()


# -- the census -----------------------------------------------------------------------------------
def test_descendants_are_found_through_every_generation(stranger):
    child = stranger("/bin/sh", "-c", "sh -c 'sleep 1000 & wait' & wait")
    deadline = time.monotonic() + 10
    while len(below := take_census().below(child.pid)) < 2:
        assert time.monotonic() < deadline
    assert {stat.parent for stat in below} >= {child.pid}
    assert take_census().below(2**22 + 1) == []
    for stat in below:
        census.signal_exactly(stat, signal.SIGKILL)


def test_a_process_that_took_over_a_number_is_not_signalled(stranger):
    child = stranger("/bin/sleep", "1000")
    seen = read_stat(child.pid)

    census.signal_exactly(seen._replace(start_ticks=seen.start_ticks - 1), signal.SIGKILL)

    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)


def test_the_role_of_a_subreaper_can_be_taken_and_given_back():
    code = (
        "from titan_worker.host.census import *\n"
        "print(is_subreaper(), be_subreaper(wanted=True), is_subreaper(),"
        " be_subreaper(wanted=False), is_subreaper())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split() == ["False", "True", "True", "True", "False"]
    assert be_subreaper(wanted=is_subreaper())


def test_whose_a_process_is_says_its_environment(stranger, tmp_path):
    home = str(tmp_path)
    child = stranger(
        "/bin/sleep",
        "1000",
        env=dict(zip(orphans.MARKS, (home, "r" * 16, "job", "3"), strict=True)),
    )
    # Between fork and exec it has ours.
    deadline = time.monotonic() + 10
    while orphans.attempt_of(child.pid, home) is None:
        assert time.monotonic() < deadline
    assert orphans.attempt_of(child.pid, home) == AttemptRef("r" * 16, "job", 3)
    assert orphans.attempt_of(child.pid, f"{home}1") is None
    assert orphans.attempt_of(os.getpid(), home) is None
