"""A process host keeps its promises with real processes."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from titan_worker.host.base import Exit, SpawnError
from titan_worker.host.identity import is_running, read_stat


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def no_child_left():
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def test_exit_codes_and_signals_are_told_apart(lab):
    lab.shell("good", "exit 0")
    lab.shell("bad", "exit 7")
    lab.shell("shot", "kill -9 $$")
    lab.shell("termed", "kill -15 $$")

    assert await lab.exit_of("good") == Exit(0, 0)
    assert await lab.exit_of("bad") == Exit(7, 0)
    assert await lab.exit_of("shot") == Exit(0, signal.SIGKILL)
    assert await lab.exit_of("termed") == Exit(0, signal.SIGTERM)


async def test_the_start_is_told_before_the_end_however_short_the_process(lab):
    order = []
    tell_start, tell_exit = lab.host._on_started, lab.host._on_exit
    lab.host._on_started = lambda ref, who: (order.append("start"), tell_start(ref, who))
    lab.host._on_exit = lambda ref, how: (order.append("end"), tell_exit(ref, how))

    lab.start("short", "/bin/true")
    await lab.exit_of("short")

    assert order == ["start", "end"]
    assert lab.started["short"].start_ticks > 0


async def test_a_long_process_is_told_started_while_it_runs(lab):
    lab.shell("long", "echo here; exec sleep 1000")

    pid = await lab.pid_of("long")

    assert is_running(lab.started["long"])
    assert "long" not in lab.exits
    lab.host.terminate(lab.ref("long"), force=True)
    await lab.exit_of("long")
    assert read_stat(pid) is None  # waited for: no zombie


async def test_it_runs_in_its_folder_with_its_environment_alone(lab, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "1")
    before = Path.cwd()

    lab.shell("env", "pwd; env", env={"MINE": "yes"})
    await lab.exit_of("env")

    folder, *variables = lab.out("env").splitlines()
    assert folder == str(lab.folder / "env")
    assert "MINE=yes" in variables
    assert not [line for line in variables if line.startswith("SECRET")]
    assert Path.cwd() == before


async def test_it_has_no_input_a_session_of_its_own_and_no_descriptor_of_ours(lab):
    lab.python(
        "alone",
        "import os, sys\n"
        "print(repr(sys.stdin.read()), os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())\n"
        "print(sorted(int(n) for n in os.listdir('/proc/self/fd')))",
    )
    await lab.exit_of("alone")

    facts, descriptors = lab.out("alone").splitlines()
    assert facts == "'' True True"
    assert descriptors in ("[0, 1, 2, 3]", "[0, 1, 2]")  # 3 is the listing's own


async def test_signals_that_python_ignores_are_not_ignored_in_jobs(lab):
    lab.shell("ignored", "grep -E 'SigIgn|SigBlk' /proc/self/status")
    await lab.exit_of("ignored")

    masks = [int(mask, 16) for mask in lab.out("ignored").split()[1::2]]
    # The C library keeps two real-time signals for itself; programs cannot use those.
    assert [mask & 0x7FFF_FFFF for mask in masks] == [0, 0]


async def test_a_worker_under_nohup_gives_its_jobs_ordinary_signals(lab):
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGHUP, signal.SIGQUIT)}
    try:
        lab.shell("hangs", "kill -HUP $$; echo ignored")
        exited = await lab.exit_of("hangs")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert (exited.signal, lab.out("hangs")) == (signal.SIGHUP, "")


async def test_outputs_are_appended_to_by_the_process_itself(lab):
    (lab.folder / "both.out").write_text("before\n")

    lab.shell("both", "echo one; echo two >&2; echo three")
    await lab.exit_of("both")

    assert lab.out("both") == "before\none\nthree\n"
    assert lab.err("both") == "two\n"


async def test_sigterm_reaches_every_member_of_the_group(lab, wait_gone):
    lab.shell(
        "family",
        "(sh -c 'sleep 1000 & echo grand $!; wait') & echo child $!; echo ready; wait",
    )
    await lab.printed("family", "ready")
    await lab.printed("family", "grand")
    pids = [int(line.split()[1]) for line in lab.out("family").splitlines() if " " in line]
    descriptors = [os.pidfd_open(pid) for pid in pids]

    lab.host.terminate(lab.ref("family"), force=False)

    assert await lab.exit_of("family") == Exit(0, signal.SIGTERM)
    assert all(wait_gone(fd) for fd in descriptors)
    for fd in descriptors:
        os.close(fd)


async def test_one_that_ignores_sigterm_needs_force(lab):
    lab.python(
        "stubborn",
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(1000)",
    )
    await lab.printed("stubborn", "ready")

    lab.host.terminate(lab.ref("stubborn"), force=False)
    await lab.printed("stubborn", "no")
    assert "stubborn" not in lab.exits

    lab.host.terminate(lab.ref("stubborn"), force=True)
    assert await lab.exit_of("stubborn") == Exit(0, signal.SIGKILL)


async def test_a_stopped_process_can_be_terminated(lab):
    lab.shell("frozen", "echo ready; kill -STOP $$; echo woken")
    await lab.printed("frozen", "ready")

    lab.host.terminate(lab.ref("frozen"), force=False)

    assert await lab.exit_of("frozen") == Exit(0, signal.SIGTERM)


async def test_what_a_first_process_leaves_behind_in_its_group_is_killed(lab, wait_gone):
    """Also a double fork, one that ignores SIGTERM, and one that holds the outputs open."""
    lab.shell(
        "leaver",
        "(trap '' TERM; sleep 1000 & echo $!; wait) & (sleep 1000 & echo $!); sleep 0.05; exit 3",
    )

    assert await lab.exit_of("leaver") == Exit(3, 0)

    left = [int(word) for word in lab.out("leaver").split()]
    assert len(left) == 2
    for pid in left:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert wait_gone(fd)
        os.close(fd)


async def test_a_process_that_closes_its_outputs_ends_like_any_other(lab):
    lab.shell("closed", "exec >&- 2>&-; exit 4")

    assert await lab.exit_of("closed") == Exit(4, 0)


async def test_many_at_once_are_all_told_and_leave_no_zombies_or_descriptors(lab):
    before = descriptors()

    for number in range(40):
        lab.shell(f"n{number}", f"exit {number}")
    await lab.until(lambda: len(lab.exits) == 40)

    assert {name: how.exit_code for name, how in lab.exits.items()} == {
        f"n{number}": number for number in range(40)
    }
    assert lab.host.running == 0
    assert descriptors() == before
    no_child_left()


async def test_why_something_cannot_be_started_is_said_in_words(lab):
    text = lab.folder / "text"
    text.write_text("just words")
    for program, mode, words in (
        ("/no/such/program", None, "missing"),
        (str(text), 0o644, "chmod +x"),
        (str(text), 0o755, "#!/bin/sh"),
    ):
        if mode is not None:
            text.chmod(mode)
        with pytest.raises(SpawnError, match="cannot execute") as caught:
            lab.start("broken", program)
        assert words in str(caught.value)
    with pytest.raises(SpawnError, match="too long"):
        lab.start("huge", "/bin/true", "x" * 3_000_000)
    with pytest.raises(SpawnError, match="null"):
        lab.start("null", "/bin/true", "a\0b")
    assert lab.host.running == 0


async def test_without_descriptors_a_start_fails_and_nothing_runs_on(lab, monkeypatch):
    def refuse(pid):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)

    with pytest.raises(SpawnError, match="Too many open files"):
        lab.shell("unwatched", "exec sleep 1000")

    no_child_left()


async def test_closing_kills_and_awaits_what_still_runs(lab):
    lab.shell("left", "echo ready; exec sleep 1000")
    await lab.printed("left", "ready")

    lab.host.kill_all()
    assert await lab.exit_of("left") == Exit(0, signal.SIGKILL)

    lab.shell("other", "exec sleep 1000")
    await asyncio.sleep(0)
    lab.host.close()
    no_child_left()
    lab.host._stdin = os.open(os.devnull, os.O_RDONLY)  # for the fixture's own close
    lab.host._home = os.open(".", os.O_RDONLY)
