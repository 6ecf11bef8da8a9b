"""A core with history beside it, for runs that are repeated."""

from __future__ import annotations

from core_world import EVENTS, World

from titan_master.core.inputs import Asked
from titan_master.history import Answers
from titan_master.store.memory import MemoryStore
from titan_proto.messages import RerunRun


class Cluster(World):
    """A world whose questions about the past are answered from its own journal."""

    gone = 0
    """How many of the artifacts are that a repetition would need."""
    needed = None
    """What it was asked for last."""

    def _missing(self, pins):
        self.needed = pins
        return self.gone

    def again(self, key="again", run="etl-1", run_id="again", **wanted):
        """Ask for a repetition of a run; the turn of the submission that history makes of it."""
        store = MemoryStore()
        term = store.open().term
        store.commit([EVENTS.decode(body) for body in self.journal], term)
        request = RerunRun(key=key, run=run, **wanted)
        turn = self.turn(Asked(origin=self.origin(), request=request, by="ann"))
        asks = [effect for effect in turn.effects if type(effect).__name__ == "AskHistory"]
        if not asks:
            return turn
        made = Answers(store, lambda: run_id, self._missing).answer(asks[0])
        return self.turn(made) if not isinstance(made, tuple) else made
