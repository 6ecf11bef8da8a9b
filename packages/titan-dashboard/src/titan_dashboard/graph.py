"""Where the boxes and lines of a run's graph go. Pure: no template, no master.

Layers from left to right: a job stands right of everything that it depends on. Inside a layer jobs
are put near those that they are joined to (a few sweeps, each by the middle of the neighbours). Jobs
that are alike (the same parents, the same children) are drawn as one box once there are many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

WIDTH: Final = 180
HEIGHT: Final = 46
_GAP_X: Final = 56
_GAP_Y: Final = 18
_EDGE: Final = 8
_SWEEPS: Final = 6
FOLD_ABOVE: Final = 60
"""With more jobs than this, those that are alike become one box."""
BOXES: Final = 400
"""With more boxes than this there is no drawing: the table says it better."""


class Box(Struct, frozen=True, kw_only=True):
    """A job, or several that are alike, and where its upper left corner is."""

    jobs: Sequence[str]
    x: int
    y: int


class Edge(Struct, frozen=True, kw_only=True):
    """From the right side of one box to the left side of another."""

    parent: str
    child: str
    path: str


class Drawing(Struct, frozen=True, kw_only=True):
    """All of it."""

    boxes: Sequence[Box]
    edges: Sequence[Edge]
    width: int
    height: int


def draw(jobs: Mapping[str, Sequence[str]]) -> Drawing | None:
    """The graph of `jobs` (id → what it depends on, in the order of the submission).

    None where it would have too many boxes. What a job depends on and is not there is left out.
    """
    parents = {job: [p for p in dict.fromkeys(on) if p in jobs] for job, on in jobs.items()}
    groups = _fold(parents) if len(parents) > FOLD_ABOVE else {job: [job] for job in parents}
    if len(groups) > BOXES:
        return None
    home = {job: head for head, members in groups.items() for job in members}
    joined = {head: list(dict.fromkeys(home[p] for p in parents[head])) for head in groups}
    columns = _ordered(_layers(joined), joined)
    return _placed(columns, groups, joined)


def _fold(parents: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Those that are alike, by the first of them."""
    children: dict[str, list[str]] = defaultdict(list)
    for job, on in parents.items():
        for parent in on:
            children[parent].append(job)
    alike: dict[tuple[frozenset[str], frozenset[str]], list[str]] = defaultdict(list)
    for job, on in parents.items():
        alike[frozenset(on), frozenset(children[job])].append(job)
    return {members[0]: members for members in alike.values()}


def _layers(joined: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Each as far to the left as its parents let it. The graph has no cycle: the master saw to it."""
    children: dict[str, list[str]] = defaultdict(list)
    missing = {job: len(on) for job, on in joined.items()}
    for job, on in joined.items():
        for parent in on:
            children[parent].append(job)
    depth = dict.fromkeys(joined, 0)
    ready = [job for job, number in missing.items() if not number]
    while ready:
        job = ready.pop()
        for child in children[job]:
            depth[child] = max(depth[child], depth[job] + 1)
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for job in joined:
        layers[depth[job]].append(job)
    return layers


def _ordered(
    layers: Sequence[Sequence[str]], joined: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    """The layers with each job near its neighbours, so that fewer lines cross."""
    children: dict[str, list[str]] = defaultdict(list)
    for job, on in joined.items():
        for parent in on:
            children[parent].append(job)
    columns = [list(layer) for layer in layers]
    for sweep in range(_SWEEPS):
        neighbours = joined if sweep % 2 == 0 else children
        place = {
            job: (row + 0.5) / len(column) for column in columns for row, job in enumerate(column)
        }
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = {}
            for job in column:
                near = [place[one] for one in neighbours.get(job, ())]
                wanted[job] = sum(near) / len(near) if near else place[job]
            column.sort(key=wanted.__getitem__)
            for row, job in enumerate(column):
                place[job] = (row + 0.5) / len(column)
    return columns


def _placed(
    columns: Sequence[Sequence[str]],
    groups: Mapping[str, Sequence[str]],
    joined: Mapping[str, Sequence[str]],
) -> Drawing:
    tallest = max((len(column) for column in columns), default=0)
    height = tallest * (HEIGHT + _GAP_Y) - _GAP_Y + 2 * _EDGE
    at: dict[str, tuple[int, int]] = {}
    for number, column in enumerate(columns):
        used = len(column) * (HEIGHT + _GAP_Y) - _GAP_Y
        top = (height - used) // 2
        for row, job in enumerate(column):
            at[job] = (_EDGE + number * (WIDTH + _GAP_X), top + row * (HEIGHT + _GAP_Y))
    edges = [
        Edge(parent=parent, child=child, path=_curve(at[parent], at[child]))
        for child, on in joined.items()
        for parent in on
    ]
    boxes = [Box(jobs=groups[job], x=x, y=y) for job, (x, y) in at.items()]
    width = len(columns) * (WIDTH + _GAP_X) - _GAP_X + 2 * _EDGE
    return Drawing(boxes=boxes, edges=edges, width=max(width, 0), height=max(height, 0))


def _curve(parent: tuple[int, int], child: tuple[int, int]) -> str:
    x1, y1 = parent[0] + WIDTH, parent[1] + HEIGHT // 2
    x2, y2 = child[0], child[1] + HEIGHT // 2
    bend = max(_GAP_X // 2, (x2 - x1) // 2)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
