"""Numbers to the points of small drawings. Pure; the templates draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

POINTS: Final = 120
"""A sparkline has no more: neighbours are averaged."""
WIDTH: Final = 180
HEIGHT: Final = 36


class Spark(NamedTuple):
    """A line over time, in the coordinates of its drawing."""

    line: str
    """The `d` of its path; empty where there are too few points."""
    area: str
    """The same, closed to the ground."""
    peak: float
    """The highest value that was seen."""


def spark(points: Sequence[tuple[int, float]], now_ms: int, span_ms: int, top: float) -> Spark:
    """The line through (when, how much), `span_ms` back from `now_ms`; `top` is the upper edge."""
    binned = _binned(points, now_ms, span_ms)
    if len(binned) < 2:
        return Spark("", "", max((value for _, value in points), default=0.0))
    top = max(top, 1e-9)
    placed = [
        (
            round(WIDTH * (1 - (now_ms - at) / span_ms), 1),
            round(1 + (HEIGHT - 2) * (1 - min(value, top) / top), 1),
        )
        for at, value in binned
    ]
    line = "M" + "L".join(f"{x} {y}" for x, y in placed)
    area = f"{line}L{placed[-1][0]} {HEIGHT}L{placed[0][0]} {HEIGHT}Z"
    return Spark(line, area, max(value for _, value in points))


def _binned(
    points: Sequence[tuple[int, float]], now_ms: int, span_ms: int
) -> list[tuple[float, float]]:
    """At most POINTS of them: the mean of what falls together."""
    sums: dict[int, list[float]] = {}
    for at, value in points:
        age = now_ms - at
        if 0 <= age <= span_ms:
            entry = sums.setdefault(at * POINTS // span_ms, [0.0, 0.0, 0.0])
            entry[0] += 1
            entry[1] += at
            entry[2] += value
    return [(at / n, value / n) for n, at, value in (sums[key] for key in sorted(sums))]
