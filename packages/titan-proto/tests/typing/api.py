"""What a type checker must know of the public API. Checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from typing_extensions import assert_type

from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.errors import Problem
from titan_proto.handshake import Token, parse_token
from titan_proto.io.aio import AioLink
from titan_proto.io.blocking import BlockingLink, LinkPool
from titan_proto.messages import (
    ArtifactChunk,
    FetchArtifact,
    GetStats,
    JobChange,
    JobView,
    LogData,
    ReadLog,
    RunReceipt,
    Stats,
    SubmitRun,
    WaitJob,
    WatchRun,
)
from titan_proto.specs import RunSpec
from titan_proto.validation import problems


def blocking(link: BlockingLink, pool: LinkPool, spec: RunSpec) -> None:
    """A request knows its reply."""
    assert_type(link.call(SubmitRun(key="k", spec=spec)), RunReceipt)
    assert_type(link.call(GetStats(), timeout_s=1.0), Stats)
    assert_type(pool.call(WaitJob(run="r", job="j")), JobView)
    assert_type(link.stream(WatchRun(run="r")), Iterator[JobChange])
    assert_type(pool.stream(FetchArtifact(digest="d")), Iterator[ArtifactChunk])
    for piece in link.stream(ReadLog(run="r", job="j")):
        assert_type(piece, LogData)


async def aio(link: AioLink, spec: RunSpec) -> None:
    """So does one on an asyncio link."""
    assert_type(await link.call(SubmitRun(key="k", spec=spec)), RunReceipt)
    assert_type(link.stream(WatchRun(run="r")), AsyncIterator[JobChange])


def pure(connection: Connection, spec: RunSpec) -> None:
    """The rest of what two packages build on."""
    assert_type(connection.receive_data(b""), list[Received | Opened | Closed])
    assert_type(connection.closed, Closed | None)
    assert_type(problems(spec), tuple[Problem, ...])
    assert_type(parse_token("t"), Token)
