"""Ratios, their spread and their targets."""

from __future__ import annotations

import pytest

from tools.benchmark.measurement import Figure, Target


def test_the_ratio_is_the_median_of_the_ratios_of_the_runs() -> None:
    figure = Figure("one-caller", "a / b", "events/s", [1, 2, 9], [2, 2, 3])
    assert figure.ratios == (0.5, 1, 3)
    assert figure.ratio == 1
    assert figure.reached is None


@pytest.mark.parametrize(
    ("target", "ratio", "reached"),
    [
        (Target(3), 3, True),
        (Target(3), 2.99, False),
        (Target(1.5, at_least=False), 1.5, True),
        (Target(1.5, at_least=False), 1.51, False),
    ],
)
def test_a_target_is_a_floor_or_a_ceiling(target: Target, ratio: float, reached: bool) -> None:
    assert Figure("any", "a / b", "s", [ratio], [1], target).reached is reached


def test_the_json_holds_every_measurement() -> None:
    as_json = Figure("any", "a / b", "s", [1, 4], [2, 2], Target(1), "noted").as_json()
    assert (as_json["ratio"], as_json["lowest"], as_json["highest"]) == (1.25, 0.5, 2)
    assert (as_json["target"], as_json["reached"], as_json["remark"]) == ("≥ 1", True, "noted")
    assert (as_json["ours"], as_json["other"]) == ([1, 4], [2, 2])
