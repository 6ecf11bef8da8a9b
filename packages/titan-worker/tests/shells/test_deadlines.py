"""Timeouts, leases and stops, with a whole worker and real processes."""

import asyncio
import os
import select
import signal
import time

import pytest

from titan_proto.messages import Join, WorkerStatus
from titan_proto.specs import Launch, LaunchKind
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.attempts import LEASE_ENDED
from titan_worker.host.census import take_census

# It ignores SIGTERM, forks twice, leaves the session, and holds its outputs open.
WORST = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "def daemon():\n"
    "    ready, go = os.pipe()\n"
    "    if os.fork() == 0:\n"
    "        os.setsid()\n"
    "        if os.fork() == 0:\n"
    "            os.write(1, b'%d\\n' % os.getpid())\n"
    "            os.write(go, b'!')\n"
    "            time.sleep(1000)\n"
    "        os._exit(0)\n"
    "    os.wait()\n"
    "    os.read(ready, 1)\n"
    "daemon(); daemon()\n"
    "print(os.getpid(), 'ready', flush=True)\n"
)
GOES_ON = "while True: time.sleep(1000)\n"


class Held:
    """Processes by descriptor."""

    def __init__(self, text):
        self.pidfds = [os.pidfd_open(int(word)) for word in text.split() if word.isdigit()]

    @property
    def are_gone(self):
        poller = select.poll()
        for fd in self.pidfds:
            poller.register(fd, select.POLLIN)
        return len(poller.poll(0)) == len(self.pidfds)


@pytest.fixture
def hold():
    held = []

    def begin(text):
        held.append(Held(text.decode()))
        return held[-1]

    yield begin
    for one in held:
        for fd in one.pidfds:
            os.close(fd)


async def until(condition):
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - the system tells nobody
            await asyncio.sleep(0.005)


@pytest.fixture
def worst(peer):
    """Starts the worst job there is."""

    def order(name, code=GOES_ON, **fields):
        artifact = peer.offer((WORST + code).encode(), f"{name}.py")
        launch = Launch(kind=LaunchKind.SCRIPT, script=f"{name}.py", artifact=artifact)
        peer.order(name, launch=launch, **fields)

    return order


# -- timeouts -----------------------------------------------------------------------------------------
async def test_the_worst_job_is_gone_within_its_grace_after_its_timeout_and_its_slot_is_free(
    command, peer, token, hold, worst
):
    """In a worker of its own: what a job lets go of becomes that process's child, not ours."""
    worker = command("8099", peer.address.host, str(peer.address.port), "--slots", "1", token=token)
    await peer.joined()
    worst("worst", timeout_ms=700, stop_grace_ms=400)
    whole = hold(await peer.log_of("worst", b"ready\n"))
    assert len(whole.pidfds) == 3
    began_s = time.monotonic()
    peer.order("next", shell="exit 0")

    end = await peer.end_of("worst")

    assert whole.are_gone
    assert (end.reason, end.signal) == (ExitReason.TIMED_OUT, signal.SIGKILL)
    assert end.ended_at_ms - end.started_at_ms >= 700 + 400
    assert "700 ms" in end.message
    assert (await peer.end_of("next")).exit_code == 0
    # Far below the grace of ten seconds that it would have by default.
    assert time.monotonic() - began_s < 5
    assert take_census().below(worker.process.pid) == []


async def test_after_an_ordinary_end_nothing_of_the_job_is_left_either(
    command, peer, token, hold, worst, tmp_path
):
    worker = command("8099", peer.address.host, str(peer.address.port), token=token)
    await peer.joined()
    held = tmp_path / "held"
    worst("leaver", f"while not os.path.exists({str(held)!r}): time.sleep(0.01)\n")
    whole = hold(await peer.log_of("leaver", b"ready\n"))
    held.touch()

    assert (await peer.end_of("leaver")).reason is ExitReason.EXITED

    await until(lambda: whole.are_gone)
    await until(lambda: take_census().children(worker.process.pid) == [])


async def test_one_that_cleans_up_after_its_timeout_has_timed_out(nest, peer):
    await nest.start()
    peer.order(
        "tidy",
        shell="trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done",
        timeout_ms=200,
    )

    end = await peer.end_of("tidy")

    assert (end.reason, end.exit_code) == (ExitReason.TIMED_OUT, 0)
    await peer.log_of("tidy", b"bye\n")


async def test_jobs_within_their_timeout_notice_nothing_of_it(nest, peer):
    await nest.start()
    peer.order("quick", shell="exit 3", timeout_ms=60_000)

    end = await peer.end_of("quick")

    assert (end.reason, end.exit_code, end.message) == (ExitReason.EXITED, 3, "")


# -- links that are open at one end only --------------------------------------------------------------
async def test_a_silent_link_is_given_up_within_the_lease_and_dialled_again(nest, peer):
    peer.heartbeat_ms, peer.answers_beats = 100, True
    await nest.start()
    await peer.until(lambda: len(peer.got(WorkerStatus)) >= 2)
    peer.is_silent = True
    silent_s = time.monotonic()

    await peer.until(lambda: len(peer.got(Join)) >= 2)

    assert time.monotonic() - silent_s < 5
    peer.is_silent = False
    await peer.joined(2)


async def test_a_master_that_never_answers_heartbeats_keeps_its_link(nest, peer):
    peer.heartbeat_ms = 100
    await nest.start()

    await peer.until(lambda: len(peer.got(WorkerStatus)) >= 12)  # two leases

    assert len(peer.links) == 1


# -- exclusive jobs -----------------------------------------------------------------------------------
async def test_an_exclusive_job_runs_like_any_other(nest, peer):
    await nest.start()
    peer.order("only", shell='echo "$TITAN_JOB_ID $TITAN_FENCE"; exit 3', exclusive=True)

    end = await peer.end_of("only")

    assert (end.reason, end.exit_code) == (ExitReason.EXITED, 3)
    await peer.log_of("only", b"only 7\n")


async def test_an_exclusive_job_that_cannot_be_executed_says_why(nest, peer):
    await nest.start()
    artifact = peer.offer(b"#!/no/such/interpreter\n", "odd")
    launch = Launch(kind=LaunchKind.SCRIPT, script="odd", artifact=artifact)
    peer.order("odd", launch=launch, exclusive=True)

    end = await peer.end_of("odd")

    assert end.reason is ExitReason.START_FAILED
    assert "No such file" in end.message
    peer.order("next", shell="exit 0")
    assert (await peer.end_of("next")).exit_code == 0


async def test_one_whose_lease_is_over_before_its_guard_runs_is_lost_and_never_executed(nest, peer):
    """As where the worker decides in time, and stands still before it does what it decided."""
    await nest.start()
    engine = nest.worker._engine
    steady_at_s, engine._steady_at_s = engine._steady_at_s, lambda at_ms: 0.0
    peer.order("late", shell='touch "$TITAN_SHARED/executed"', exclusive=True)

    end = await peer.end_of("late")

    assert (end.reason, end.message) == (ExitReason.LOST, LEASE_ENDED)
    assert engine._starting == {}
    engine._steady_at_s = steady_at_s
    peer.order("look", shell='ls -A "$TITAN_SHARED"; echo end')
    assert await peer.log_of("look", b"end\n") == b"end\n"


async def test_heartbeats_that_are_heard_keep_an_exclusive_job_alive(nest, peer, hold):
    peer.heartbeat_ms, peer.answers_beats = 200, True
    await nest.start()
    peer.order("only", shell="echo $$; exec sleep 1000", exclusive=True)
    job = hold(await peer.log_of("only", b"\n"))

    beats = len(peer.got(WorkerStatus))
    await peer.until(lambda: len(peer.got(WorkerStatus)) >= beats + 12)  # two leases

    assert not job.are_gone
    peer.stop("only")
    assert (await peer.end_of("only")).reason is ExitReason.CANCELLED


async def test_without_an_answer_an_exclusive_job_is_gone_before_its_lease_ends(nest, peer, hold):
    """The others go on: only this one must not run twice."""
    peer.heartbeat_ms, peer.answers_beats = 500, True
    await nest.start()
    peer.order("only", shell="trap '' TERM; echo $$; while :; do sleep 0.01; done", exclusive=True)
    peer.order("plain", shell="echo $$; exec sleep 1000")
    job = hold(await peer.log_of("only", b"\n"))
    plain = hold(await peer.log_of("plain", b"\n"))
    beats = len(peer.got(WorkerStatus))
    await peer.until(lambda: len(peer.got(WorkerStatus)) > beats)
    peer.is_silent = True
    heard_s = time.monotonic()

    await until(lambda: job.are_gone)

    assert time.monotonic() - heard_s < 3.0  # six heartbeats
    assert not plain.are_gone
    peer.is_silent = False
    peer.cut()  # or the worker would have to find out first that this link is of no use
    end = await peer.end_of("only")
    assert (end.reason, end.message) == (ExitReason.LOST, LEASE_ENDED)


async def test_a_worker_that_stands_still_beyond_its_lease_has_no_exclusive_job_by_then(
    command, peer, token, hold
):
    peer.heartbeat_ms, peer.answers_beats = 500, True
    worker = command("8099", peer.address.host, str(peer.address.port), token=token)
    await peer.joined()
    peer.order("only", shell="setsid sleep 1000 & echo $! $$; exec sleep 1000", exclusive=True)
    peer.order("plain", shell="echo $$; exec sleep 1000")
    job = hold(await peer.log_of("only", b"\n"))
    plain = hold(await peer.log_of("plain", b"\n"))
    await peer.running("only")

    worker.process.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    await until(lambda: job.are_gone)

    assert time.monotonic() - stopped_s < 3.0  # six heartbeats
    assert not plain.are_gone
    worker.process.send_signal(signal.SIGCONT)
    end = await peer.end_of("only")
    assert (end.reason, end.message) == (ExitReason.LOST, LEASE_ENDED)
    peer.stop("plain")
    await peer.end_of("plain")


async def test_a_worker_that_is_killed_has_no_exclusive_job_at_once(command, peer, token, hold):
    """Nothing is left to be swept by a worker that may never start again."""
    worker = command("8099", peer.address.host, str(peer.address.port), token=token)
    await peer.joined()
    peer.order("only", shell="setsid sleep 1000 & echo $! $$; exec sleep 1000", exclusive=True)
    job = hold(await peer.log_of("only", b"\n"))

    worker.process.kill()

    await until(lambda: job.are_gone)


# -- late workers and kept reports --------------------------------------------------------------------
async def test_a_worker_that_returns_too_late_stops_what_was_given_away_and_says_so(
    nest, peer, make_ref, hold
):
    await nest.start()
    peer.order("stale", shell="setsid sleep 1000 & echo $! $$; exec sleep 1000")
    job = hold(await peer.log_of("stale", b"\n"))
    await peer.running("stale")
    peer.join_stops = (make_ref("stale"),)

    peer.cut()

    end = await peer.end_of("stale")
    assert end.reason is ExitReason.CANCELLED
    assert job.are_gone


async def test_a_report_is_kept_until_it_is_acknowledged_across_kill_9_of_the_worker(
    command, peer, token, make_ref
):
    address = (peer.address.host, str(peer.address.port))
    peer.answers_reports = False
    for life in range(3):
        worker = command("8099", *address, token=token)
        await peer.joined(life + 1)
        if life == 0:
            peer.order("done", shell="exit 7")
        else:
            assert [(held.ref, held.state) for held in peer.joins[life].held] == [
                (make_ref("done"), AttemptState.ENDED)
            ]
            peer.ends.clear()
        end = await peer.end_of("done")
        assert (end.reason, end.exit_code) == (ExitReason.EXITED, 7)
        worker.process.kill()
        worker.process.wait()
    peer.answers_reports = True
    command("8099", *address, token=token)
    await peer.joined(4)
    peer.ends.clear()
    await peer.end_of("done")
    await peer.end_link()
    await peer.joined(5)
    assert peer.joins[4].held == ()


async def test_a_report_is_kept_until_it_is_acknowledged_across_deaths_of_the_master(nest, peer):
    await nest.start()
    peer.answers_reports = False
    peer.order("done", shell="exit 7")
    await peer.end_of("done")
    for link in range(2, 5):
        peer.ends.clear()
        peer.cut()
        await peer.joined(link)
        assert (await peer.end_of("done")).exit_code == 7
    peer.answers_reports = True
    peer.cut()
    peer.ends.clear()
    await peer.end_of("done")
    await peer.end_link()
    await peer.joined(6)
    assert peer.joins[5].held == ()
