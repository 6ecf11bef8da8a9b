"""Peers that hold a token and mean harm, or have gone mad: each ends its own link at most.

After every attack somebody else asks the same master something and is answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import zipfile

import msgspec
import pytest
from raw_link import RawLink
from running_master import RunningMaster

from titan_master.data import archives
from titan_master.net import submission
from titan_proto.codec import encode
from titan_proto.errors import (
    ErrorCode,
    Internal,
    InvalidSpec,
    LimitExceeded,
    Malformed,
    NotFound,
    Unavailable,
)
from titan_proto.ids import AttemptRef
from titan_proto.limits import FRAME_PAYLOAD_BYTES, REPORTS_PER_FRAME
from titan_proto.messages import (
    AttemptReport,
    AttemptReports,
    FetchArtifact,
    GetJob,
    GetRun,
    GetStats,
    Joined,
    Kin,
    ListJobs,
    ListRuns,
    LogChunk,
    OfferArtifact,
    OpCode,
    ReadLog,
    ReportAcks,
    Role,
    ShutDownWorker,
    SpawnReport,
    SpawnReports,
    StartAttempts,
    StopService,
    SubmitRun,
)
from titan_proto.specs import ArtifactRef, JobSpec, Launch, LaunchKind, RunSpec
from titan_proto.states import AttemptState, ExitReason, RunState

TRUE = Launch(kind=LaunchKind.COMMAND, command=("true",))
INT64 = 2**63
HUGE = "9" * 5_000
"""More digits than Python turns into a number."""


def run(*names):
    return RunSpec(name="test run", jobs=tuple(JobSpec(id=name, launch=TRUE) for name in names))


def upload(link, data):
    digest = hashlib.sha256(data).hexdigest()
    link.upload(digest, len(data), lambda offset: iter([data[offset:]]), timeout_s=10)
    return digest


@pytest.fixture
def master(tmp_path):
    with RunningMaster(tmp_path) as running:
        yield running
        # Whatever the test did to it: it lives, and answers somebody else.
        with running.link() as other:
            other.call(GetStats(), timeout_s=10)
        assert not running.master.engine.failure.done()


@pytest.fixture
def link(master):
    with master.link() as made:
        yield made


@pytest.fixture
def viewer(master):
    with RawLink(master.address, role=Role.VIEWER) as made:
        yield made


@pytest.fixture
def worker(master):
    with RawLink(master.address, role=Role.WORKER) as made:
        made.join()
        made.next_of(Joined)
        yield made


def placed(link, worker):
    """The attempt of a fresh run of one job."""
    link.call(SubmitRun(key="k", spec=run("A")), timeout_s=10)
    (order,) = worker.next_of(StartAttempts).orders
    return order.ref


# -- viewers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", [HUGE, "live:" + HUGE, "h" + HUGE, str(INT64), "x", "live:-1"])
def test_a_cursor_that_nobody_gave_out(link, worker, viewer, cursor):
    """Is answered somehow, for live and for ended runs."""
    ref = placed(link, worker)
    for ask in (ListRuns(ended=True, cursor=cursor), ListJobs(run=ref.run_id, cursor=cursor)):
        viewer.ask(ask)
    worker.send(
        AttemptReports(
            reports=(AttemptReport(ref=ref, state=AttemptState.ENDED, reason=ExitReason.EXITED),)
        )
    )
    worker.next_of(ReportAcks)
    viewer.ask(ListJobs(run=ref.run_id, cursor=cursor))


@pytest.mark.parametrize("name", ["\0" * 3_000_000, "\U0010ffff", "\ud7ff", "%", "' OR 1"])
def test_a_name_that_no_run_can_have(master, link, worker, name):
    """Is not found, even where quoting it back would not fit into a frame."""
    placed(link, worker)
    for ask in (
        GetRun(run=name),
        GetJob(job=name),
        GetJob(run="@last", job=name),
        StopService(service=name),
        FetchArtifact(digest=name),
    ):
        with pytest.raises(NotFound):
            link.call(ask, timeout_s=10)
    with master.link(Role.ADMIN) as admin, pytest.raises(NotFound):
        admin.call(ShutDownWorker(worker=name), timeout_s=10)


def test_a_second_request_in_one_exchange_breaks_the_protocol(link, worker, viewer):
    """Two that are served at once in one exchange could not be told apart, or ended."""
    ref = placed(link, worker)
    request = ReadLog(run=ref.run_id, job="A", follow=True)
    correlation = viewer.connection.open_exchange()
    viewer.send(request, correlation, end=True)
    viewer.send(request, correlation, end=True)
    assert viewer.until_closed().code is ErrorCode.PROTOCOL


def test_a_log_that_cannot_be_opened_fails_its_reader_alone(master, link, worker):
    """The folder is a file: whoever reads is told so."""
    ref = placed(link, worker)
    (master.config.data / "logs").mkdir(exist_ok=True)
    (master.config.data / "logs" / ref.run_id).write_bytes(b"")
    worker.send(LogChunk(ref, 1, 0, 0, b"x"))
    assert worker.until_closed().code is ErrorCode.UNAVAILABLE
    with pytest.raises(Unavailable, match="disk"):
        list(link.stream(ReadLog(run=ref.run_id, job="A"), timeout_s=10))


def test_a_log_that_cannot_be_read_fails_its_reader_alone(master, link, worker):
    """It seems to be there, until its first byte is wanted."""
    ref = placed(link, worker)
    (master.config.data / "logs" / ref.run_id / "A.1" / "stdout.log").mkdir(parents=True)
    with pytest.raises(Unavailable, match="disk"):
        list(link.stream(ReadLog(run=ref.run_id, job="A"), timeout_s=10))


def test_an_artifact_that_cannot_be_opened_fails_its_reader_alone(master, link):
    """It has vanished between the look at its size and the first read."""
    digest = upload(link, b"x" * 100)
    path = master.config.data / "artifacts" / digest[:2] / digest
    path.unlink()
    path.symlink_to(path.parent)  # it has a size, and cannot be read
    with pytest.raises(Internal, match="disk"):
        list(link.stream(FetchArtifact(digest=digest), timeout_s=10))


# -- workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        {"exit_code": INT64},
        {"exit_code": -INT64},
        {"signal": INT64},
        {"stdout_bytes": INT64},
        {"stderr_bytes": -1},
        {"started_at_ms": -1},
        {"port": 1 << 20},
        {"ref": AttemptRef("r" * 16, "j" * 1_000_000, 1)},
        {"ref": AttemptRef("..", "A", 1)},
        {"ref": AttemptRef("r" * 16, "A", -1)},
    ],
    ids=str,
)
def test_a_report_that_cannot_be_true_ends_its_link(link, worker, lie):
    """Before it becomes an event that no disk takes."""
    report = {
        "ref": placed(link, worker), "state": AttemptState.ENDED, "reason": ExitReason.EXITED, **lie,
    }  # fmt: skip
    worker.send(AttemptReports(reports=(AttemptReport(**report),)))
    assert worker.until_closed().code is ErrorCode.MALFORMED
    assert link.call(GetRun(run="@last"), timeout_s=10).state is RunState.ACTIVE


def test_more_reports_than_a_frame_may_hold(worker):
    """A turn's work is bounded by its inputs, so an input is bounded too."""
    one = AttemptReport(ref=AttemptRef("r" * 16, "A", 1), state=AttemptState.ENDED)
    worker.send(AttemptReports(reports=(one,) * REPORTS_PER_FRAME))
    assert len(worker.next_of(ReportAcks).refs) == REPORTS_PER_FRAME
    worker.send(AttemptReports(reports=(one,) * (REPORTS_PER_FRAME + 1)))
    assert worker.until_closed().code is ErrorCode.MALFORMED


def test_a_log_of_a_name_as_long_as_a_frame(worker):
    """Quoting it in the goodbye would not fit."""
    name = "j" * (FRAME_PAYLOAD_BYTES - 64)
    worker.send_raw(OpCode.LOG_CHUNK, encode(LogChunk(AttemptRef("r" * 16, name, 1), 1, 0, 0, b"")))
    closed = worker.until_closed()
    assert closed.code is ErrorCode.PROTOCOL
    assert "jj" not in closed.reason


@pytest.mark.parametrize(
    "lie",
    [
        {"software": "s" * 1_000},
        {"boot_id": "b\n"},
        {"incarnation": -1},
        {"incarnation": INT64},
        {"slots": 10**9},
        {"slots": 0},
        {"skills": ("GPU\x1b[31m",)},
        {"skills": ("x",) * 1_000},
        {"host": "h" * 1_000},
        {"worker_id": "w\0"},
    ],
    ids=str,
)
def test_an_introduction_that_cannot_be_true(master, lie):
    """What a worker says of itself is shown to people and kept for long."""
    with RawLink(master.address, role=Role.WORKER) as worker:
        worker.join(**lie)
        assert worker.until_closed().code is ErrorCode.MALFORMED


@pytest.mark.parametrize(
    "lie",
    [
        Kin(cores=-1),
        Kin(cores=2, number=-1),
        Kin(cores=2, spawned=(SpawnReport(number=0),)),
        Kin(cores=2, spawned=(SpawnReport(number=1, message="x" * 5_000),)),
        SpawnReports(reports=(SpawnReport(number=INT64),)),
    ],
    ids=str,
)
def test_siblings_that_cannot_be(master, lie):
    """Nobody asked for such ones."""
    with RawLink(master.address, role=Role.WORKER) as worker:
        worker.send(lie)
        assert worker.until_closed().code is ErrorCode.MALFORMED


def test_one_link_is_one_worker(worker):
    """It may not join as somebody else."""
    worker.join("w2", port=8081)
    assert worker.until_closed().code is ErrorCode.PROTOCOL


def test_one_link_is_one_inventory(worker):
    """A second one may be the first once more: whoever means it dials again."""
    worker.join()
    closed = worker.until_closed()
    assert closed.code is ErrorCode.UNAVAILABLE
    assert "has joined already" in closed.reason


# -- clients --------------------------------------------------------------------------------------


def nested(depth):
    """An array in an array in an array …"""
    return b"\x91" * depth + b"\xc0"


def test_what_a_spec_holds_beside_what_is_known_is_not_kept(tmp_path):
    """A field of the future may be nested as deep as this process can just read it: the journal,
    read at the next start from another depth, must not depend on that.
    """
    body = msgspec.msgpack.encode(run("A"))
    with RunningMaster(tmp_path) as running, running.link() as link:
        for depth in range(2_000, 100, -1):
            jobs = b"\x91\x83" + body[body.index(b"\xa2id") :]
            deep = b"\x82\xa4name\xa1n\xa4jobs" + jobs + b"\xa1x" + nested(depth)
            try:
                submission.decode_spec(deep)
            except submission.Refusal:
                continue
            break
        receipt = link.call(SubmitRun(key="k", spec_digest=upload(link, deep)), timeout_s=10)
        assert running.master.core.state.runs[receipt.run_id]
        journal = b"".join(path.read_bytes() for path in running.config.data.glob("titan.sqlite*"))
        assert nested(100) not in journal
    with RunningMaster(tmp_path) as running, running.link() as link:
        assert link.call(GetRun(run=receipt.alias), timeout_s=10).state is RunState.ACTIVE


def test_a_spec_of_more_jobs_than_may_be_is_not_even_taken_apart(link):
    """50 million nothings in 50 MB would be gigabytes of objects."""
    count = 50_000_000
    body = b"\x82\xa4name\xa1n\xa4jobs\xdd" + count.to_bytes(4, "big") + bytes([0xC0]) * count
    with pytest.raises(Malformed, match="100000"):
        link.call(SubmitRun(key="k", spec_digest=upload(link, body)), timeout_s=20)


def test_a_spec_above_the_limit_is_refused_unread(link, monkeypatch):
    """What SQLite could not store in one record would end the process."""
    monkeypatch.setattr(submission, "RUN_SPEC_BYTES", 1_000)
    body = msgspec.msgpack.encode(run(*(f"J{number}" for number in range(100))))
    with pytest.raises(LimitExceeded, match="RUN_SPEC_BYTES"):
        link.call(SubmitRun(key="k", spec_digest=upload(link, body)), timeout_s=10)


@pytest.mark.parametrize("disguise", ["none", "comment", "zip64"])
def test_a_workspace_with_a_list_of_files_too_long_is_not_taken_apart(link, monkeypatch, disguise):
    """Its entries would be objects in memory by the million before one could be counted."""
    monkeypatch.setattr(archives, "_DIRECTORY_BYTES", 1_000)
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        for number in range(40):
            archive.writestr(f"f{number}", b"")
        archive.comment = b"read me" if disguise == "comment" else b""
    data = place.getvalue()
    if disguise == "zip64":
        data = data[:-22] + b"PK\6\7" + bytes(16) + data[-22:-10] + bytes(10)
    workspace = ArtifactRef(digest=upload(link, data), size_bytes=len(data))
    job = JobSpec(id="A", launch=Launch(script="f1"))
    spec = RunSpec(name="n", jobs=(job,), workspace=workspace)
    with pytest.raises(InvalidSpec, match="bytes of names"):
        link.call(SubmitRun(key="k", spec=spec), timeout_s=10)


def test_an_upload_that_brought_nothing_leaves_nothing(master, link):
    """Neither an offer without a byte, nor a second upload beside the first."""
    parts = master.config.data / "artifacts" / "parts"
    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(3)]
    with RawLink(master.address, role=Role.CLIENT) as raw:
        for digest in (*digests, digests[0]):
            raw.ask(OfferArtifact(digest=digest, size_bytes=10))
        assert len(list(parts.iterdir())) == 4
    link.call(GetStats(), timeout_s=10)  # behind the end of the other link, in one loop
    link.call(GetStats(), timeout_s=10)
    assert not list(parts.iterdir())


def test_an_answer_above_a_frame_fails_its_question_alone(master, link):
    """Whoever asks for that much is told so."""
    state = master.master.core.state
    software = state.software
    master.on_loop(lambda: setattr(state, "software", "x" * FRAME_PAYLOAD_BYTES))
    with pytest.raises(LimitExceeded, match="FRAME_PAYLOAD_BYTES"):
        link.call(GetStats(), timeout_s=10)
    master.on_loop(lambda: setattr(state, "software", software))


# -- the door -------------------------------------------------------------------------------------


def test_strangers_that_say_nothing_do_not_keep_others_out(tmp_path):
    """When too many wait, the one that has waited longest goes."""
    import socket

    with RunningMaster(tmp_path, strangers_max=4) as running:
        idle = [socket.create_connection(tuple(running.address), timeout=10) for _ in range(12)]
        with running.link() as link:
            link.call(GetStats(), timeout_s=10)
        assert idle[0].recv(1) == b""
        for peer in idle:
            peer.close()


def test_no_descriptors_left_for_a_newcomer_ends_nobody(master, link):
    """accept() fails; who is here already is served."""

    def exhausted():
        error = OSError(24, os.strerror(24))
        loop = asyncio.get_running_loop()
        loop.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": error,
                "socket": None,
            }
        )

    master.on_loop(exhausted)
    link.call(GetStats(), timeout_s=10)
