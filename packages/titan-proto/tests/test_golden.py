"""The bytes of version 1, for every message, written down once.

Each file in ``golden/v1`` is a whole frame. It was made when its message was new and is compared
with the literal here in both directions. Nothing in a test run writes these files, and nobody edits
them: if a test here fails, the wire has changed, and peers in the field would not understand it.
"""

from __future__ import annotations

import collections
import pathlib

import msgspec
import pytest

from titan_proto.codec import decode, encode
from titan_proto.errors import ErrorCode, Problem
from titan_proto.frame import END, pack, unpack
from titan_proto.ids import AttemptRef
from titan_proto.limits import FRAME_PAYLOAD_BYTES
from titan_proto.messages import (
    REGISTRY,
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    AttemptList,
    AttemptOrder,
    AttemptReport,
    AttemptReports,
    AttemptUsage,
    AttemptView,
    Cancel,
    CancelRun,
    Cause,
    CauseKind,
    Challenge,
    CordonWorker,
    DecideGate,
    Done,
    Error,
    ExplainJob,
    Explanation,
    FetchArtifact,
    FileList,
    FileOrigin,
    FilesFound,
    FileVersion,
    FileView,
    FindFiles,
    Fired,
    GateList,
    GateView,
    GetJob,
    GetRun,
    GetScaling,
    GetSchedule,
    GetStats,
    GetTraffic,
    GetUsage,
    Goodbye,
    HeartbeatAck,
    HeldAttempt,
    Hello,
    IssueTicket,
    JobChange,
    JobList,
    JobMilestone,
    JobView,
    Join,
    Joined,
    Kin,
    LastFired,
    Leave,
    ListAttempts,
    ListDead,
    ListFiles,
    ListGates,
    ListJobs,
    ListRuns,
    ListSchedules,
    ListServices,
    ListWorkers,
    LogAck,
    LogChunk,
    LogData,
    LogGap,
    LogPiece,
    LogStream,
    NameFile,
    OfferArtifact,
    PauseSchedule,
    Ping,
    Pong,
    Proof,
    PutSchedule,
    ReadLog,
    RedeemTicket,
    Refused,
    RemoveSchedule,
    ReportAcks,
    RerunRun,
    RestartService,
    Role,
    Room,
    RunList,
    RunReceipt,
    RunView,
    SampleUsage,
    ScaleService,
    Scaling,
    ScalingChange,
    ScheduleList,
    ScheduleView,
    ServiceList,
    ServiceView,
    ShutDown,
    ShutdownOrdered,
    ShutDownWorker,
    SiblingView,
    SpawnOrdered,
    SpawnReport,
    SpawnReports,
    SpawnSibling,
    SpawnVerdicts,
    SpawnView,
    SpawnWorker,
    StartAttempts,
    Stats,
    StopAttempts,
    StopJob,
    StopService,
    SubmitRun,
    TicketIssued,
    TicketRedeemed,
    Traffic,
    TriggerSchedule,
    Usage,
    UsagePoint,
    UsageView,
    WaitJob,
    WaitRun,
    WatchRun,
    Welcome,
    WorkerDetail,
    WorkerList,
    WorkerReason,
    WorkerStatus,
    WorkerUsage,
    WorkerUsageView,
    WorkerView,
)
from titan_proto.messages.worker import Layer, Left
from titan_proto.opcodes import HANDSHAKE
from titan_proto.specs import (
    ArtifactFormat,
    ArtifactRef,
    Artifacts,
    Catchup,
    Counted,
    GateExpiry,
    GateSection,
    HealthCheck,
    HealthKind,
    Intake,
    JobKind,
    JobSpec,
    Launch,
    LaunchKind,
    Needs,
    Overlap,
    Resources,
    RetryCause,
    RetryPolicy,
    RunSpec,
    ScheduleSpec,
    ServiceSection,
    Shape,
    Share,
    Terms,
    Trigger,
)
from titan_proto.states import (
    AttemptState,
    ExitReason,
    JobState,
    RunState,
    ScalingKind,
    ServiceState,
    WorkerState,
)

FOLDER = pathlib.Path(__file__).parent / "golden" / "v1"
CORRELATION = 0x0102_0305

RUN = "01jd8m4x7zq2k9vb"
DIGEST = "0123456789abcdef" * 4
AT_MS = 1_795_478_400_123
REF = AttemptRef(RUN, "TRANSFORM", 2)
WORKSPACE = ArtifactRef(digest=DIGEST, size_bytes=70_000)
FILE = ArtifactRef(
    digest="f" * 64, size_bytes=5_000_000_000, format=ArtifactFormat.FILE, name="lib/helper.py"
)
TASK = JobSpec(
    id="TRANSFORM",
    launch=Launch(
        script="scripts/transform.py",
        args=("--month", "Jänner"),
        env={"LEVEL": "2"},
        artifact=FILE,
    ),
    dependencies=("EXTRACT", "CLEAN"),
    needs=Needs(skills=("GPU", "GENERAL")),
    priority=9,
    delay_ms=1_500,
    affinity=True,
    stop_grace_ms=3_000,
)
NIGHTLY = ScheduleSpec(
    crons=("30 2 * * *", "@every 90m"),
    zone="America/New_York",
    overlap=Overlap.REPLACE,
    catchup=Catchup.LATEST,
    catchup_window_ms=3_600_000,
    jitter_ms=30_000,
    start_ms=1_764_000_000_000,
    end_ms=1_864_000_000_000,
    pause_on_failure=True,
)
SERVICE = JobSpec(
    id="DEPLOY_API",
    kind=JobKind.SERVICE,
    launch=Launch(kind=LaunchKind.SHELL, shell="exec python3 api.py"),
    service=ServiceSection(port=8080),
)
GATEWAY = JobSpec(
    id="GATEWAY",
    kind=JobKind.SERVICE,
    launch=Launch(kind=LaunchKind.COMMAND, command=("/bin/gateway", "-v")),
    service=ServiceSection(port_auto=True),
)
RETRIED = JobSpec(
    id="PUBLISH",
    launch=Launch(script="publish.sh"),
    retries=RetryPolicy(
        limit=3,
        delay_ms=2_000,
        backoff_percent=150,
        max_delay_ms=30_000,
        jitter=False,
        causes=(RetryCause.SIGNAL, RetryCause.TIMEOUT),
        not_exit_codes=(2, 64),
    ),
    timeout_ms=600_000,
    job_timeout_ms=3_600_000,
    exclusive=True,
)
REVIEW = JobSpec(
    id="REVIEW",
    kind=JobKind.GATE,
    launch=Launch(),
    dependencies=("PUBLISH",),
    gate=GateSection(message="Rows look right?", timeout_ms=60_000, on_timeout=GateExpiry.FAIL),
)
HELD = JobSpec(
    id="HELD",
    launch=Launch(
        script="held.py",
        resources=Resources(cpu_milli=500, memory_bytes=536_870_912, pids=100),
    ),
)
TYPED = JobSpec(id="TYPED", launch=Launch(script="typed.py", python="3.12"))
SHARING = JobSpec(
    id="SHARING",
    launch=Launch(
        script="sharing.py",
        share=Share.NODE,
        artifacts=Artifacts(
            out=("clean/**",), take=(Intake(job="EXTRACT", files="data/*.parquet"),)
        ),
    ),
)
LEFT = Left(digest=DIGEST, size_bytes=4_096, shared=2, artifacts=1)
RUN_VIEW = RunView(
    run_id=RUN,
    alias="nightly-7",
    name="Nightly",
    state=RunState.FAILED,
    submitted_at_ms=AT_MS,
    ended_at_ms=AT_MS + 5,
    jobs=3,
    counts={"FAILED": 1, "SUCCEEDED": 2},
)
JOB_VIEW = JobView(
    run_id=RUN,
    run_alias="nightly-7",
    job_id="TRANSFORM",
    kind=JobKind.SERVICE,
    state=JobState.RUNNING,
    attempt=2,
    attempt_state=AttemptState.STOPPING,
    worker="box:8080",
    reason=ExitReason.SIGNALLED,
    exit_code=3,
    signal=9,
    message="killed",
    ready_at_ms=AT_MS,
    placed_at_ms=AT_MS + 1,
    started_at_ms=AT_MS + 2,
    ended_at_ms=AT_MS + 3,
    lost=1,
    port=8081,
    dependencies=("EXTRACT",),
    waits_for=("CLEAN",),
    stdout_bytes=100,
    stderr_bytes=200,
)
SERVICE_VIEW = ServiceView(
    name="Nightly/DEPLOY_API",
    run_id=RUN,
    run_alias="nightly-7",
    job_id="DEPLOY_API",
    attempt=1,
    state=ServiceState.HEALTHY,
    worker="box:8080",
    port=8080,
    healthy_at_ms=AT_MS,
    ended_at_ms=AT_MS + 9,
    reason=ExitReason.STOPPED,
)

FILE_VIEW = FileView(
    name="scripts/größe.sh",
    current=FileVersion(digest=DIGEST, size_bytes=70_000, at_ms=AT_MS, origin=FileOrigin.STAGED),
    versions=(
        FileVersion(digest=DIGEST, size_bytes=1, at_ms=AT_MS - 1, origin=FileOrigin.DROPPED),
        FileVersion(digest=DIGEST, size_bytes=2, at_ms=AT_MS - 2, origin=FileOrigin.UPLOADED),
    ),
    notices=("it was replaced",),
)
GATE_VIEW = GateView(
    run_id=RUN,
    run_alias="nightly-7",
    job_id="REVIEW",
    state=JobState.WAITING,
    message="Rows look right?",
    opened_at_ms=AT_MS,
    expires_at_ms=AT_MS + 60_000,
    decided_at_ms=AT_MS + 7,
    decided_by="k7",
    reason=ExitReason.APPROVED,
    comment="they do",
)

# Every field differs from its default in one of them, so that none can be left out unseen.
USAGE = Usage(
    cpu_permille=437,
    load_milli=1_280,
    memory_used_bytes=3_000_000_000,
    memory_total_bytes=8_000_000_000,
    disk_used_bytes=40_000_000_000,
    disk_total_bytes=100_000_000_000,
    received_bytes_per_s=120_000,
    sent_bytes_per_s=7_000,
    attempts=(AttemptUsage(ref=REF, cpu_milli=1_750, memory_bytes=220_000_000, processes=3),),
)
MESSAGES = (
    Hello(
        versions=(1, 2),
        role=Role.WORKER,
        software="titan-worker 0.2.0",
        token_id="k7",
        client_nonce=bytes(range(32)),
        features=("log-zstd",),
        last_term=12,
    ),
    Challenge(server_nonce=bytes(range(32, 64)), proof=b"\xaa" * 32),
    Proof(proof=b"\x55" * 32),
    Welcome(
        version=1,
        cluster_id="c0ffee",
        software="titan-master 0.2.0",
        term=13,
        link_id=99,
        features=("log-zstd",),
        cluster_name="home",
        limits={"JOBS_PER_RUN": 100_000},
    ),
    Refused(code=ErrorCode.UNAUTHENTICATED, reason="unknown token", supported=(1,)),
    Ping(AT_MS),
    Pong(AT_MS),
    Goodbye(code=ErrorCode.SHUTTING_DOWN, reason="the master stops"),
    Error(
        code=ErrorCode.INVALID_SPEC,
        message="2 problems",
        details={"limit": "JOBS_PER_RUN"},
        problems=(
            Problem(where="jobs[3].id", message="bad id", hint="letters", code="Y202"),
            Problem(where="name", message="no name"),
        ),
    ),
    Cancel(),
    Done(),
    Join(
        worker_id="w-1",
        host="box",
        port=8080,
        incarnation=4,
        boot_id="b00t",
        software="titan-worker 0.2.0",
        slots=4,
        skills=("GENERAL", "GPU"),
        held=(
            HeldAttempt(ref=REF, state=AttemptState.RUNNING),
            HeldAttempt(ref=AttemptRef(RUN, "EXTRACT", 1), state=AttemptState.ENDED),
        ),
        pid=4_194_304,
    ),
    Joined(term=13, heartbeat_ms=5_000, lost_after_ms=30_000, stop=(REF,), forget=(REF, REF)),
    Joined(term=14, heartbeat_ms=5_000, lost_after_ms=30_000, moves_services=True),
    WorkerStatus(running=3, cpu_permille=875, memory_used_bytes=2**34, memory_total_bytes=2**36),
    StartAttempts(
        term=13,
        orders=(
            AttemptOrder(ref=REF, fence=70_000, spec=TASK, run_name="Nightly", workspace=WORKSPACE),
            AttemptOrder(ref=REF, fence=70_001, spec=GATEWAY, run_name="Nightly"),
        ),
    ),
    StopAttempts(term=13, refs=(REF,), reason=ExitReason.CANCELLED),
    AttemptReports(
        reports=(
            AttemptReport(
                ref=REF,
                state=AttemptState.ENDED,
                started_at_ms=AT_MS,
                ended_at_ms=AT_MS + 4,
                healthy=True,
                port=8080,
                reason=ExitReason.START_FAILED,
                exit_code=127,
                signal=15,
                message="no such file",
                stdout_bytes=1,
                stderr_bytes=2,
            ),
            AttemptReport(ref=REF, state=AttemptState.RUNNING),
        )
    ),
    ReportAcks(refs=(REF, AttemptRef(RUN, "B", 1))),
    Leave(),
    LogChunk(REF, 1, 65_536, AT_MS, b"line\n\x00\xff"),
    LogAck(REF, 2, 70_000),
    ReadLog(
        run="nightly-7",
        job="TRANSFORM",
        attempt=2,
        stream=LogStream.STDERR,
        follow=True,
        position=10,
        tail_lines=100,
    ),
    LogData(2, 1, 2**40, b"\x1b[31mred\n"),
    OfferArtifact(digest=DIGEST, size_bytes=70_000),
    ArtifactWanted(offset=4_096),
    ArtifactChunk(4_096, b"PK\x03\x04"),
    ArtifactStored(digest=DIGEST),
    FetchArtifact(digest=DIGEST, offset=4_096),
    FindFiles(names=("hello.py", "scripts/größe.sh")),
    FilesFound(files=(FILE, WORKSPACE)),
    SubmitRun(
        key="key-1",
        spec=RunSpec(name="Nightly", jobs=(TASK, SERVICE, GATEWAY), workspace=WORKSPACE),
        spec_digest=DIGEST,
    ),
    RunReceipt(run_id=RUN, alias="nightly-7", known=True),
    CancelRun(run="nightly-7"),
    GetRun(run="@last"),
    RUN_VIEW,
    ListRuns(ended=True, cursor="c2", limit=50),
    RunList(runs=(RUN_VIEW,), cursor="c3"),
    ListJobs(run="nightly-7", cursor="c2", limit=50),
    JobList(jobs=(JOB_VIEW,), cursor="c3"),
    GetJob(job="TRANSFORM", run="nightly-7"),
    JOB_VIEW,
    WaitRun(run="nightly-7"),
    WaitJob(run="nightly-7", job="TRANSFORM", until=JobMilestone.STARTED),
    WatchRun(run="nightly-7"),
    JobChange(
        run_id=RUN,
        at_ms=AT_MS,
        job_id="TRANSFORM",
        state=JobState.CANCELLED,
        attempt=2,
        worker="box:8080",
        reason=ExitReason.EXITED,
        exit_code=3,
        signal=9,
        message="m",
        port=8080,
        run_state=RunState.CANCELLED,
    ),
    ListServices(),
    ServiceList(services=(SERVICE_VIEW,)),
    StopService(service="Nightly/DEPLOY_API"),
    SERVICE_VIEW,
    GetStats(),
    Stats(
        cluster_id="c0ffee",
        cluster_name="home",
        term=13,
        at_ms=AT_MS,
        started_at_ms=AT_MS - 5,
        workers=(
            WorkerView(
                worker_id="w-1",
                host="box",
                port=8080,
                state=WorkerState.SILENT,
                slots=4,
                used=3,
                skills=("GENERAL",),
                incarnation=4,
                seen_ms_ago=120,
                cpu_permille=875,
                memory_used_bytes=2**34,
                memory_total_bytes=2**36,
                software="titan-worker 0.2.0",
                services=("Nightly/DEPLOY_API",),
            ),
        ),
        runs_active=1,
        queued=2,
        blocked=3,
        delayed=4,
        running=5,
        services=6,
        software="titan-master 0.2.0",
    ),
    # Later: new messages, and further literals of old ones that have gained a field.
    HeartbeatAck(beat=70_000),
    RerunRun(key="key-2", run="nightly-7", failed=True, from_job="TRANSFORM"),
    ListGates(cursor="c2", limit=50),
    GateList(gates=(GATE_VIEW,), cursor="c3"),
    DecideGate(gate="nightly-7/REVIEW", approve=True, comment="they do"),
    GATE_VIEW,
    ListDead(cursor="c2", limit=50),
    WorkerStatus(running=3, beat=70_000),
    msgspec.structs.replace(RUN_VIEW, rerun_of="nightly-6"),
    msgspec.structs.replace(JOB_VIEW, failures=2, retries=5),
    Stats(
        cluster_id="c0ffee",
        cluster_name="home",
        term=13,
        at_ms=AT_MS,
        started_at_ms=AT_MS - 5,
        workers=(),
        runs_active=1,
        queued=2,
        blocked=3,
        delayed=4,
        running=5,
        services=6,
        waiting=7,
        backoff=8,
    ),
    SubmitRun(key="key-3", spec=RunSpec(name="Gated", jobs=(RETRIED, REVIEW))),
    SubmitRun(
        key="key-4",
        spec=RunSpec(
            name="Once",
            jobs=(
                JobSpec(
                    id="PAY",
                    launch=Launch(script="pay.py"),
                    exclusive=True,
                    retries=RetryPolicy(after_loss=False),
                ),
            ),
        ),
    ),
    StartAttempts(
        term=14,
        orders=(
            AttemptOrder(ref=REF, fence=70_002, spec=RETRIED, run_name="Gated", takes_over=RUN),
        ),
    ),
    JobView(
        run_id=RUN,
        run_alias="nightly-7",
        job_id="REVIEW",
        kind=JobKind.GATE,
        state=JobState.SUCCEEDED,
        reason=ExitReason.APPROVED,
        message="approved by 5f3a: fine",
        gate=GATE_VIEW,
    ),
    Join(
        worker_id="w-1",
        host="box",
        port=8080,
        incarnation=4,
        boot_id="boot-2",
        software="titan-worker 0.2.0",
        slots=4,
        skills=("GENERAL",),
        leaving=True,
    ),
    WorkerStatus(running=1, beat=70_001, leaving=True),
    Stats(
        cluster_id="c0ffee",
        cluster_name="home",
        term=13,
        at_ms=AT_MS,
        started_at_ms=AT_MS - 5,
        workers=(
            WorkerView(
                worker_id="w-1",
                host="box",
                port=8080,
                state=WorkerState.DRAINING,
                slots=4,
                used=1,
                skills=("GENERAL",),
                link_down_ms=3_000,
            ),
        ),
        runs_active=0,
        queued=0,
        blocked=0,
        delayed=0,
        running=1,
        services=0,
    ),
    ListServices(ended=True, limit=50, run=RUN),
    ServiceView(
        name="Nightly/DEPLOY_API",
        run_id=RUN,
        run_alias="nightly-7",
        job_id="DEPLOY_API",
        attempt=2,
        state=ServiceState.FAILED,
        ended_at_ms=AT_MS,
        reason=ExitReason.EXITED,
        exit_code=3,
        signal=9,
        message="gone",
    ),
    ServiceView(
        name="Nightly/DEPLOY_API",
        run_id=RUN,
        run_alias="nightly-7",
        job_id="DEPLOY_API",
        attempt=2,
        state=ServiceState.UNHEALTHY,
        restarts=3,
    ),
    AttemptReports(
        reports=(
            AttemptReport(
                ref=AttemptRef(RUN, "DEPLOY_API", 2),
                state=AttemptState.RUNNING,
                healthy=True,
                restarts=3,
            ),
        ),
    ),
    SubmitRun(key="key-5", spec=RunSpec(name="Typed", jobs=(TYPED,))),
    StartAttempts(
        term=15, orders=(AttemptOrder(ref=REF, fence=70_003, spec=TYPED, run_name="Typed"),)
    ),
    AttemptReports(
        reports=(
            AttemptReport(
                ref=REF, state=AttemptState.ENDED, reason=ExitReason.EXITED, outputs={"rows": "12"}
            ),
        ),
    ),
    JobView(
        run_id=RUN,
        run_alias="nightly-7",
        job_id="EXTRACT",
        kind=JobKind.TASK,
        state=JobState.SUCCEEDED,
        reason=ExitReason.EXITED,
        outputs={"rows": "12", "day": "måndag"},
    ),
    ListFiles(name="scripts/größe.sh", cursor="c2", limit=50),
    FileList(files=(FILE_VIEW,), cursor="c3", is_cut=True),
    NameFile(name="scripts/größe.sh", digest=DIGEST, key="key-5"),
    FILE_VIEW,
    GetTraffic(),
    Traffic(links=3, log_datagrams=12_345),
    LogGap(REF, 2, 2**33, AT_MS),
    LogPiece(2, 1, 2**40, b"", 2**33, AT_MS, 4_096),
    ReadLog(run="nightly-7", job="TRANSFORM", since_ms=AT_MS, places=True),
    FetchArtifact(digest=DIGEST, offset=4_096, name="hello.py"),
    RunReceipt(run_id=RUN, alias="nightly-8", notices=("hello.py: was replaced",)),
    Join(
        worker_id="w-1",
        host="box",
        port=8080,
        incarnation=5,
        boot_id="boot-2",
        software="titan-worker 0.2.0",
        slots=4,
        skills=("GENERAL",),
        takes_shutdown=True,
    ),
    ShutDown(term=14, drain_ms=5_000),
    ShutDownWorker(worker="box:8080", drain_ms=600_000),
    ShutdownOrdered(
        worker=WorkerView(
            worker_id="w-1",
            host="box",
            port=8080,
            state=WorkerState.DRAINING,
            slots=4,
            used=1,
            skills=("GENERAL",),
        ),
    ),
    ScaleService(service="Shop/api", replicas=3),
    RestartService(service="Shop/api"),
    StopJob(run="nightly-7", job="EXTRACT"),
    StartAttempts(
        term=15,
        orders=(
            AttemptOrder(
                ref=REF,
                fence=70_004,
                spec=JobSpec(
                    id="API",
                    launch=Launch(script="api.py"),
                    kind=JobKind.SERVICE,
                    needs=Needs(slots=0),
                    service=ServiceSection(
                        port=8080,
                        health=HealthCheck(
                            kind=HealthKind.HTTP, path="/health", retries=5, start_period_ms=1_000
                        ),
                        replicas=2,
                    ),
                ),
                run_name="Shop",
            ),
        ),
    ),
    SubmitRun(key="key-9", spec=RunSpec(name="Held", jobs=(HELD,))),
    StartAttempts(
        term=16, orders=(AttemptOrder(ref=REF, fence=70_009, spec=HELD, run_name="Held"),)
    ),
    AttemptReports(
        reports=(
            AttemptReport(
                ref=REF,
                state=AttemptState.ENDED,
                reason=ExitReason.OOM_KILLED,
                signal=9,
                message="its limit is 64 MiB (resources.memory)",
            ),
        )
    ),
    WorkerUsage(usage=USAGE, limits="cgroups v2 (asked): cpu, memory, pids"),
    SampleUsage(every_ms=2_000, for_ms=10_000),
    GetUsage(history_of="w-1"),
    UsageView(
        at_ms=AT_MS,
        workers=(
            WorkerUsageView(
                worker_id="w-1", name="box:8080", at_ms=AT_MS, usage=USAGE, limits="rlimits"
            ),
        ),
        history=(UsagePoint(at_ms=AT_MS, usage=USAGE),),
    ),
    Join(
        worker_id="w-1",
        host="box",
        port=8080,
        incarnation=6,
        boot_id="boot-2",
        software="titan-worker 0.2.0",
        slots=4,
        skills=("GENERAL",),
        workspace="f0lder",
    ),
    SubmitRun(key="key-6", spec=RunSpec(name="Sharing", jobs=(SHARING,))),
    StartAttempts(
        term=16,
        orders=(
            AttemptOrder(
                ref=REF,
                fence=70_004,
                spec=SHARING,
                run_name="Sharing",
                publishes=True,
                layers=(Layer(index=3, left=LEFT),),
                intake={"EXTRACT": LEFT},
            ),
        ),
    ),
    AttemptReports(
        reports=(
            AttemptReport(ref=REF, state=AttemptState.ENDED, reason=ExitReason.EXITED, left=LEFT),
        ),
    ),
    AttemptReports(
        reports=(
            AttemptReport(
                ref=REF,
                state=AttemptState.ENDED,
                reason=ExitReason.EXITED,
                left=Left(digest="", size_bytes=0, kept=True),
            ),
        ),
    ),
    JobView(
        run_id=RUN,
        run_alias="nightly-7",
        job_id="SORT",
        kind=JobKind.TASK,
        state=JobState.RUNNING,
        resources=Resources(cpu_milli=500, memory_bytes=2**29, pids=100),
    ),
    Join(
        worker_id="w-1",
        host="box",
        port=8080,
        incarnation=6,
        boot_id="boot-2",
        software="titan-worker 0.2.0",
        slots=4,
        skills=("GENERAL",),
        resources={"cpu": 8_000, "memory": 2**36, "gpu": 2},
    ),
    SubmitRun(
        key="key-7",
        spec=RunSpec(
            name="Counted",
            jobs=(
                JobSpec(
                    id="TRAIN",
                    launch=Launch(script="train.py"),
                    needs=Needs(terms=Terms(counted=(Counted(name="gpu", amount=1),))),
                ),
            ),
        ),
    ),
    Join(
        worker_id="w-1",
        host="box",
        port=8080,
        incarnation=7,
        boot_id="boot-2",
        software="titan-worker 0.2.0",
        slots=4,
        skills=("GENERAL",),
        network="boot-2 net:[4026531840]",
    ),
    SubmitRun(
        key="key-8",
        spec=RunSpec(
            name="Placed",
            jobs=(
                JobSpec(
                    id="EVALUATE",
                    launch=Launch(script="evaluate.py"),
                    dependencies=("TRAIN",),
                    needs=Needs(
                        terms=Terms(
                            worker="box:8080",
                            near="TRAIN",
                            required=True,
                            spread=True,
                            group="db",
                            limit=2,
                            run_group="nightly",
                            run_limit=1,
                        )
                    ),
                ),
            ),
        ),
        parent=REF,
    ),
    PutSchedule(name="Nightly", spec=NIGHTLY, run=RunSpec(name="Nightly", jobs=(TASK,))),
    ScheduleView(
        name="Nightly",
        schedule_id=RUN,
        version=3,
        spec=NIGHTLY,
        words="At 02:30 every day",
        jobs=4,
        owner="ann",
        created_at_ms=AT_MS,
        put_at_ms=AT_MS + 1,
        paused_at_ms=AT_MS + 2,
        paused_by="bob",
        paused_why="the data is wrong",
        next_at_ms=(AT_MS + 10, AT_MS + 20),
        live=("nightly-7",),
        waiting=(AT_MS + 5,),
        last=LastFired(
            run_id=RUN,
            alias="nightly-7",
            slot_at_ms=AT_MS + 3,
            at_ms=AT_MS + 4,
            state=RunState.FAILED,
            triggered=True,
        ),
        fired=7,
        skipped=2,
        missed=1,
        known=True,
    ),
    ListSchedules(cursor="Nightly", limit=5),
    ScheduleList(
        schedules=(
            ScheduleView(
                name="hourly",
                schedule_id=RUN,
                version=1,
                spec=ScheduleSpec(crons=("@hourly",)),
            ),
        ),
        cursor="hourly",
    ),
    GetSchedule(schedule="Nightly"),
    PauseSchedule(schedule="Nightly", resume=True, why="it is well again"),
    TriggerSchedule(key="key-9", schedule="Nightly"),
    RemoveSchedule(schedule="Nightly"),
    RunView(
        run_id=RUN,
        alias="nightly-7",
        name="Nightly",
        state=RunState.ACTIVE,
        submitted_at_ms=AT_MS,
        fired=Fired(
            schedule="Nightly", schedule_id=RUN, version=3, slot_at_ms=AT_MS - 9, triggered=True
        ),
    ),
    StartAttempts(
        term=17,
        orders=(
            AttemptOrder(
                ref=REF, fence=70_005, spec=TASK, run_name="Nightly", scheduled_for_ms=AT_MS
            ),
        ),
    ),
    SubmitRun(
        key="key-10",
        spec=RunSpec(
            name="Later", jobs=(JobSpec(id="A", launch=Launch(script="a.py", at_ms=AT_MS)),)
        ),
    ),
    SubmitRun(
        key="k",
        spec=RunSpec(
            name="Shaped",
            jobs=(
                JobSpec(id="A", launch=Launch(shell="a", kind=LaunchKind.SHELL)),
                JobSpec(
                    id="B", launch=Launch(shell="b", kind=LaunchKind.SHELL), dependencies=("A",)
                ),
            ),
            shapes={"B": Shape(trigger=Trigger.ALL_DONE, when="jobs.A.state == 'FAILED'")},
        ),
    ),
    JobView(
        run_id="r",
        run_alias="shaped-1",
        job_id="B",
        kind=JobKind.TASK,
        state=JobState.SKIPPED,
        reason=ExitReason.WHEN_FALSE,
        shape=Shape(trigger=Trigger.ALL_DONE, when="jobs.A.state == 'FAILED'"),
    ),
    ExplainJob(job="TRAIN", run="nightly-7"),
    Explanation(
        run_id=RUN,
        run_alias="nightly-7",
        job_id="TRAIN",
        state=JobState.QUEUED,
        causes=(
            Cause(
                kind=CauseKind.RESOURCES,
                message="waits for 1 gpu: at most 0 are left on any of 1 worker(s)",
                since_ms=AT_MS,
                until_ms=AT_MS + 1,
                jobs=("nightly-6/TRAIN",),
                workers=(
                    WorkerReason(
                        worker="box:8080",
                        kind=CauseKind.RESOURCES,
                        message="0 of 2 gpu are free, 1 needed",
                        resource="gpu",
                        wanted=1,
                        free=0,
                        total=2,
                    ),
                ),
                position=3,
                queued=7,
                group="db",
                limit=2,
                taken=2,
            ),
        ),
        expected_at_ms=AT_MS + 2,
        at_ms=AT_MS,
    ),
    CordonWorker(worker="box:8080", cordoned=False, drain=True),
    ListWorkers(worker="8080"),
    WorkerList(
        workers=(
            WorkerDetail(
                worker=WorkerView(
                    worker_id="w-1",
                    host="box",
                    port=8080,
                    state=WorkerState.ONLINE,
                    slots=4,
                    used=1,
                    skills=("GENERAL",),
                ),
                resources={"gpu": Room(total=2, taken=1)},
                cordoned=True,
                attempts=2,
            ),
        )
    ),
    SpawnSibling(
        term=17,
        number=70_005,
        proof="5ec2e7",
        port=8081,
        slots=4,
        skills=("GENERAL", "GPU"),
        exact=True,
        join_within_ms=60_000,
    ),
    SpawnReports(reports=(SpawnReport(number=70_005, ended=True, message="it ended with 75"),)),
    SpawnVerdicts(term=17, settled=(70_005,), given_up=(70_006, 70_007)),
    SpawnWorker(port=8085, parent="8080", slots=2, skills=("GENERAL",)),
    SpawnOrdered(number=70_008, parent="box:8080", port=8085),
    GetScaling(),
    Scaling(
        on=True,
        every_ms=15_000,
        idle_ms=45_000,
        per_host=4,
        total=64,
        slots_per_core=4,
        siblings=(
            SiblingView(
                worker_id="w-2",
                worker="box:8081",
                number=70_005,
                parent_id="w-1",
                parent="box:8080",
                by_hand=True,
                cause="asked for by hand",
                dismissed=True,
            ),
        ),
        asked=(
            SpawnView(
                number=70_008,
                parent="box:8080",
                port=8085,
                asked_at_ms=AT_MS,
                by_hand=True,
                cause="asked for by hand",
            ),
        ),
        recent=(
            ScalingChange(
                at_ms=AT_MS,
                number=70_005,
                kind=ScalingKind.JOINED,
                parent="box:8080",
                worker="box:8081",
                cause="12 jobs wait",
            ),
        ),
    ),
    Kin(cores=2, number=70_005, proof="5ec2e7", spawned=(SpawnReport(number=70_006),)),
    ListAttempts(run=RUN, job="SORT"),
    AttemptList(
        job=JobView(
            run_id=RUN,
            run_alias="nightly-7",
            job_id="SORT",
            kind=JobKind.TASK,
            state=JobState.RUNNING,
            attempt=2,
        ),
        attempts=(
            AttemptView(
                number=1,
                state=AttemptState.ENDED,
                worker="node-1:8080",
                reason=ExitReason.SIGNALLED,
                exit_code=1,
                signal=9,
                message="why",
                placed_at_ms=1_764_000_000_000,
                started_at_ms=1_764_000_000_010,
                ended_at_ms=1_764_000_000_500,
                stdout_bytes=12,
                stderr_bytes=13,
            ),
            AttemptView(number=2, state=AttemptState.RUNNING),
        ),
        spec=SHARING,
    ),
    WorkerStatus(running=1, beat=70_002, leaving=True, at_once=True),
    IssueTicket(),
    TicketIssued(ticket="5f0b2c", good_for_ms=600_000),
    RedeemTicket(ticket="5f0b2c"),
    TicketRedeemed(role="admin", name="local"),
)


def _names():
    """A message's name, and a number where a type has further literals."""
    seen = collections.Counter()
    for message in MESSAGES:
        kind = type(message).__name__
        seen[kind] += 1
        yield kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"


NAMES = dict(zip(map(id, MESSAGES), _names(), strict=True))


def name_of(message):
    return NAMES[id(message)]


def frame_of(message):
    """Its whole frame, as it is in its file."""
    shakes_hands = message.OPCODE in HANDSHAKE
    flags, correlation = (0, 0) if shakes_hands else (END, CORRELATION)
    return pack(1, message.OPCODE, flags, correlation, encode(message))


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_it_is_written_as_it_ever_was(message):
    assert frame_of(message) == (FOLDER / f"{name_of(message)}.bin").read_bytes()


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_it_is_read_as_it_ever_was(message):
    data = bytearray((FOLDER / f"{name_of(message)}.bin").read_bytes())

    found = unpack(data, 0, FRAME_PAYLOAD_BYTES)

    assert found is not None
    frame, end = found
    assert end == len(data)
    assert decode(frame.opcode, frame.body) == message


def test_every_message_has_its_bytes():
    """And every file its message: a retired message keeps its file, and its literal."""
    assert {type(message) for message in MESSAGES} == set(REGISTRY.values())
    assert {path.name for path in FOLDER.iterdir()} == {f"{name_of(m)}.bin" for m in MESSAGES}


@pytest.mark.parametrize("kind", list(REGISTRY.values()), ids=lambda kind: kind.__name__)
def test_no_field_hides_behind_its_default(kind):
    """With `omit_defaults`, a field at its default would leave no trace in the bytes."""
    literals = [message for message in MESSAGES if type(message) is kind]
    for field in msgspec.structs.fields(kind):
        values = [getattr(message, field.name) for message in literals]
        if field.default is not msgspec.NODEFAULT:
            assert any(value != field.default for value in values), field.name
        elif field.default_factory is not msgspec.NODEFAULT:
            assert any(value != field.default_factory() for value in values), field.name
