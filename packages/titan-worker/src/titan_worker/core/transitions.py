"""Which moves of an attempt the ledger may tell of, as a table.

``apply`` refuses every other one. STARTING is missing on purpose: the worker does not write down
that it is about to start a process (the order's own record says so), so in the ledger an attempt
is PREPARING until its process is known. What peers see, with STARTING, is ``Attempts.shown``.
"""

from __future__ import annotations

from typing import Final

from titan_proto.states import AttemptState

ATTEMPT: Final = frozenset(
    {
        # its process runs
        (AttemptState.PREPARING, AttemptState.RUNNING),
        # told to stop between the order to start it and the word that it runs
        (AttemptState.PREPARING, AttemptState.STOPPING),
        # no workspace, no process, stopped before either, or over before it was seen to run
        (AttemptState.PREPARING, AttemptState.ENDED),
        (AttemptState.RUNNING, AttemptState.STOPPING),
        (AttemptState.RUNNING, AttemptState.ENDED),
        (AttemptState.STOPPING, AttemptState.ENDED),
    }
)
