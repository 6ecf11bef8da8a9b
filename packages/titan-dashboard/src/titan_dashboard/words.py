"""How states, times, sizes and reasons are said on a page. Pure: decides only the words.

A state is always a sign, a word and a tone: colour alone tells nothing to many people.
"""

from __future__ import annotations

import datetime
import signal
from typing import Final, NamedTuple

from titan_proto.messages import AttemptView, JobView, ServiceView
from titan_proto.states import ExitReason, OpenEnum


class Mark(NamedTuple):
    """A state as it is shown."""

    sign: str
    word: str
    tone: str
    """Which colour: ok, busy, bad, wait, skip, ask."""


_MARKS: Final = {
    # runs
    "ACTIVE": Mark("▶", "active", "busy"),
    # jobs
    "BLOCKED": Mark("◦", "blocked", "wait"),
    "SCHEDULED": Mark("◷", "delayed", "wait"),
    "QUEUED": Mark("…", "queued", "wait"),
    "WAITING": Mark("‖", "approval", "ask"),
    "BACKOFF": Mark("↻", "retrying", "busy"),
    "PLACED": Mark("▷", "starting", "busy"),
    "RUNNING": Mark("▶", "running", "busy"),
    "CANCELLING": Mark("◌", "stopping", "wait"),
    "SUCCEEDED": Mark("✓", "succeeded", "ok"),
    "FAILED": Mark("✕", "failed", "bad"),
    "SKIPPED": Mark("⊘", "skipped", "skip"),
    "CANCELLED": Mark("⊘", "cancelled", "skip"),
    # attempts
    "PREPARING": Mark("▷", "preparing", "busy"),
    "ENDED": Mark("■", "ended", "skip"),
    # workers
    "ONLINE": Mark("●", "online", "ok"),
    "SILENT": Mark("?", "silent", "ask"),
    "DRAINING": Mark("◌", "draining", "wait"),
    "LOST": Mark("✕", "lost", "bad"),
    "RETIRED": Mark("○", "gone", "skip"),
    # services
    "STARTING": Mark("▷", "starting", "busy"),
    "HEALTHY": Mark("●", "healthy", "ok"),
    "UNHEALTHY": Mark("✕", "unhealthy", "bad"),
    "STOPPING": Mark("◌", "stopping", "wait"),
    "STOPPED": Mark("○", "stopped", "skip"),
    "UNKNOWN": Mark("?", "unknown", "ask"),
}


def mark(state: OpenEnum | str) -> Mark:
    """The sign, word and tone of a state."""
    return _MARKS.get(str(state), _MARKS["UNKNOWN"])


def duration(ms: int) -> str:
    """`840 ms`, `14.0 s`, `3m 05s`, `2h 04m`, `3d 05h`."""
    if ms < 1_000:
        return f"{max(0, ms)} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s"
    seconds = ms // 1_000
    if seconds < 3_600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    minutes = seconds // 60
    if minutes < 1_440:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{minutes // 1_440}d {minutes // 60 % 24:02d}h"


def size(number: int) -> str:
    """`512 B`, `1.4 KiB`, `3.2 GiB`."""
    if number < 1024:
        return f"{number} B"
    value = float(number)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def stamp(ms: int) -> str:
    """A point in time as machines read it, in UTC."""
    at = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(ms: int) -> str:
    """A point in time as people read it where no script turns it into their own zone."""
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).strftime("%d %b %H:%M:%S UTC")


def percent(permille: int) -> str:
    """Thousandths, as `37 %`."""
    return f"{permille / 10:.0f} %"


def cores(milli: int) -> str:
    """Thousandths of a core, as `0.25 cores`."""
    return f"{milli / 1000:.2f} cores"


_REASONS: Final = {
    ExitReason.OOM_KILLED: "it used more memory than it may",
    ExitReason.CANCELLED: "cancelled",
    ExitReason.STOPPED: "stopped",
    ExitReason.PREPARE_FAILED: "its workspace could not be made",
    ExitReason.START_FAILED: "it could not be started",
    ExitReason.LOST: "its worker was lost",
    ExitReason.WORKER_LEFT: "its worker was shut down",
    ExitReason.TIMED_OUT: "it took longer than it may",
    ExitReason.CRASH_LIMIT: "its workers were lost too often",
    ExitReason.QUARANTINED: "quarantined: its workers were lost too often",
    ExitReason.UNHEALTHY: "it failed its health check",
    ExitReason.CRASH_LOOP: "it ended again and again",
    ExitReason.BAD_OUTPUT: "what it left for other jobs cannot be read",
    ExitReason.BAD_FILES: "files that it was to leave for other jobs are missing, or cannot be taken",
    ExitReason.MISSING_OUTPUT: "not started: what it needs of a job before it is missing",
    ExitReason.TAKEN_OVER: "taken over from the run that this one repeats",
    ExitReason.APPROVED: "approved",
    ExitReason.REJECTED: "rejected",
    ExitReason.EXPIRED: "nobody decided in time",
    ExitReason.PARENT_SKIPPED: "a job before it was skipped",
    ExitReason.TRIGGER_UNMET: "nothing before it failed",
    ExitReason.WHEN_FALSE: "its condition is not true",
    ExitReason.BAD_WHEN: "its condition cannot be worked out",
    ExitReason.PARENT_FAILED: "a job before it did not succeed",
}


def reason(view: JobView | ServiceView) -> str:
    """Why it ended, or why it waits; empty where there is nothing to say."""
    said = ended(view.reason, view.exit_code, view.signal)
    if str(view.state) == "SUCCEEDED" and view.reason is ExitReason.EXITED:
        said = ""
    if not view.message or view.message == said:
        return said
    return f"{said}: {view.message}" if said else view.message


def attempt_reason(view: AttemptView) -> str:
    """How one try ended."""
    said = ended(view.reason, view.exit_code, view.signal)
    if not view.message or view.message == said:
        return said
    return f"{said}: {view.message}" if said else view.message


def ended(why: ExitReason, exit_code: int, number: int) -> str:
    """How an attempt ended."""
    if why is ExitReason.EXITED:
        return f"exit {exit_code}"
    if why is ExitReason.SIGNALLED:
        return f"killed by {signal_name(number)}"
    return _REASONS.get(why, "")


def signal_name(number: int) -> str:
    """`SIGKILL` of 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
