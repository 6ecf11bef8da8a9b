"""Whom to believe: the worker's knowledge against what a master says of itself.

Decides from cluster ids and terms alone; changes nothing. Called by the core at every word that
carries a term.
"""

from __future__ import annotations

from enum import Enum

from titan_worker.core.state import WorkerState


class Standing(Enum):
    """What a master is to this worker."""

    KNOWN = "KNOWN"
    """The one it has heard of last, or the same one again."""
    NEWER = "NEWER"
    """The same cluster under a newer term."""
    FIRST = "FIRST"
    """The first one ever."""
    OLDER = "OLDER"
    """One that has been replaced and may not know it yet: nothing it says counts."""
    STRANGER = "STRANGER"
    """Another cluster's."""


def standing(state: WorkerState, cluster_id: str, term: int) -> Standing:
    """Judge a master of `cluster_id` that claims `term`."""
    if not state.cluster_id:
        return Standing.FIRST
    if cluster_id != state.cluster_id:
        return Standing.STRANGER
    if term < state.term:
        return Standing.OLDER
    return Standing.NEWER if term > state.term else Standing.KNOWN
