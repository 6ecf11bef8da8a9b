"""What must be done by the worker's shells, after the turn's records are in the ledger."""

from __future__ import annotations

from msgspec import Struct

from titan_proto.ids import AttemptRef
from titan_proto.messages import AnyMessage, SpawnSibling
from titan_proto.messages.worker import AttemptOrder
from titan_proto.specs import HealthCheck


class Send(Struct, frozen=True, kw_only=True):
    """Send on the present link; dropped without harm if it has gone meanwhile."""

    message: AnyMessage


class Prepare(Struct, frozen=True, kw_only=True):
    """Make the attempt's workspace. Answered by WorkspaceReady or WorkspaceFailed."""

    order: AttemptOrder


class LeaseEnd(Struct, frozen=True, kw_only=True):
    """What ends an exclusive attempt if its worker does not say otherwise in time.

    On the worker's clock. Whoever guards the process obeys it also when the worker stands still.
    """

    term_at_ms: int
    """SIGTERM to all of it ..."""
    kill_at_ms: int
    """... and SIGKILL to what is left."""


class Spawn(Struct, frozen=True, kw_only=True):
    """Start the process. Answered by Spawned or SpawnFailed, later by Exited."""

    order: AttemptOrder
    lease_end: LeaseEnd | None = None
    """For an exclusive attempt: it is started under guard."""


class RenewLease(Struct, frozen=True, kw_only=True):
    """The guard of this exclusive attempt may wait longer."""

    ref: AttemptRef
    lease_end: LeaseEnd


class Terminate(Struct, frozen=True, kw_only=True):
    """SIGTERM to everything that the attempt has started; with `force`, SIGKILL."""

    ref: AttemptRef
    force: bool


class AbandonPrepare(Struct, frozen=True, kw_only=True):
    """Nobody wants this workspace any more; a late WorkspaceReady is ignored."""

    ref: AttemptRef


class Probe(Struct, frozen=True, kw_only=True):
    """Check the service until its process ends; without a check, try its port until that answers."""

    ref: AttemptRef
    port: int
    """0 where it has none."""
    check: HealthCheck | None = None


class Forget(Struct, frozen=True, kw_only=True):
    """The attempt's workspace may be swept when its retention is over."""

    ref: AttemptRef


class BearSibling(Struct, frozen=True, kw_only=True):
    """Spawn this worker. Answered by SiblingBegan, later by SiblingGone; or by that alone."""

    order: SpawnSibling


class FindSibling(Struct, frozen=True, kw_only=True):
    """An earlier process of this worker spawned it, or was about to. Answered as BearSibling is."""

    order: SpawnSibling
    pid: int
    """0: it was not written down, and has to be looked for."""
    start_ticks: int
    port: int
    """0: likewise."""


class EndSibling(Struct, frozen=True, kw_only=True):
    """Kill it, with all that it has started: nobody waits for it."""

    number: int


class HangUp(Struct, frozen=True, kw_only=True):
    """Close the link: what it says cannot be (an older term), or it has gone silent."""

    reason: str


class Exit(Struct, frozen=True, kw_only=True):
    """The process may end now."""


Effect = (
    Send
    | Prepare
    | Spawn
    | RenewLease
    | Terminate
    | AbandonPrepare
    | Probe
    | Forget
    | BearSibling
    | FindSibling
    | EndSibling
    | HangUp
    | Exit
)
