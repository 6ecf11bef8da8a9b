"""A whole worker against a scripted master: real bytes, real processes."""

import asyncio
import io
import os
import signal
import socket
import sys
import time
import zipfile

import pytest
from msgspec.structs import replace

from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.messages import AttemptReports, Leave, Refused, ReportAcks, ShutDown, WorkerStatus
from titan_proto.specs import JobKind, Launch, LaunchKind, Resources, RestartPolicy, ServiceSection
from titan_proto.states import AttemptState, ExitReason
from titan_worker.endings import HOUR_MS, Endings
from titan_worker.host.identity import read_stat


def packed(**files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return target.getvalue()


def script(name, **fields):
    return Launch(kind=LaunchKind.SCRIPT, script=name, **fields)


async def test_it_joins_with_its_name_and_an_incarnation_that_grows(nest, peer):
    await nest.start()
    assert await nest.leave() == 0
    await nest.start()

    first, second = peer.joins
    assert (first.host, first.port, first.slots) == (socket.gethostname(), 8080, 2)
    assert first.skills == ("GENERAL",)
    assert first.worker_id == second.worker_id
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert len(first.boot_id) == 36


async def test_a_job_runs_its_output_arrives_and_it_is_forgotten_when_acknowledged(nest, peer):
    await nest.start()

    peer.order("a", shell="echo out; echo err >&2; exit 3")
    end = await peer.end_of("a")
    await peer.log_of("a", b"err\n", stream=2)
    await peer.log_of("a", b"out\n")

    assert (end.reason, end.exit_code) == (ExitReason.EXITED, 3)
    assert (end.stdout_bytes, end.stderr_bytes) == (4, 4)
    assert 0 < end.started_at_ms <= end.ended_at_ms
    assert (nest.jobs / "a.1" / "stdout.log").read_text() == "out\n"
    # Not by a cut: an end whose acknowledgement was lost with it would rightly be shown again.
    await peer.end_link()
    await peer.joined(2)
    assert peer.joins[1].held == ()


async def test_what_is_taken_is_in_the_ledger_before_it_is_told(nest, peer):
    """So that the next life knows of it, however this one ends."""
    await nest.start()
    peer.order("long", shell="exec sleep 1000")
    await peer.running("long")
    held = nest.ledger.load().held
    assert {ref.job_id: found.state for ref, found in held.items()} == {
        "long": AttemptState.RUNNING
    }
    peer.stop("long")
    await peer.end_of("long")


async def test_a_long_job_is_reported_running_and_stopped_within_its_grace(nest, peer):
    await nest.start()
    peer.order("long", shell="trap 'echo bye; exit 0' TERM; echo on; while :; do sleep 0.01; done")
    await peer.running("long")
    await peer.log_of("long", b"on\n")

    peer.stop("long")

    end = await peer.end_of("long")
    assert end.reason is ExitReason.CANCELLED
    await peer.log_of("long", b"on\nbye\n")


async def test_one_that_does_not_hear_is_killed_after_its_grace(nest, peer):
    await nest.start()
    peer.order(
        "deaf", shell="trap '' TERM; echo on; while :; do sleep 0.01; done", stop_grace_ms=50
    )
    await peer.log_of("deaf", b"on\n")

    peer.stop("deaf")

    end = await peer.end_of("deaf")
    assert (end.reason, end.signal) == (ExitReason.CANCELLED, 9)


async def test_slots_are_never_exceeded_and_all_orders_run(nest, peer, make_order):
    await nest.start()
    line = (
        'cd "$TITAN_SHARED"; : > in.$TITAN_JOB_ID; ls in.* | wc -l; sleep 0.03; rm in.$TITAN_JOB_ID'
    )

    peer.order("j0", *(make_order(f"j{n}", shell=line) for n in range(1, 8)), shell=line)
    for number in range(8):
        assert (await peer.end_of(f"j{number}")).exit_code == 0

    for number in range(8):
        assert int(await peer.log_of(f"j{number}", b"\n")) in (1, 2)


@pytest.mark.parametrize(
    ("slot_ms", "told"),
    [(1_764_550_800_000, "2025-12-01T01:00:00Z"), (1_764_550_800_120, "2025-12-01T01:00:00.120Z")],
)
async def test_a_job_of_a_schedule_finds_its_slot(nest, peer, make_order, slot_ms, told):
    await nest.start()
    order = make_order("slot", shell="echo $TITAN_SCHEDULED_FOR")
    peer.order("other", replace(order, scheduled_for_ms=slot_ms), shell="true")
    await peer.end_of("slot")
    assert await peer.log_of("slot", b"\n") == f"{told}\n".encode()


async def test_what_a_job_finds_in_its_environment(nest, peer, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the worker")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    await nest.start()

    peer.order("env", launch=Launch(kind=LaunchKind.COMMAND, command=("env",), env={"MY": "own"}))
    await peer.end_of("env")
    text = (await peer.log_of("env", b"TITAN_SHARED")).decode()

    found = dict(line.split("=", 1) for line in text.splitlines())
    assert found["MY"] == "own"
    assert found["LC_ALL"] == "C.UTF-8"
    assert found["PYTHONUNBUFFERED"] == "1"
    assert (found["TITAN_RUN_ID"], found["TITAN_JOB_ID"]) == ("r" * 16, "env")
    assert (found["TITAN_ATTEMPT"], found["TITAN_FENCE"]) == ("1", "7")
    assert found["TITAN_IDEMPOTENCY_KEY"] == "r" * 16 + "/env"
    assert found["TITAN_RUN_NAME"] == "nightly"
    assert "TITAN_SCHEDULED_FOR" not in found
    assert found["TITAN_WORKER"] == f"{socket.gethostname()}:8080"
    assert found["TITAN_SHARED"] == str(nest.settings.workspace / "shared" / ("r" * 16))
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert "TITAN_TOKEN" not in found
    assert "PORT" not in found


@pytest.mark.parametrize(
    ("limits", "spec"),
    [(None, {}), (Resources(pids=50), {}), (None, {"exclusive": True})],
    ids=["plain", "with limits", "exclusive"],
)
async def test_nothing_of_the_workers_own_environment_reaches_a_job_but_what_is_listed(
    nest, peer, monkeypatch, limits, spec
):
    """However it is started: what the worker was given for itself is nobody else's."""
    for name in (
        "TITAN_TOKEN_FILE",
        "DATABASE_URL",
        "GITHUB_TOKEN",
        "LD_PRELOAD_OF_US",
        "PYTHONPATH",
    ):
        monkeypatch.setenv(name, "of the worker")
    await nest.start()

    launch = Launch(kind=LaunchKind.COMMAND, command=("env", "-0"), resources=limits)
    peer.order("env", launch=launch, **spec)
    assert (await peer.end_of("env")).exit_code == 0
    text = (await peer.log_of("env", b"TITAN_SHARED")).decode()

    names = {entry.partition("=")[0] for entry in text.split("\0") if entry}
    listed = {
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "TMPDIR",
        "USER",
        "LOGNAME",
        "SHELL",
        "PYTHONUNBUFFERED",
    }
    told = {
        f"TITAN_{name}"
        for name in [
            "WORKER",
            "WORKER_HOME",
            "RUN_ID",
            "JOB_ID",
            "ATTEMPT",
            "FENCE",
            "IDEMPOTENCY_KEY",
            "RUN_NAME",
            "SHARED",
            "OUTPUT",
        ]
    }
    assert {name for name in names if not name.startswith("LC_")} <= listed | told
    assert "of the worker" not in text
    assert told <= names


async def test_a_project_is_unpacked_once_and_every_job_gets_its_own_copy(nest, peer):
    project = peer.offer(
        packed(
            main_dot_py="import os; print(open('data/x.txt').read()); "
            "open('data/x.txt', 'w').write('spoilt'); print(os.getcwd())",
            data__x_dot_txt="fresh",
        ),
        packed=True,
    )
    await nest.start()

    for name in ("one", "two"):
        peer.order(name, launch=script("main.py"), workspace=project)
        assert (await peer.end_of(name)).exit_code == 0
        text, folder = (await peer.log_of(name, b"work\n")).decode().split()
        assert text == "fresh"
        assert folder == str(nest.jobs / f"{name}.1" / "work")
    assert len(peer.fetches) == 1


async def test_scripts_start_by_their_suffix_and_without_an_execute_bit(nest, peer):
    await nest.start()
    python = peer.offer(b"import sys; print(sys.executable, *sys.argv[1:])", "tools/a.py")
    shell = peer.offer(b"echo sh $1\n", "b.sh")
    plain = peer.offer(b"#!/bin/sh\necho plain\n", "c")

    peer.order("a", launch=script("tools/a.py", artifact=python, args=("x", "y z")))
    peer.order("b", launch=script("b.sh", artifact=shell, args=("arg",)))
    peer.order("c", launch=script("c", artifact=plain))

    assert await peer.log_of("a", b"\n") == f"{sys.executable} x y z\n".encode()
    assert await peer.log_of("b", b"\n") == b"sh arg\n"
    assert await peer.log_of("c", b"\n") == b"plain\n"


async def test_jobs_that_cannot_start_say_why(nest, peer):
    await nest.start()
    project = peer.offer(packed(here_dot_py="1", notes_dot_txt="x"), packed=True)
    peer.order("missing", launch=script("gone.py"), workspace=project)
    peer.order("mode", launch=script("notes.txt"), workspace=project)
    peer.order("away", launch=script("../x.py"), workspace=project)
    peer.order("command", launch=Launch(kind=LaunchKind.COMMAND, command=("no-such-thing",)))

    for name, words in (
        ("missing", "'gone.py' is not in the workspace, which holds here.py, notes.txt"),
        ("mode", "not executable"),
        ("away", "refused"),
        ("command", "'no-such-thing' was not found"),
    ):
        end = await peer.end_of(name)
        assert end.reason is ExitReason.START_FAILED
        assert words in end.message


async def test_workspaces_that_cannot_be_made_say_why(nest, peer):
    await nest.start()
    unknown = peer.offer(b"bytes", "a.py")
    peer.blobs.clear()
    evil = peer.offer(packed(**{"..__evil": "x"}), packed=True)
    lying = peer.offer(b"abc", "l.py")
    peer.blobs[lying.digest] = b"xyz"
    peer.order("unknown", launch=script("a.py", artifact=unknown))
    peer.order("evil", launch=script("a.py"), workspace=evil)
    peer.order("lying", launch=script("l.py", artifact=lying))

    for name, words in (
        ("unknown", "no such artifact"),
        ("evil", "'../evil' is refused"),
        ("lying", "other bytes than its own"),
    ):
        end = await peer.end_of(name)
        assert end.reason is ExitReason.PREPARE_FAILED
        assert words in end.message


def order_server(peer, program):
    """A service that listens where it is told."""
    peer.order(
        "api",
        launch=script("s.py", artifact=peer.offer(program.encode(), "s.py")),
        kind=JobKind.SERVICE,
        service=ServiceSection(port_auto=True),
    )


async def test_a_service_with_a_free_port_is_healthy_when_it_answers(nest, peer):
    await nest.start()
    program = (
        "import http.server, os\n"
        "s = http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])),"
        " http.server.SimpleHTTPRequestHandler)\n"
        "s.serve_forever()\n"
    )
    order_server(peer, program)

    await peer.until(lambda: any(r.healthy for r in reports(peer)))
    (healthy,) = (r for r in reports(peer) if r.healthy)
    with socket.create_connection(("127.0.0.1", healthy.port)):
        pass
    peer.stop("api", reason=ExitReason.STOPPED)
    assert (await peer.end_of("api")).reason is ExitReason.STOPPED


async def test_a_service_that_is_killed_answers_again_on_its_port_and_its_log_goes_on(nest, peer):
    await nest.start()
    program = (
        "import os, socket\n"
        "s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
        "print(os.getpid(), flush=True)\n"
        "while True: s.accept()\n"
    )
    order_server(peer, program)
    pids = []
    for restarts in range(3):
        await peer.until(
            lambda n=restarts: any(r.healthy and r.restarts == n for r in reports(peer))
        )
        await peer.until(lambda n=restarts: len(peer.log("api").splitlines()) > n)
        pids = [int(line) for line in peer.log("api").split()]
        if restarts < 2:
            os.kill(pids[-1], signal.SIGKILL)
    assert len(set(pids)) == 3
    (port,) = {r.port for r in reports(peer) if r.healthy}
    with socket.create_connection(("127.0.0.1", port)):
        pass
    peer.stop("api", reason=ExitReason.STOPPED)
    end = await peer.end_of("api")
    assert (end.reason, end.restarts) == (ExitReason.STOPPED, 2)


async def test_what_a_restarted_service_left_behind_is_looked_for_only_when_it_is_over(nest, peer):
    """Its next process has the same mark: a hunt for the first one's remains would kill it."""
    await nest.start()
    once = nest.settings.data / "once"
    peer.order(
        "api",
        shell=f'if [ ! -e "{once}" ]; then : > "{once}"; exit 1; fi; exec sleep 1000',
        kind=JobKind.SERVICE,
        service=ServiceSection(),
    )
    await peer.until(lambda: any(r.healthy and r.restarts == 1 for r in reports(peer)))
    assert nest.worker._engine._leavers == set()
    peer.stop("api", reason=ExitReason.STOPPED)
    end = await peer.end_of("api")
    assert (end.reason, end.restarts) == (ExitReason.STOPPED, 1)


async def test_a_service_that_ends_at_once_ends_as_a_crash_loop_with_its_last_words(nest, peer):
    await nest.start()
    peer.order(
        "api",
        shell="echo listening; echo 'no such table: users' >&2; exit 0",
        kind=JobKind.SERVICE,
        service=ServiceSection(port_auto=True, restart=RestartPolicy(max=2, delay_ms=10)),
    )
    end = await peer.end_of("api")
    assert (end.reason, end.exit_code, end.restarts) == (ExitReason.CRASH_LOOP, 0, 2)
    assert "no such table: users" in end.message
    await peer.log_of("api", b"listening\n" * 3)


async def test_a_service_whose_port_is_taken_does_not_pass_for_healthy(nest, peer):
    await nest.start()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        peer.order(
            "api",
            shell="exec sleep 1000",
            kind=JobKind.SERVICE,
            service=ServiceSection(port=holder.getsockname()[1]),
        )
        end = await peer.end_of("api")

    assert end.reason is ExitReason.START_FAILED
    assert "port: auto" in end.message


async def test_a_cut_link_stops_nothing_and_ends_are_told_after_it(nest, peer):
    peer.answers_reports = False
    await nest.start()
    peer.order("long", shell="echo on; exec sleep 1000")
    peer.order("short", shell="exit 5")
    await peer.running("long")
    await peer.log_of("long", b"on\n")
    await peer.end_of("short")
    peer.ends.clear()

    peer.answers_reports = True
    peer.cut()
    await peer.joined(2)

    held = {entry.ref.job_id: entry.state for entry in peer.joins[1].held}
    assert held == {"long": AttemptState.RUNNING, "short": AttemptState.ENDED}
    assert (await peer.end_of("short")).exit_code == 5
    peer.stop("long")
    await peer.end_of("long")
    assert len(peer.got(ReportAcks)) == 0


async def test_a_master_that_dies_again_and_again_has_its_worker_back_within_a_lease(nest, peer):
    """Each new master gives a lease and no more: pauses that grow must not outgrow it."""
    peer.heartbeat_ms = 200
    await nest.start()
    pauses_s = []
    for life in range(1, 9):
        await peer.until(lambda life=life: (life, WorkerStatus) in peer.seen_kinds())
        peer.cut()
        began_s = time.monotonic()
        await peer.joined(life + 1)
        pauses_s.append(time.monotonic() - began_s)
    # One may have met whatever else this machine was doing; those that grow, grow to the end.
    assert sorted(pauses_s)[-2] < 6 * peer.heartbeat_ms / 1000


async def test_logs_go_on_where_the_master_stands_after_every_break(nest, peer, monkeypatch):
    """Links are cut again and again while a job writes; not a byte is missing or doubled."""
    monkeypatch.setattr("titan_worker.link.BACKOFF_MAX_S", 0.01)
    await nest.start()
    peer.order(
        "loud",
        shell="i=0; while [ $i -lt 30000 ]; do echo line $i; echo e$i >&2; i=$((i+1)); done",
    )
    for cuts in range(1, 21):
        await peer.until(lambda cuts=cuts: len(peer.log("loud")) > cuts * 10_000)
        peer.cut()
        await peer.joined(cuts + 1)
    end = await peer.end_of("loud")

    await peer.until(lambda: len(peer.log("loud")) == end.stdout_bytes)
    await peer.until(lambda: len(peer.log("loud", 2)) == end.stderr_bytes)

    assert peer.log("loud") == b"".join(b"line %d\n" % n for n in range(30_000))
    assert peer.log("loud", 2) == b"".join(b"e%d\n" % n for n in range(30_000))


async def test_logs_of_ended_attempts_survive_a_restart_of_the_worker(nest, peer):
    peer.takes_logs = False
    await nest.start()
    peer.order("a", shell="echo kept; echo also >&2")
    await peer.end_of("a")
    await nest.crash()

    peer.takes_logs = True
    await nest.start()

    assert await peer.log_of("a", b"\n") == b"kept\n"
    assert await peer.log_of("a", b"\n", stream=2) == b"also\n"
    await nest.leave()
    # Once all of it is there it is never sent again.
    peer.logs.clear()
    await nest.start()
    peer.order("b", shell="echo next")
    await peer.log_of("b", b"next\n")
    assert peer.log("a") == b""


async def test_a_new_life_reports_what_the_last_one_left_as_lost_and_ships_its_log(nest, peer):
    await nest.start()
    peer.order("cut", shell="echo half; exec sleep 1000")
    await peer.running("cut")
    await peer.log_of("cut", b"half\n")
    peer.logs.clear()
    await nest.crash()

    await nest.start()

    assert (await peer.end_of("cut")).reason is ExitReason.LOST
    assert await peer.log_of("cut", b"half\n") == b"half\n"


async def test_an_artifact_is_fetched_on_from_where_the_link_broke(nest, peer):
    await nest.start()
    data = b"#!/bin/sh\necho whole\nexit 0\n" + os.urandom(600_000)
    artifact = peer.offer(data, "big")
    peer.artifact_cuts = [300_000]

    peer.order("big", launch=script("big", artifact=artifact))

    assert (await peer.end_of("big")).exit_code == 0
    assert [fetch.offset for fetch in peer.fetches] == [0, 4 * 65_536]


async def test_a_download_survives_a_cut_at_every_piece(nest, peer, monkeypatch):
    monkeypatch.setattr("titan_worker.link.BACKOFF_MAX_S", 0.01)
    await nest.start()
    data = b"#!/bin/sh\necho whole\nexit 0\n" + os.urandom(600_000)
    artifact = peer.offer(data, "big")
    pieces = [number * 65_536 for number in range(10)]
    peer.artifact_cuts = list(pieces)
    peer.order("big", launch=script("big", artifact=artifact))

    assert (await peer.end_of("big")).exit_code == 0
    assert (nest.jobs / "big.1/work/big").read_bytes() == data
    assert [fetch.offset for fetch in peer.fetches] == [0, *pieces]


async def test_jobs_of_one_artifact_share_one_download(nest, peer, make_order):
    await nest.start()
    artifact = peer.offer(b"echo same\n", "s.sh")
    launch = script("s.sh", artifact=artifact)

    peer.order("a", make_order("b", launch=launch), make_order("c", launch=launch), launch=launch)

    for name in "abc":
        assert (await peer.end_of(name)).exit_code == 0
    assert len(peer.fetches) == 1


async def test_stopping_it_ends_its_jobs_reports_them_and_leaves_last(nest, peer):
    await nest.start()
    peer.order("job", shell="echo on; exec sleep 1000")
    await peer.log_of("job", b"on\n")

    assert await nest.leave() == 0

    assert (await peer.end_of("job")).reason is ExitReason.WORKER_LEFT
    await peer.until(lambda: peer.got(Leave))
    assert isinstance(peer.seen[-1][1], Leave)


async def test_a_third_request_to_stop_ends_it_at_once(nest, peer):
    """The first two leave the job its grace, which is longer than this test may last."""
    await nest.start()
    deaf = "trap '' TERM; echo on; while :; do sleep 0.01; done"
    peer.order("deaf", shell=deaf, stop_grace_ms=600_000)
    await peer.log_of("deaf", b"on\n")
    await peer.running("deaf")
    (pid,) = (held.pid for held in nest.ledger.load().held.values())

    nest.worker.stop()
    nest.worker.stop()
    assert await nest.leave() == 0

    assert read_stat(pid) is None


async def test_heartbeats_carry_the_load(nest, peer):
    peer.heartbeat_ms = 100
    await nest.start()

    await peer.until(lambda: len(peer.got(WorkerStatus)) >= 2)

    assert peer.got(WorkerStatus)[1].memory_total_bytes > 0


async def test_a_wrong_token_ends_it_with_the_reason(nest, peer, capsys):
    peer.refuses = Refused(code=ErrorCode.UNAUTHENTICATED, reason="that token was revoked")
    nest.begin()

    assert await nest.end() == 77
    assert "that token was revoked" in capsys.readouterr().err


async def test_a_name_that_is_live_elsewhere_ends_it_with_the_masters_words(nest, peer, capsys):
    await nest.start()
    peer.link.close(ErrorCode.DUPLICATE_WORKER, "vm:8080 is live; ask for 8081")

    assert await nest.end() == 75
    assert "ask for 8081" in capsys.readouterr().err


async def test_another_process_that_is_this_worker_ends_it(nest, peer, capsys):
    """A copied data folder: what runs here is lost to the master, and would go on for nobody."""
    await nest.start()
    peer.link.close(ErrorCode.SUPERSEDED, "this worker has joined on a newer link")

    assert await nest.end() == 75
    assert "on a newer link" in capsys.readouterr().err


async def test_a_worker_whose_machine_was_started_again_waits_until_its_shadow_is_gone(
    nest, peer, monkeypatch
):
    """The master may still believe in the old link, and takes this one for a copy meanwhile."""
    monkeypatch.setattr("titan_worker.link.BACKOFF_MAX_S", 0.05)
    await nest.start()
    await nest.crash()
    monkeypatch.setattr("titan_worker.app.boot_id", lambda: "another-boot")
    peer.refuses_join = (ErrorCode.DUPLICATE_WORKER, "worker w1 runs on another machine")
    seen = len(peer.joins)
    nest.begin()
    await peer.joined(seen + 2)
    assert not nest.life.done()
    peer.refuses_join = None
    await peer.joined(len(peer.joins) + 1)


async def test_it_waits_for_a_master_that_is_not_there_yet(nest, peer):
    address = peer.address
    await peer.close()
    nest.begin()
    await asyncio.sleep(0)

    await peer.open(address.port)

    await peer.joined()


async def test_an_older_term_is_not_obeyed(nest, peer):
    peer.term = 5
    await nest.start()
    peer.term = 4
    peer.cut()
    await peer.until(lambda: len(peer.links) >= 2)
    await peer.until(lambda: peer.links[1].connection.is_closed)

    peer.term = 6
    await peer.joined(2)
    assert [number for number, message in peer.seen if message in peer.joins][1] >= 3


async def test_short_jobs_are_told_by_one_report(nest, peer):
    await nest.start()
    peer.order("blink", launch=Launch(kind=LaunchKind.COMMAND, command=("true",)))
    await peer.end_of("blink")

    told = [message for message in peer.got(AttemptReports) if message.reports]
    assert sum(len(message.reports) for message in told) <= 2


async def test_another_clusters_master_gets_nothing_of_the_old_ones(nest, peer):
    peer.takes_logs = False
    peer.answers_reports = False
    await nest.start()
    peer.order("old", shell="echo private; exec sleep 1000")
    await peer.running("old")
    peer.cluster_id, peer.takes_logs, peer.answers_reports = "cluster-2", True, True
    peer.seen.clear()

    peer.cut()
    await peer.joined(2)
    peer.order("new", shell="echo fresh")
    await peer.log_of("new", b"fresh\n")

    assert peer.joins[1].held == ()
    assert peer.log("old") == b""


def reports(peer):
    return [report for message in peer.got(AttemptReports) for report in message.reports]


async def test_folders_of_long_ago_go_when_a_worker_starts_and_younger_ones_stay(nest, peer):
    for number, hours in ((1, 0), (2, int(time.time()) // 3600)):
        attempt = nest.jobs / f"old.{number}"
        (attempt / "work").mkdir(parents=True)
        endings = Endings(nest.settings.private / "endings")
        endings._folder.mkdir(parents=True, exist_ok=True)
        endings.open()
        endings.ended(AttemptRef("r" * 16, "old", number), hours * HOUR_MS, owes_logs=False)
        endings.close()

    await nest.start()
    async with asyncio.timeout(10):
        while (nest.jobs / "old.1").exists():  # noqa: ASYNC110 - folders tell nobody that they go
            await asyncio.sleep(0.005)

    assert (nest.jobs / "old.2").exists()


async def test_a_draining_worker_finishes_its_task_and_leaves_by_itself(nest, peer, tmp_path):
    flag = tmp_path / "go"
    nest.settings = replace(nest.settings, drain_ms=600_000)
    await nest.start()
    peer.order("slow", shell=f'echo up; while [ ! -e "{flag}" ]; do sleep 0.02; done; exit 3')
    await peer.log_of("slow", b"up\n")
    nest.worker.stop()
    await peer.until(lambda: any(status.leaving for status in peer.got(WorkerStatus)))
    flag.touch()
    end = await peer.end_of("slow")
    assert (end.reason, end.exit_code) == (ExitReason.EXITED, 3)
    assert await nest.end() == 0
    await peer.until(lambda: peer.got(Leave))


async def test_the_masters_word_makes_it_leave_with_0(nest, peer):
    await nest.start()
    peer.order("long", shell="exec sleep 1000")
    await peer.running("long")
    peer.link.send(ShutDown(term=peer.term, drain_ms=50))
    assert await nest.end() == 0
    assert (await peer.end_of("long")).reason is ExitReason.WORKER_LEFT
