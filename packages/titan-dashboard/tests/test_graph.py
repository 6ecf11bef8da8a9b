"""The graph's drawing: parents stand left, nothing lies on another, many that are alike are one."""

from __future__ import annotations

import random
import time

from titan_dashboard.graph import BOXES, HEIGHT, WIDTH, Drawing, draw


def placed(drawing: Drawing | None) -> dict[str, tuple[int, int]]:
    assert drawing is not None
    return {job: (box.x, box.y) for box in drawing.boxes for job in box.jobs}


def test_a_job_stands_right_of_everything_that_it_depends_on() -> None:
    jobs = {"d": ["b", "c", "a"], "a": [], "b": ["a"], "c": ["b"]}
    at = placed(draw(jobs))
    for job, on in jobs.items():
        assert all(at[parent][0] < at[job][0] for parent in on)


def test_boxes_of_any_graph_do_not_overlap_and_fit() -> None:
    dice = random.Random(7)
    for _ in range(40):
        jobs: dict[str, list[str]] = {}
        for n in range(dice.randint(1, 50)):
            jobs[f"j{n}"] = dice.sample(sorted(jobs), min(len(jobs), dice.randint(0, 3)))
        drawing = draw(jobs)
        assert drawing is not None
        boxes = drawing.boxes
        for n, one in enumerate(boxes):
            assert 0 <= one.x <= drawing.width - WIDTH
            assert 0 <= one.y <= drawing.height - HEIGHT
            for other in boxes[n + 1 :]:
                assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= HEIGHT
        assert len(drawing.edges) == sum(len(on) for on in jobs.values())


def test_many_jobs_that_are_alike_are_one_box() -> None:
    parts = {f"p{n}": ["first"] for n in range(500)}
    drawing = draw({"first": [], **parts, "last": list(parts)})
    assert drawing is not None
    assert sorted(len(box.jobs) for box in drawing.boxes) == [1, 1, 500]
    assert len(drawing.edges) == 2


def test_few_jobs_that_are_alike_stay_apart() -> None:
    drawing = draw({"a": [], "b": ["a"], "c": ["a"]})
    assert drawing is not None
    assert len(drawing.boxes) == 3


def test_what_no_drawing_can_show_has_none() -> None:
    assert draw({f"j{n}": [f"j{n - 1}"] if n else [] for n in range(BOXES + 1)}) is None


def test_a_dependency_that_is_not_there_is_left_out_and_no_jobs_are_no_boxes() -> None:
    drawing = draw({"a": ["gone", "gone"]})
    assert drawing is not None
    assert (len(drawing.boxes), drawing.edges) == (1, [])
    empty = draw({})
    assert empty is not None
    assert empty.boxes == []


def test_three_hundred_jobs_are_drawn_at_once() -> None:
    dice = random.Random(3)
    jobs: dict[str, list[str]] = {}
    for n in range(300):
        jobs[f"j{n}"] = dice.sample(sorted(jobs)[-40:], min(len(jobs), 2))
    begin = time.process_time()
    draw(jobs)
    assert time.process_time() - begin < 0.5
