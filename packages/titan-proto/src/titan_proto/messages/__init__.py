"""Every message, by block. ``REGISTRY`` maps opcodes to structs: the opcode is the tag."""

from __future__ import annotations

from typing import Final

from titan_proto.messages.artifacts import (
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    FetchArtifact,
    FilesFound,
    FindFiles,
    OfferArtifact,
)
from titan_proto.messages.base import HotMessage, Message, Request
from titan_proto.messages.cluster import GetStats, Stats, WorkerView
from titan_proto.messages.link import (
    Cancel,
    Challenge,
    Done,
    Error,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Proof,
    Refused,
    Role,
    Welcome,
)
from titan_proto.messages.logs import STDERR, STDOUT, LogAck, LogChunk, LogData, LogStream, ReadLog
from titan_proto.messages.runs import (
    CancelRun,
    GetJob,
    GetRun,
    JobChange,
    JobList,
    JobMilestone,
    JobView,
    ListJobs,
    ListRuns,
    RunList,
    RunReceipt,
    RunView,
    SubmitRun,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.messages.services import ListServices, ServiceList, ServiceView, StopService
from titan_proto.messages.worker import (
    AttemptOrder,
    AttemptReport,
    AttemptReports,
    HeldAttempt,
    Join,
    Joined,
    Leave,
    ReportAcks,
    StartAttempts,
    StopAttempts,
    WorkerStatus,
)
from titan_proto.opcodes import OpCode

AnyMessage = Message | HotMessage

REGISTRY: Final[dict[OpCode, type[AnyMessage]]] = {
    kind.OPCODE: kind
    for kind in (
        # link
        Hello,
        Challenge,
        Proof,
        Welcome,
        Refused,
        Ping,
        Pong,
        Goodbye,
        Error,
        Cancel,
        Done,
        # worker
        Join,
        Joined,
        WorkerStatus,
        StartAttempts,
        StopAttempts,
        AttemptReports,
        ReportAcks,
        Leave,
        # logs
        LogChunk,
        LogAck,
        ReadLog,
        LogData,
        # artifacts
        OfferArtifact,
        ArtifactWanted,
        ArtifactChunk,
        ArtifactStored,
        FetchArtifact,
        FindFiles,
        FilesFound,
        # runs
        SubmitRun,
        RunReceipt,
        CancelRun,
        GetRun,
        RunView,
        ListRuns,
        RunList,
        ListJobs,
        JobList,
        GetJob,
        JobView,
        WaitRun,
        WaitJob,
        WatchRun,
        JobChange,
        # services
        ListServices,
        ServiceList,
        StopService,
        ServiceView,
        # cluster
        GetStats,
        Stats,
    )
}

HOT: Final = frozenset({Ping, Pong, LogChunk, LogAck, LogData, ArtifactChunk})
"""The messages encoded as arrays; the list is closed."""

__all__ = [
    "HOT",
    "REGISTRY",
    "STDERR",
    "STDOUT",
    "AnyMessage",
    "ArtifactChunk",
    "ArtifactStored",
    "ArtifactWanted",
    "AttemptOrder",
    "AttemptReport",
    "AttemptReports",
    "Cancel",
    "CancelRun",
    "Challenge",
    "Done",
    "Error",
    "FetchArtifact",
    "FilesFound",
    "FindFiles",
    "GetJob",
    "GetRun",
    "GetStats",
    "Goodbye",
    "HeldAttempt",
    "Hello",
    "HotMessage",
    "JobChange",
    "JobList",
    "JobMilestone",
    "JobView",
    "Join",
    "Joined",
    "Leave",
    "ListJobs",
    "ListRuns",
    "ListServices",
    "LogAck",
    "LogChunk",
    "LogData",
    "LogStream",
    "Message",
    "OfferArtifact",
    "OpCode",
    "Ping",
    "Pong",
    "Proof",
    "ReadLog",
    "Refused",
    "ReportAcks",
    "Request",
    "Role",
    "RunList",
    "RunReceipt",
    "RunView",
    "ServiceList",
    "ServiceView",
    "StartAttempts",
    "Stats",
    "StopAttempts",
    "StopService",
    "SubmitRun",
    "WaitJob",
    "WaitRun",
    "WatchRun",
    "Welcome",
    "WorkerStatus",
    "WorkerView",
]
