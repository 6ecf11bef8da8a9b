"""The errors a user of this package may meet, in one place.

Those of the wire come from `titan_proto.errors`; here are the few that only a client has.
"""

from __future__ import annotations

from titan_proto.errors import (
    AlreadyDone,
    Conflict,
    ConnectFailed,
    InvalidSpec,
    LimitExceeded,
    LinkError,
    LinkLost,
    NotFound,
    NoToken,
    PermissionDenied,
    Problem,
    Refused,
    RequestError,
    StorageFull,
    Timeout,
    TitanError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from titan_sdk.findings import Finding, PipelineError
from titan_sdk.packaging import PackagingError


class NoMaster(ConnectFailed):
    """Nobody answers where a master should be. The text says how to start one."""

    def __init__(self, address: str, *, local: bool, cause: str = "") -> None:
        if local:
            text = f"No Titan master at {address}. Start one here:  titan up"
        else:
            text = f"No Titan master at {address}{f' ({cause})' if cause else ''}. Is it running there?"
        super().__init__(text)
        self.address = address


class RunFailed(TitanError):
    """A run that was waited for with `check=True` did not succeed."""

    def __init__(self, alias: str, state: str, why: str) -> None:
        super().__init__(f"run {alias} is {state}{f': {why}' if why else ''}")
        self.alias = alias
        self.state = state


__all__ = [
    "AlreadyDone",
    "Conflict",
    "ConnectFailed",
    "Finding",
    "InvalidSpec",
    "LimitExceeded",
    "LinkError",
    "LinkLost",
    "NoMaster",
    "NoToken",
    "NotFound",
    "PackagingError",
    "PermissionDenied",
    "PipelineError",
    "Problem",
    "Refused",
    "RequestError",
    "RunFailed",
    "StorageFull",
    "Timeout",
    "TitanError",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
]
