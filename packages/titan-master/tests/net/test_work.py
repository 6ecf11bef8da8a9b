"""Runs, logs and files over real sockets, with a worker played by the test."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import threading
import zipfile

import msgspec
import pytest
from raw_link import RawLink
from running_master import RunningMaster

from titan_master.data import perm_files
from titan_master.net import listener, staging
from titan_master.net.submission import RawRun, decode_spec
from titan_proto.datagrams import seal
from titan_proto.errors import Conflict, ErrorCode, InvalidSpec, Malformed, NotFound
from titan_proto.handshake import LOG_GAPS
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    STDERR,
    STDOUT,
    AttemptReport,
    AttemptReports,
    CancelRun,
    FetchArtifact,
    FileOrigin,
    FindFiles,
    GetJob,
    GetRun,
    GetStats,
    GetTraffic,
    Joined,
    ListFiles,
    ListJobs,
    ListRuns,
    LogAck,
    LogChunk,
    LogGap,
    LogPiece,
    LogStream,
    NameFile,
    ReadLog,
    ReportAcks,
    Role,
    RunReceipt,
    StartAttempts,
    SubmitRun,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.specs import ArtifactFormat, ArtifactRef, JobSpec, Launch, LaunchKind, RunSpec
from titan_proto.states import AttemptState, ExitReason, JobState, RunState

TRUE = Launch(kind=LaunchKind.COMMAND, command=("true",))


def job(name, *after, launch=TRUE):
    return JobSpec(id=name, launch=launch, dependencies=after)


def script(name, artifact=None):
    return Launch(kind=LaunchKind.SCRIPT, script=name, artifact=artifact)


def run(*jobs, name="test run", workspace=None):
    return RunSpec(name=name, jobs=jobs, workspace=workspace)


def upload(link, data):
    """Store `data`; its digest."""
    digest = hashlib.sha256(data).hexdigest()
    link.upload(digest, len(data), lambda offset: iter([data[offset:]]), timeout_s=10)
    return digest


def ended(ref, code=0, **fields):
    return AttemptReport(
        ref=ref, state=AttemptState.ENDED, reason=ExitReason.EXITED, exit_code=code, **fields
    )


def report(worker, *reports):
    """Report, and wait until the ends are durable."""
    worker.send(AttemptReports(reports=reports))
    if any(one.state is AttemptState.ENDED for one in reports):
        worker.next_of(ReportAcks)


@pytest.fixture
def master(tmp_path):
    with RunningMaster(tmp_path) as running:
        yield running


@pytest.fixture
def link(master):
    with master.link() as made:
        yield made


@pytest.fixture
def worker(master):
    with RawLink(master.address, role=Role.WORKER) as made:
        made.join()
        made.next_of(Joined)
        yield made


def one_running(link, worker, key="k"):
    """A run of one job, placed and running: its receipt and its attempt."""
    receipt = link.call(SubmitRun(key=key, spec=run(job("A"))), timeout_s=10)
    (order,) = worker.next_of(StartAttempts).orders
    report(worker, AttemptReport(ref=order.ref, state=AttemptState.RUNNING, started_at_ms=1))
    return receipt, order.ref


def text(link, **request):
    """A log as it is read."""
    pieces = link.stream(ReadLog(**request), timeout_s=10)
    return b"".join(piece.data for piece in pieces)


def test_a_run_from_its_submission_to_its_end(link, worker):
    """Receipt, placement, report, acknowledgement, result; and then from history."""
    receipt = link.call(SubmitRun(key="k", spec=run(job("A"), job("B", "A"))), timeout_s=10)
    for name in ("A", "B"):
        (order,) = worker.next_of(StartAttempts).orders
        assert (order.spec.id, order.run_name) == (name, "test run")
        report(worker, ended(order.ref))
    over = link.call(WaitRun(run=receipt.run_id), timeout_s=10)
    assert over.state is RunState.SUCCEEDED
    assert link.call(GetRun(run="test-run-1"), timeout_s=10) == over
    listed = link.call(ListRuns(ended=True), timeout_s=10)
    assert listed.runs == (over,)
    assert link.call(GetJob(job="B"), timeout_s=10).state is JobState.SUCCEEDED
    assert link.call(WaitJob(run="test", job="A"), timeout_s=10).attempt == 1
    changes = list(link.stream(WatchRun(run=receipt.run_id), timeout_s=10))
    assert [change.job_id for change in changes] == ["A", "B", ""]
    assert changes[-1].run_state is RunState.SUCCEEDED


def test_the_same_key_is_the_same_run(link):
    """Also on another link; other content under it is a conflict."""
    first = link.call(SubmitRun(key="k", spec=run(job("A"))), timeout_s=10)
    again = link.call(SubmitRun(key="k", spec=run(job("A"))), timeout_s=10)
    assert again == RunReceipt(run_id=first.run_id, alias=first.alias, known=True)
    with pytest.raises(Conflict):
        link.call(SubmitRun(key="k", spec=run(job("B"))), timeout_s=10)


def test_what_was_accepted_is_there_after_a_restart(tmp_path):
    """Under the next term, with its key still known."""
    with RunningMaster(tmp_path) as running, running.link() as link:
        first = link.call(SubmitRun(key="k", spec=run(job("A"))), timeout_s=10)
    with RunningMaster(tmp_path) as running, running.link() as link:
        assert link.welcome.term == 2
        assert link.call(SubmitRun(key="k", spec=run(job("A"))), timeout_s=10).known
        assert link.call(GetRun(run=first.alias), timeout_s=10).state is RunState.ACTIVE


def test_everything_wrong_with_a_spec_is_said_at_once(link):
    """And nothing is stored."""
    with pytest.raises(InvalidSpec) as caught:
        link.call(SubmitRun(key="k", spec=run(job("A", "X"), job("a/b"))), timeout_s=10)
    assert {problem.code for problem in caught.value.problems} >= {"Y201", "Y202"}
    assert link.call(ListRuns(ended=True), timeout_s=10).runs == ()


@pytest.mark.parametrize("count", [1, 2_000])
def test_a_large_spec_travels_as_an_artifact(link, count):
    """Decoded job by job, it is the same run as one sent at once."""
    spec = run(*(job(f"J{number}") for number in range(count)))
    body = msgspec.msgpack.encode(spec)
    request = SubmitRun(key="k", spec_digest=upload(link, body))
    receipt = link.call(request, timeout_s=10)
    assert link.call(GetRun(run=receipt.run_id), timeout_s=10).jobs == count
    if count == 1:
        assert link.call(SubmitRun(key="k", spec=spec), timeout_s=10).known


def test_a_spec_decoded_in_steps_is_the_spec():
    """Every field of a RunSpec is taken over."""
    assert RawRun.__struct_fields__ == RunSpec.__struct_fields__
    artifact = ArtifactRef(digest="0" * 64, size_bytes=1)
    spec = run(job("A"), job("B", "A"), workspace=artifact)
    assert decode_spec(msgspec.msgpack.encode(spec)) == spec


def test_a_spec_that_cannot_be_read_is_refused_with_its_place(link):
    """The job that is wrong, by number."""
    body = msgspec.msgpack.encode({"name": "x", "jobs": [{"id": "A", "launch": {}}, {"id": 7}]})
    with pytest.raises(Malformed, match=r"jobs\[1\]"):
        link.call(SubmitRun(key="k", spec_digest=upload(link, body)), timeout_s=10)
    with pytest.raises(NotFound):
        link.call(SubmitRun(key="k", spec_digest="0" * 64), timeout_s=10)
    with pytest.raises(Malformed):
        link.call(SubmitRun(key="k"), timeout_s=10)
    with pytest.raises(InvalidSpec):
        link.call(SubmitRun(key="k" * 500, spec=run(job("A"))), timeout_s=10)


# -- scripts by name ------------------------------------------------------------------------------


def test_a_script_by_name_is_pinned_to_what_it_is_now(master, link, worker):
    """The file may change after the submission; the run does not."""
    master.config.perm_files.mkdir()
    place = master.config.perm_files / "hello.py"
    place.write_text("print('old')")
    link.call(SubmitRun(key="k", spec=run(job("A", launch=script("hello.py")))), timeout_s=10)
    place.write_text("print('new')")
    (order,) = worker.next_of(StartAttempts).orders
    artifact = order.spec.launch.artifact
    assert artifact is not None
    assert (artifact.format, artifact.name) == (ArtifactFormat.FILE, "hello.py")
    assert artifact.digest == hashlib.sha256(b"print('old')").hexdigest()
    # The retry of a submission is the same run, whatever has become of the file.
    place.unlink()
    again = SubmitRun(key="k", spec=run(job("A", launch=script("hello.py"))))
    assert link.call(again, timeout_s=10).known


def test_a_script_that_nobody_has_is_refused_by_its_place(link):
    """All of them at once, with what to do."""
    spec = run(job("A"), job("B", launch=script("no.py")), job("C", launch=script("sub/no.py")))
    with pytest.raises(InvalidSpec) as caught:
        link.call(SubmitRun(key="k", spec=spec), timeout_s=10)
    assert [problem.where for problem in caught.value.problems] == [
        "jobs[1].launch.script",
        "jobs[2].launch.script",
    ]
    assert "no.py" in caught.value.problems[0].message
    assert "perm_files" in caught.value.problems[0].hint


def test_a_script_of_the_workspace_comes_before_one_of_that_name(master, link, worker, tmp_path):
    """What is sent along wins; small or large, known workspace or new."""
    master.config.perm_files.mkdir()
    (master.config.perm_files / "a.py").write_text("the other")
    place = tmp_path / "w.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("a.py", "mine")
        archive.writestr("sub/b.sh", "mine")
    data = place.read_bytes()
    ref = ArtifactRef(digest=upload(link, data), size_bytes=len(data))
    jobs = (job("A", launch=script("a.py")), job("B", launch=script("sub/b.sh")))
    for key in ("new", "known"):
        link.call(SubmitRun(key=key, spec=run(*jobs, workspace=ref)), timeout_s=10)
    orders = []
    while len(orders) < 2:
        orders += worker.next_of(StartAttempts).orders
    assert [order.spec.launch.artifact for order in orders] == [None, None]
    assert orders[0].workspace == ref


def test_artifacts_that_were_not_uploaded_are_missed(link):
    """Before the run is accepted, not when a worker wants them."""
    ref = ArtifactRef(digest="1" * 64, size_bytes=1)
    own = ArtifactRef(digest="2" * 64, size_bytes=1, format=ArtifactFormat.FILE, name="x.py")
    spec = run(job("A", launch=script("x.py", own)), workspace=ref)
    with pytest.raises(InvalidSpec) as caught:
        link.call(SubmitRun(key="k", spec=spec), timeout_s=10)
    assert [problem.where for problem in caught.value.problems] == [
        "workspace",
        "jobs[0].launch.artifact",
    ]


def test_a_workspace_that_is_no_archive_is_refused(link):
    """Where its files must be known."""
    ref = ArtifactRef(digest=upload(link, b"no zip at all"), size_bytes=13)
    spec = run(job("A", launch=script("a.py")), workspace=ref)
    with pytest.raises(InvalidSpec, match="not a zip"):
        link.call(SubmitRun(key="k", spec=spec), timeout_s=10)


def test_files_are_found_by_name(master, link):
    """Those that exist, in the order asked."""
    master.config.perm_files.mkdir()
    (master.config.perm_files / "a.py").write_text("a")
    found = link.call(FindFiles(names=("b.py", "a.py", "../a.py")), timeout_s=10)
    assert [ref.name for ref in found.files] == ["a.py"]


# -- scripts that come along ----------------------------------------------------------------------


def packed(link, files):
    """An archive, stored; how a spec names it."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    data = body.getvalue()
    return ArtifactRef(digest=upload(link, data), size_bytes=len(data))


def submit(link, key, *jobs, workspace=None):
    return link.call(SubmitRun(key=key, spec=run(*jobs, workspace=workspace)), timeout_s=10)


def test_scripts_that_come_along_are_found_by_name_afterwards(master, link, worker):
    """Of a workspace those that are jobs, and those that were packed alone; with nothing to say."""
    whole = packed(link, {"a.py": "in the folder", "lib/b.py": "a module"})
    alone = packed(link, {"sub/c.sh": "alone"})
    jobs = (job("A", launch=script("a.py")), job("C", launch=script("sub/c.sh", alone)))
    for key in ("new", "known"):
        assert submit(link, key, *jobs, workspace=whole).notices == ()
    found = link.call(ListFiles(), timeout_s=10).files
    assert [view.name for view in found] == ["a.py", "sub/c.sh"]
    assert {view.current.origin for view in found} == {FileOrigin.STAGED}
    # A submission that names one of them, and brings nothing.
    submit(link, "by name", job("A", launch=script("a.py")))
    assert (master.config.perm_files / "a.py").read_text() == "in the folder"


def test_the_receipt_says_that_a_dropped_file_was_replaced(master, link):
    """So does that of every further try of it, and of no other submission."""
    master.config.perm_files.mkdir()
    (master.config.perm_files / "a.py").write_text("by hand")
    spec = job("A", launch=script("a.py", packed(link, {"a.py": "mine"})))
    first = submit(link, "k", spec)
    (said,) = first.notices
    old = hashlib.sha256(b"by hand").hexdigest()
    assert old[:12] in said
    again = submit(link, "k", spec)
    assert (again.known, again.notices) == (True, first.notices)
    assert submit(link, "k2", spec).notices == ()
    (view,) = link.call(ListFiles(name="a.py"), timeout_s=10).files
    assert [one.digest for one in view.versions] == [old]
    pieces = link.stream(FetchArtifact(digest=old, name="a.py"), timeout_s=10)
    assert b"".join(piece.data for piece in pieces) == b"by hand"
    with pytest.raises(NotFound):
        list(link.stream(FetchArtifact(digest=old), timeout_s=10))


def test_a_run_keeps_the_version_that_it_was_submitted_with(master, link, worker):
    """Whatever is staged under the name later."""
    submit(link, "one", job("A", launch=script("a.py", packed(link, {"a.py": "1"}))))
    worker.next_of(StartAttempts)
    submit(link, "by name", job("A", launch=script("a.py")))
    submit(link, "two", job("A", launch=script("a.py", packed(link, {"a.py": "22"}))))
    (order,) = worker.next_of(StartAttempts).orders
    assert order.spec.launch.artifact.digest == hashlib.sha256(b"1").hexdigest()
    assert (master.config.perm_files / "a.py").read_text() == "22"


@pytest.mark.parametrize(
    ("name", "words"),
    [(".ci/x.py", "begins or ends with a dot"), ("A.py", "differs from 'a.py'"), ("d", "is a folder")],
)  # fmt: skip
def test_a_file_that_cannot_be_staged_is_said_and_its_run_accepted(master, link, name, words):
    """Nothing of perm_files stands between a client and its run."""
    (master.config.perm_files / "d").mkdir(parents=True)
    (master.config.perm_files / "a.py").write_text("by hand")
    receipt = submit(link, "k", job("A", launch=script(name, packed(link, {name: "x"}))))
    (said,) = receipt.notices
    assert words in said
    assert "does not affect the run" in said
    assert link.call(GetRun(run=receipt.run_id), timeout_s=10).state is RunState.ACTIVE


def test_a_full_disk_or_a_damaged_archive_holds_up_no_run(master, link, monkeypatch):
    """The receipt says what was not kept, and why."""

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    good = packed(link, {"a.py": "x"})
    bad = ArtifactRef(digest=upload(link, b"no zip at all"), size_bytes=13)
    (said,) = submit(link, "bad", job("A", launch=script("a.py", bad))).notices
    assert "not a zip archive" in said
    monkeypatch.setattr(perm_files, "_write", full)
    (said,) = submit(link, "full", job("A", launch=script("a.py", good))).notices
    assert "No space left on device" in said
    assert not (master.config.perm_files / "a.py").exists()


def test_a_run_stages_so_many_files_and_bytes_at_most(link, monkeypatch):
    """More is said, and the rest is kept."""
    monkeypatch.setattr(staging, "STAGED_FILES_PER_RUN", 2)
    monkeypatch.setattr(staging, "STAGED_BYTES_PER_RUN", 100)
    refs = [packed(link, {f"{n}.py": "x" * 60}) for n in range(3)]
    jobs = [job(f"J{n}", launch=script(f"{n}.py", ref)) for n, ref in enumerate(refs)]
    files, weight = submit(link, "k", *jobs).notices
    assert "STAGED_FILES_PER_RUN" in files
    assert weight.startswith("1.py")
    assert "STAGED_BYTES_PER_RUN (100)" in weight
    assert [view.name for view in link.call(ListFiles(), timeout_s=10).files] == ["0.py"]


def test_different_files_of_one_name_in_one_run(link):
    """A name stands for one content: the last; and that is said."""
    jobs = [job(f"J{n}", launch=script("a.py", packed(link, {"a.py": f"{n}"}))) for n in range(3)]
    for key in ("new", "known"):
        (said,) = submit(link, key, *jobs).notices
        assert "keeps the last" in said
    (view,) = link.call(ListFiles(), timeout_s=10).files
    assert view.current.digest == hashlib.sha256(b"2").hexdigest()


def test_commands_and_known_scripts_wait_for_no_staging(master, link):
    """While the thread that stages is held up, what brings nothing new goes through."""
    known = job("A", launch=script("a.py", packed(link, {"a.py": "x"})))
    submit(link, "first", known)
    held = threading.Event()
    stuck = master.pools.files.submit(held.wait)
    try:
        submit(link, "command", job("A"))
        submit(link, "known", known)
        submit(link, "by name", job("A", launch=script("a.py")))
    finally:
        held.set()
    stuck.result(10)


def test_an_artifact_is_given_a_name(master, link):
    """What was there stays as a version; whoever tries again hears the same."""
    master.config.perm_files.mkdir()
    (master.config.perm_files / "a.py").write_text("by hand")
    request = NameFile(name="a.py", digest=upload(link, b"uploaded"), key="k")
    view = link.call(request, timeout_s=10)
    assert (view.current.origin, len(view.versions), len(view.notices)) == (
        FileOrigin.UPLOADED, 1, 1,
    )  # fmt: skip
    assert link.call(request, timeout_s=10) == view
    with pytest.raises(InvalidSpec, match="stays inside"):
        link.call(NameFile(name="../a.py", digest=request.digest), timeout_s=10)
    with pytest.raises(NotFound, match="no artifact"):
        link.call(NameFile(name="b.py", digest="0" * 64), timeout_s=10)
    with pytest.raises(NotFound, match=r"no file 'b\.py'"):
        link.call(ListFiles(name="b.py"), timeout_s=10)


# -- logs -----------------------------------------------------------------------------------------


def test_a_log_is_acknowledged_by_offset_and_read_back(link, worker):
    """Both outputs, a piece sent twice, a gap."""
    receipt, ref = one_running(link, worker)
    for chunk, settled in (
        (LogChunk(ref, STDOUT, 0, 1, b"one\n"), 4),
        (LogChunk(ref, STDERR, 0, 2, b"bad\n"), 4),
        (LogChunk(ref, STDOUT, 0, 3, b"one\n"), 4),
        (LogChunk(ref, STDOUT, 9, 4, b"far"), 4),
        (LogChunk(ref, STDOUT, 4, 5, b"two\n"), 8),
    ):
        worker.send(chunk)
        assert worker.next_of(LogAck) == LogAck(ref, chunk.stream, settled)
    assert text(link, run=receipt.run_id, job="A") == b"one\nbad\ntwo\n"
    assert text(link, run="@last", job="A", stream=LogStream.STDERR) == b"bad\n"
    assert text(link, run="test", job="A", tail_lines=1) == b"two\n"


def test_a_follower_gets_the_rest_and_the_end(master, link, worker):
    """Bytes that come behind the report of the end belong to it."""
    receipt, ref = one_running(link, worker)
    with master.link() as reader:
        stream = reader.stream(ReadLog(run=receipt.run_id, job="A", follow=True), timeout_s=10)
        worker.send(LogChunk(ref, STDOUT, 0, 1, b"first "))
        assert next(stream).data == b"first "
        report(worker, ended(ref, stdout_bytes=11))
        assert link.call(WaitRun(run=receipt.run_id), timeout_s=10).state is RunState.SUCCEEDED
        worker.send(LogChunk(ref, STDOUT, 6, 2, b"last!"))
        assert [piece.data for piece in stream] == [b"last!"]


def test_a_log_is_taken_after_the_end_and_after_a_restart(tmp_path):
    """History knows who held the attempt; the worker goes on where it was acknowledged."""
    with (
        RunningMaster(tmp_path) as running,
        running.link() as link,
        RawLink(running.address, role=Role.WORKER) as worker,
    ):
        worker.join()
        receipt, ref = one_running(link, worker)
        report(worker, ended(ref, stdout_bytes=6))
    with (
        RunningMaster(tmp_path) as running,
        running.link() as link,
        RawLink(running.address, role=Role.WORKER) as worker,
    ):
        worker.join()
        worker.next_of(Joined)
        worker.send(LogChunk(ref, STDOUT, 0, 1, b"abc"))
        worker.send(LogChunk(ref, STDOUT, 3, 1, b"def"))
        while worker.next_of(LogAck).offset < 6:
            pass
        assert text(link, run=receipt.run_id, job="A") == b"abcdef"


def test_a_log_of_somebody_elses_attempt_closes_the_link(master, link, worker):
    """Live or ended, known or made up: and nothing of it is stored."""
    receipt, ref = one_running(link, worker)
    for wrong in (ref, AttemptRef(ref.run_id, "A", 2), AttemptRef("z" * 16, "A", 1)):
        with RawLink(master.address, role=Role.WORKER) as thief:
            thief.join("w2", port=8081)
            thief.next_of(Joined)
            thief.send(LogChunk(wrong, STDOUT, 0, 1, b"lies"))
            assert thief.until_closed().code is ErrorCode.PROTOCOL
    assert text(link, run=receipt.run_id, job="A") == b""


def test_a_copy_by_datagram_reaches_a_follower_before_the_piece_itself(master, link, worker):
    """Which then is stored and not told again; the stats count it."""
    receipt, ref = one_running(link, worker)
    worker.send(LogChunk(ref, STDOUT, 0, 1, b"one\n"))
    with master.link() as reader, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect(tuple(master.address))
        wanted = ReadLog(run=receipt.run_id, job="A", follow=True, places=True)
        stream = reader.stream(wanted, timeout_s=10)
        assert next(stream).data == b"one\n"
        key, number = worker.connection.datagram_key, worker.welcome.link_id
        two = LogChunk(ref, STDOUT, 4, 2, b"two\n")
        odd = (
            b"",
            b"TUL1",
            b"x" * 2000,
            # Believed, either would be told in place of what is true.
            seal(bytes(32), number, LogChunk(ref, STDOUT, 4, 2, b"0wn\n")),
            seal(key, number + 1, LogChunk(ref, STDOUT, 4, 2, b"1wn\n")),
            seal(key, number, LogChunk(ref, STDOUT, 4, 2, b"2" * 1201)),
            seal(key, number, LogChunk(ref, 3, 4, 2, b"3")),
            seal(key, number, LogChunk(ref, STDOUT, -1, 2, b"4")),
            seal(key, number, LogChunk(AttemptRef(ref.run_id, "A", 2), STDOUT, 4, 2, b"5")),
            seal(key, number, LogChunk(AttemptRef("../" * 4, "..", 1), STDOUT, 4, 2, b"6")),
        )
        for datagram in (*odd, seal(key, number, two)):
            wire.send(datagram)
        assert next(stream) == LogPiece(1, STDOUT, 4, b"two\n", 4, 2, 0)
        assert link.call(GetTraffic(), timeout_s=10).log_datagrams == 1
        worker.send(two)
        worker.send(LogChunk(ref, STDOUT, 8, 3, b"three\n"))
        assert next(stream) == LogPiece(1, STDOUT, 14, b"three\n", 8, 1, 0)
        report(worker, ended(ref, stdout_bytes=14))
        assert [*stream] == []
    assert text(link, run=receipt.run_id, job="A") == b"one\ntwo\nthree\n"


def test_only_who_agreed_on_them_and_may_write_logs_sends_copies(master, link, worker):
    """A client knows its link's key as well, and a peer of before knows of none."""
    _, ref = one_running(link, worker)
    with (
        RawLink(master.address, role=Role.CLIENT) as client,
        RawLink(master.address, role=Role.WORKER, features=()) as old,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire,
    ):
        wire.connect(tuple(master.address))
        old.join("w2", port=8081)
        old.next_of(Joined)
        for peer in (client, old, worker):
            chunk = LogChunk(ref, STDOUT, 0, 1, b"x")
            wire.send(seal(peer.connection.datagram_key, peer.welcome.link_id, chunk))
        # What the master has read on a link it had read of a datagram that left before.
        while not (taken := link.call(GetTraffic(), timeout_s=10).log_datagrams):
            pass
        assert taken == 1


def test_where_the_port_is_taken_for_datagrams_nobody_is_asked_for_any(tmp_path, monkeypatch):
    """All else goes on as always."""

    def taken(_bound):
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(listener, "_bind_datagrams", taken)
    with (
        RunningMaster(tmp_path) as running,
        running.link() as link,
        RawLink(running.address, role=Role.WORKER) as worker,
    ):
        assert worker.connection.features == (LOG_GAPS,)
        worker.join()
        receipt, ref = one_running(link, worker)
        worker.send(LogChunk(ref, STDOUT, 0, 1, b"one\n"))
        worker.next_of(LogAck)
        assert text(link, run=receipt.run_id, job="A") == b"one\n"


def test_a_gap_is_told_and_not_waited_for(link, worker):
    """To who asks for places in numbers, to anybody else in a line."""
    receipt, ref = one_running(link, worker)
    worker.send(LogChunk(ref, STDOUT, 0, 1, b"begin\n"))
    worker.send(LogGap(ref, STDOUT, 1000, 1))
    worker.send(LogChunk(ref, STDOUT, 1000, 1, b"end\n"))
    while worker.next_of(LogAck).offset < 1004:
        pass
    assert text(link, run=receipt.run_id, job="A") == b"begin\n\n[titan] 994 bytes dropped\nend\n"
    pieces = link.stream(ReadLog(run=receipt.run_id, job="A", places=True), timeout_s=10)
    assert [(p.offset, p.data, p.dropped) for p in pieces] == [
        (0, b"begin\n", 0),
        (6, b"", 994),
        (1000, b"end\n", 0),
    ]


@pytest.mark.parametrize("chunk", [(3, 0, b"x"), (STDOUT, -1, b"x"), (STDOUT, 0, b"x" * 70_000)])
def test_a_piece_of_log_that_cannot_be_closes_the_link(link, worker, chunk):
    """No such stream, no such offset, too large."""
    _, ref = one_running(link, worker)
    stream, offset, data = chunk
    worker.send(LogChunk(ref, stream, offset, 1, data))
    assert worker.until_closed().code is ErrorCode.PROTOCOL


def test_the_log_of_an_earlier_attempt_can_be_read_while_the_run_goes_on(master, link):
    """By its number; the newest is what is meant without one."""
    with RawLink(master.address, role=Role.WORKER) as first:
        first.join()
        receipt, ref = one_running(link, first)
        first.send(LogChunk(ref, STDOUT, 0, 1, b"first try"))
        first.next_of(LogAck)
        report(first, AttemptReport(ref=ref, state=AttemptState.ENDED, reason=ExitReason.LOST))
        (order,) = first.next_of(StartAttempts).orders
        assert order.ref.number == 2
        report(first, AttemptReport(ref=order.ref, state=AttemptState.RUNNING))
        first.send(LogChunk(order.ref, STDOUT, 0, 1, b"second"))
        first.next_of(LogAck)
        assert text(link, run=receipt.run_id, job="A", attempt=1) == b"first try"
        assert text(link, run=receipt.run_id, job="A") == b"second"


def test_a_job_that_never_started_has_no_log(link, worker):
    """In history as in life, and the answer says why."""
    receipt = link.call(SubmitRun(key="k", spec=run(job("A"), job("B", "A"))), timeout_s=10)
    (order,) = worker.next_of(StartAttempts).orders
    report(worker, ended(order.ref, 1))
    link.call(WaitRun(run=receipt.run_id), timeout_s=10)
    with pytest.raises(NotFound, match="SKIPPED"):
        text(link, run=receipt.run_id, job="B")
    with pytest.raises(NotFound, match="no attempt 7"):
        text(link, run=receipt.run_id, job="A", attempt=7)
    with pytest.raises(NotFound, match="no job"):
        text(link, run=receipt.run_id, job="X")
    jobs = link.call(ListJobs(run=receipt.run_id), timeout_s=10).jobs
    assert [view.state for view in jobs] == [JobState.FAILED, JobState.SKIPPED]


def test_a_name_that_fits_several_runs_is_refused_with_them(link):
    """Nothing is guessed."""
    made = [link.call(SubmitRun(key=str(n), spec=run(job("A"))), timeout_s=10) for n in range(2)]
    with pytest.raises(Conflict) as caught:
        link.call(GetRun(run="test-run"), timeout_s=10)
    assert all(receipt.alias in str(caught.value) for receipt in made)


def test_a_full_inbox_holds_back_links_and_loses_nothing(tmp_path):
    """The link is not read until there is room; every question is answered all the same."""
    with (
        RunningMaster(tmp_path, inbox_max=2, turn_inputs_max=1) as running,
        RawLink(running.address, role=Role.VIEWER) as peer,
    ):
        asked = [peer.connection.open_exchange() for _ in range(200)]
        for correlation in asked:
            peer.connection.send(GetStats(), correlation, end=True)
        peer.flush()
        assert [peer.next().correlation for _ in asked] == asked


def test_a_disk_that_takes_no_logs_ends_the_link_not_the_master(master, link, worker):
    """The worker keeps its bytes and comes back with them."""
    receipt, ref = one_running(link, worker)
    (master.config.data / "logs").write_text("in the way")
    worker.send(LogChunk(ref, STDOUT, 0, 1, b"x"))
    assert worker.until_closed().code is ErrorCode.UNAVAILABLE
    assert link.call(GetRun(run=receipt.run_id), timeout_s=10).state is RunState.ACTIVE


def test_a_watcher_of_a_large_run_that_has_ended_gets_a_page_and_a_sum(link):
    """Not a hundred thousand lines."""
    spec = run(*(job(f"J{number}") for number in range(1_500)))
    receipt = link.call(SubmitRun(key="k", spec=spec), timeout_s=10)
    link.call(CancelRun(run=receipt.run_id), timeout_s=10)
    changes = list(link.stream(WatchRun(run=receipt.run_id), timeout_s=10))
    assert len(changes) == 1_000 + 1 + 1
    assert changes[-2].message == "500 more jobs are CANCELLED"
    assert changes[-1].run_state is RunState.CANCELLED
