"""The invariants of the worker's state, in words and code.

``check(state)`` looks at everything and is for tests, the simulator and a freshly loaded ledger;
``apply`` checks each record's own move at once. A broken invariant is a bug here: nobody catches
it, the process ends.
"""

from __future__ import annotations

from titan_proto.ids import AttemptRef
from titan_proto.states import AttemptState
from titan_worker.core.state import Held, WorkerState, digest


class InvariantViolation(Exception):
    """Something that cannot be, is. `state_digest` says in which state."""

    def __init__(self, message: str, state_digest: str) -> None:
        super().__init__(f"{message} (state {state_digest[:16]})")
        self.state_digest = state_digest


def violated(state: WorkerState, message: str) -> InvariantViolation:
    """The exception to raise for `message` about `state`."""
    return InvariantViolation(message, digest(state))


def check(state: WorkerState) -> None:
    """Raise InvariantViolation if the state contradicts itself."""
    if state.held and not state.cluster_id:
        raise violated(state, "attempts are held, but for no cluster")
    for number, sibling in state.siblings.items():
        if sibling.order.number != number:
            raise violated(state, f"sibling {number} is filed under another's number")
        if sibling.settled and sibling.ended:
            raise violated(state, f"sibling {number} has ended, is settled, and not forgotten")
        if sibling.given_up and not sibling.settled:
            raise violated(state, f"sibling {number} is given up and not settled")
    for ref, held in state.held.items():
        problem = _problem(ref, held)
        if problem:
            raise violated(state, f"attempt {ref}: {problem}")


def _problem(ref: AttemptRef, held: Held) -> str:
    """What is wrong with one attempt; empty if nothing is."""
    report = held.report
    if held.order.ref != ref:
        return f"is filed under another's name, {held.order.ref}"
    if held.state in {AttemptState.STARTING, AttemptState.UNKNOWN}:
        return f"is {held.state}, which no record says"
    if (held.state is AttemptState.ENDED) != (report is not None):
        return f"is {held.state} and has {'a' if report else 'no'} report of its end"
    if report is not None and (report.ref != ref or report.state is not AttemptState.ENDED):
        return f"keeps a report that is not of its end: {report.ref} {report.state}"
    if held.state is AttemptState.RUNNING and held.pid <= 0 and not held.restarts:
        return "runs without a process"
    if held.state is AttemptState.STOPPING and held.stop_reason is None:
        return "is stopping for no reason"
    return ""
