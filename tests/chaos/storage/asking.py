"""What the tests ask of a real master: raw requests, so that no client's patience hides an answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.harness.cluster import Cluster
from titan_proto.errors import LinkError
from titan_proto.io.address import parse_address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetRun, Role, RunReceipt, SubmitRun
from titan_proto.specs import JobSpec, Launch, LaunchKind, RunSpec
from titan_proto.states import RunState

ANSWER_S = 20.0
T = TypeVar("T")


def link_to(cluster: Cluster) -> BlockingLink:
    """A link of a client's."""
    return BlockingLink.connect(
        parse_address(cluster.address),
        cluster.token,
        role=Role.CLIENT,
        software="test",
        timeout_s=ANSWER_S,
    )


def spec(*lines: str, name: str = "run") -> RunSpec:
    """A run of shell lines, one after the other: jobs j0, j1, …"""
    jobs = tuple(
        JobSpec(
            id=f"j{at}",
            launch=Launch(kind=LaunchKind.SHELL, shell=line),
            dependencies=(f"j{at - 1}",) if at else (),
        )
        for at, line in enumerate(lines)
    )
    return RunSpec(name=name, jobs=jobs)


def submit(link: BlockingLink, key: str, *lines: str) -> RunReceipt:
    """A run under this key."""
    return link.call(SubmitRun(key=key, spec=spec(*lines)), timeout_s=ANSWER_S)


def submit_for_ever(
    cluster: Cluster, receipts: dict[str, RunReceipt], *, prefix: str, most: int
) -> None:
    """Until the link breaks, or so many; what is acknowledged goes into `receipts`."""
    try:
        with link_to(cluster) as link:
            for serial in range(most):
                key = f"{prefix}{serial}"
                receipts[key] = submit(link, key, "true", "true")
    except LinkError:
        return


def lost(link: BlockingLink, receipts: dict[str, RunReceipt]) -> list[str]:
    """The keys of acknowledged runs that are not there, or not the ones that were acknowledged."""
    missing = []
    for key, receipt in receipts.items():
        again = submit(link, key, "true", "true")
        view = link.call(GetRun(run=receipt.run_id), timeout_s=ANSWER_S)
        if not again.known or again.run_id != receipt.run_id or view.state is not RunState.ACTIVE:
            missing.append(key)
    return missing


def until(ask: Callable[[], T | None], *, seconds: float = ANSWER_S) -> T:
    """What `ask` gives once it gives something; asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = ask()
        if found is not None:
            return found
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
