"""The tests of safety bite: take a guard away, and the test that is named for it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.planting import ROOT, Copy, Plant, changed, plants

PLANTS = plants()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy of the tree, in which every named test passes."""
    return Copy(tmp_path_factory.mktemp("c"))


def test_there_are_enough_of_them() -> None:
    """At least twelve, each with a reason."""
    assert len(PLANTS) >= 12
    assert all(plant.why for plant in PLANTS)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_it_still_applies(plant: Plant) -> None:
    """Its text is in the tree, once; else whoever moved it is told where to say so."""
    changed(plant, ROOT)


@pytest.mark.timeout(240)
def test_the_copy_is_what_is_tested_and_is_sound(copy: Copy) -> None:
    """Its code is imported, not what is installed; the named tests pass there."""
    assert [origin for origin in copy.origins() if not Path(origin).is_relative_to(copy.root)] == []
    code, output = copy.run([plant.test for plant in PLANTS])
    assert code == 0, output


@pytest.mark.parametrize(
    "plant",
    [pytest.param(p, id=p.name, marks=pytest.mark.needs(*p.needs)) for p in PLANTS],
)
@pytest.mark.timeout(120)
def test_it_is_caught(copy: Copy, plant: Plant) -> None:
    """The named test fails."""
    outcome = copy.judge(plant)
    assert outcome.failed, outcome.output
