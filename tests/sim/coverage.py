"""What the seeds have exercised, and what they must.

A campaign is worth as much as what it went through: a fault that never struck, a message that
never crossed the wire, a transition that never happened were not tested, whatever the colour of
the result. Counts of many seeds are added up; `missing` names what has none.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Any, get_args

from titan_master.core import effects as master_effects
from titan_master.core import events as master_events
from titan_master.core import inputs as master_inputs
from titan_master.core.transitions import TABLES
from titan_proto.errors import ErrorCode
from titan_proto.messages import REGISTRY
from titan_proto.specs import Trigger
from titan_proto.states import ExitReason, OpenEnum, WorkerState
from titan_worker.core import effects as worker_effects
from titan_worker.core import inputs as worker_inputs
from titan_worker.core import records as worker_records
from titan_worker.core.transitions import ATTEMPT as WORKER_ATTEMPT


class Fault(Enum):
    """What can go wrong. Every kind must strike somewhere in a suite."""

    DELAY = "messages delayed"
    CUT = "link cut"
    HALF_OPEN = "link half-open"
    WORKER_CRASH = "worker crash, ledger kept"
    WORKER_CRASH_IN_TURN = "worker crash inside a turn"
    MACHINE_REBOOT = "worker machine reboot, ledger lost"
    MACHINE_REBOOT_TAIL = "worker machine reboot, ledger's tail lost"
    WORKER_LEAVES = "worker shut down in good order"
    WORKER_PAUSE_SHORT = "worker paused below the lease"
    WORKER_PAUSE_LONG = "worker paused beyond the lease"
    WORKER_PAUSE_GUARDING = "worker paused beyond the lease, its exclusive job not"
    MASTER_CRASH_BEFORE_COMMIT = "master crash before commit"
    MASTER_CRASH_LOST_TAIL = "master crash in the commit, unsynced tail lost"
    MASTER_CRASH_KEPT_TAIL = "master crash in the commit, tail kept, nothing released"
    MASTER_CRASH_RELEASING = "master crash between commit and release"
    MASTER_CRASH_IDLE = "master crash between turns"
    STALE_MASTER = "a master of an older term answers"
    FOREIGN_MASTER = "another cluster's master answers"
    MASTER_PAUSE_SHORT = "master paused below the lease"
    MASTER_PAUSE_LONG = "master paused beyond the lease"
    PARTITION = "hosts and the master kept apart, both ways"
    PARTITION_INWARD = "hosts and the master kept apart, what hosts say is not heard"
    PARTITION_OUTWARD = "hosts and the master kept apart, what the master says is not heard"
    LATE_FRAMES = "frames arrive after their sender has given the link up"
    REPEATED_FRAMES = "frames arrive twice, or once more later"
    SLOW_DISK = "commits take seconds"
    DISK_FULL = "master's disk full for a while"
    FSYNC_ERROR = "master's commit refused by the disk, process ends"
    TORN_TAIL = "journal's last record damaged, start refused until it is repaired"
    CLOCK_RATE = "a machine's clock runs up to a tenth fast or slow"
    CLOCK_JUMP = "the master's clock is set forward while it works"
    COPIED_FOLDER = "a copy of a worker's folder started on another machine"
    SAME_FOLDER = "a second worker started on a folder in use"
    POISON = "a request breaks the master's core"


class Choice(Enum):
    """What placement has to mind beside slots and skills. All of it must happen somewhere in a suite."""

    COUNTED = "it takes of what is counted"
    PINNED = "it is for one worker, or one host"
    BESIDE = "it has to be beside another job"
    NEAR = "it is better beside another job, and there"
    NOT_NEAR = "it is better beside another job, and elsewhere"
    SPREAD = "it is spread"
    GROUPED = "one of a few jobs"
    RUNS_GROUPED = "of one of a few runs"
    CHILD = "it was asked for by a job, and is beside that"


class Move(Enum):
    """What may become of a service that is replaced or moved. All of it must happen somewhere in a suite."""

    REPLACED = "its replacement was healthy, and it was stopped for that"
    STAYED = "nobody else could have it, and it was told to go with its worker"
    LEFT_BEHIND = "it went before its replacement was healthy, which went on alone"
    CAME_BACK = "its replacement had no room, and it took that one's place"
    MADE_WAY = "no other worker was there for its port, and it was stopped for its replacement"
    MADE_WAY_LATE = "its replacement had failed on the other workers, and it was stopped for that"
    SPARED = "its replacement had crashed on the other workers for its port, and it stayed"


class Rearing(Enum):
    """What may become of a worker that is spawned by another one. All of it must happen somewhere."""

    BY_QUEUE = "one was asked for because of what waited"
    BY_HAND = "one was asked for by a person"
    JOINED = "it has joined, with the proof that it is the one"
    FAILED = "it could not be started, or ended before it had joined"
    TIMED_OUT = "it had not joined in time, and was given up"
    DISMISSED = "it was idle, and told to leave"
    KILLED = "it was killed by the one that had spawned it"


MESSAGES_LEFT_OUT = {
    "LogChunk": "bulk: the data plane's, passes no core",
    "LogGap": "bulk: the data plane's, passes no core",
    "LogAck": "bulk's other half, passes no core",
    "LogData": "bulk: the data plane's, passes no core",
    "LogPiece": "bulk: the data plane's, passes no core",
    "GetTraffic": "what the shells count, passes no core",
    "Traffic": "its answer",
    "OfferArtifact": "the data plane's, passes no core",
    "ArtifactWanted": "the data plane's, passes no core",
    "ArtifactChunk": "bulk: the data plane's, passes no core",
    "ArtifactStored": "the data plane's, passes no core",
    "FetchArtifact": "the data plane's, passes no core",
    "ListFiles": "files by name: the data plane's, pass no core",
    "FileList": "likewise",
    "NameFile": "likewise",
    "FileView": "likewise",
    "FindFiles": "a look into a folder, passes no core",
    "FilesFound": "its answer",
    "WorkerUsage": "what people look at, passes no core",
    "SampleUsage": "its other half, passes no core",
    "IssueTicket": "for signing in to the dashboard, answered beside the core",
    "TicketIssued": "its answer",
    "RedeemTicket": "likewise",
    "TicketRedeemed": "its answer",
    "GetUsage": "answered beside the core",
    "UsageView": "its answer",
    "Hello": "the handshake, inside Connection; every link that opens has had it",
    "Challenge": "likewise",
    "Proof": "likewise",
    "Welcome": "likewise",
    "Ping": "answered inside Connection",
    "Pong": "likewise",
    "Refused": "ends a handshake; counted below as a closing code",
    "Goodbye": "ends a link; counted below as a closing code",
}
"""Messages that no seed need carry, each with its reason."""

CLOSINGS = (
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.SUPERSEDED,
    ErrorCode.DUPLICATE_WORKER,
)
"""Last words that the master must have had reason to say."""

FACTS_LEFT_OUT: dict[str, str] = {}


MOVES_LEFT_OUT = {
    ("WORKER", WorkerState.ONLINE, WorkerState.RETIRED): "a worker of before: it only says Leave",
    ("WORKER", WorkerState.SILENT, WorkerState.RETIRED): "likewise",
}
"""Transitions that journals of before may hold, and no worker of this version brings about."""

REASONS_LEFT_OUT = (ExitReason.UNKNOWN, ExitReason.CRASH_LIMIT)
"""Nobody gives them: one stands for what a reader does not know, one is retired."""


class Coverage:
    """Counts, by what they count."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {
            group: Counter()
            for group in (
                "fault",
                "choice",
                "move",
                "rearing",
                "trigger",
                "message",
                "closing",
                "reason",
                "transition",
                "fact",
                "input",
                "effect",
            )
        }

    def fault(self, kind: Fault) -> None:
        """It struck."""
        self.counts["fault"][kind.value] += 1

    def trigger(self, trigger: Trigger, *, begins: bool) -> None:
        """It decided about a job."""
        self.counts["trigger"][f"{trigger} {'begins' if begins else 'skips'}"] += 1

    def choice(self, kind: Choice) -> None:
        """It was made."""
        self.counts["choice"][kind.value] += 1

    def move(self, kind: Move) -> None:
        """It was made."""
        self.counts["move"][kind.value] += 1

    def rearing(self, kind: Rearing) -> None:
        """It came to that."""
        self.counts["rearing"][kind.value] += 1

    def message(self, message: Any) -> None:
        """It arrived."""
        self.counts["message"][type(message).__name__] += 1

    def closed(self, code: ErrorCode) -> None:
        """A link ended with these last words."""
        self.counts["closing"][code.value] += 1

    def reason(self, reason: ExitReason) -> None:
        """An attempt or a job ended for it."""
        self.counts["reason"][reason.value] += 1

    def transition(self, table: str, before: OpenEnum, after: OpenEnum) -> None:
        """A state machine moved."""
        self.counts["transition"][_arrow(table, before, after)] += 1

    def fact(self, side: str, fact: Any) -> None:
        """An event or record became durable."""
        self.counts["fact"][f"{side} {type(fact).__name__}"] += 1

    def input(self, side: str, item: Any) -> None:
        """A core was handed it."""
        self.counts["input"][f"{side} {type(item).__name__}"] += 1

    def effect(self, side: str, effect: Any) -> None:
        """A host did it."""
        self.counts["effect"][f"{side} {type(effect).__name__}"] += 1

    def add(self, other: dict[str, Counter[str]]) -> None:
        """Take in another seed's counts."""
        for group, counts in other.items():
            self.counts[group].update(counts)

    def missing(self) -> list[str]:
        """What has never been exercised."""
        return [
            f"{group}: {name}"
            for group, names in required().items()
            for name in names
            if not self.counts[group][name]
        ]

    def report(self) -> str:
        """All counts, one line each, in the order of what is required."""
        lines = []
        for group, names in required().items():
            counts = self.counts[group]
            lines.append(f"{group}: {len(names)} kinds, {sum(counts.values())} in all")
            others = sorted(set(counts) - set(names))
            lines += [f"  {counts[name]:9d}  {name}" for name in [*names, *others]]
        return "\n".join(lines)


def required() -> dict[str, list[str]]:
    """What a suite must have exercised, by group."""
    transitions = [
        _arrow(name, before, after)
        for name, table in TABLES.items()
        for before, after in sorted(table)
        if (name, before, after) not in MOVES_LEFT_OUT
    ]
    transitions += [_arrow("WORKER'S", *move) for move in sorted(WORKER_ATTEMPT)]
    facts = _names("master", master_events.AnyEvent) + _names("worker", worker_records.AnyRecord)
    return {
        "fault": [kind.value for kind in Fault],
        "choice": [kind.value for kind in Choice],
        "move": [kind.value for kind in Move],
        "rearing": [kind.value for kind in Rearing],
        "trigger": [
            f"{trigger} {what}"
            for trigger in Trigger
            for what in ("begins", "skips")
            if trigger is not Trigger.UNKNOWN and (trigger, what) != (Trigger.ALL_DONE, "skips")
        ],
        "message": [
            kind.__name__ for kind in REGISTRY.values() if kind.__name__ not in MESSAGES_LEFT_OUT
        ],
        "closing": [code.value for code in CLOSINGS],
        "reason": [reason.value for reason in ExitReason if reason not in REASONS_LEFT_OUT],
        "transition": transitions,
        "fact": [name for name in facts if name.split()[1] not in FACTS_LEFT_OUT],
        "input": _names("master", master_inputs.Input) + _names("worker", worker_inputs.Input),
        "effect": _names("master", master_effects.Effect) + _names("worker", worker_effects.Effect),
    }


def _names(side: str, union: Any) -> list[str]:
    return [f"{side} {kind.__name__}" for kind in get_args(union)]


def _arrow(table: str, before: OpenEnum, after: OpenEnum) -> str:
    return f"{table} {before} -> {after}"
