"""The rate of a key and the places at a time, against what they promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.http.counting import Counters
from agent_manager.http.limits import BURST_SECONDS, Places, Rates
from agent_manager.http.refusals import Busy, TooMany

pytestmark = pytest.mark.any_server


def let_in(rates: Rates, key: str = "ana") -> int:
    """0 if a request is let in, else the seconds that it is told to wait."""
    try:
        rates.take(key)
    except TooMany as error:
        return int(error.headers["Retry-After"])
    return 0


@given(st.lists(st.floats(0, 3), max_size=300), st.floats(0.5, 50))
def test_in_no_span_of_time_a_key_gets_more_than_its_rate_and_a_burst(pauses: list[float], rate: float) -> None:
    now = 0.0
    rates = Rates(rate, lambda: now)
    times = []
    for pause in pauses:
        now += pause
        if not let_in(rates):
            times.append(now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            most = max(1.0, BURST_SECONDS * rate) + rate * (times[last] - times[first])
            assert last - first + 1 <= most + 1e-6


@given(st.floats(0.05, 200))
def test_whoever_waits_as_long_as_they_are_told_is_let_in(rate: float) -> None:
    now = 0.0
    rates = Rates(rate, lambda: now)
    for _ in range(1000):
        if seconds := let_in(rates):
            now += seconds
            assert not let_in(rates)
            return
    raise AssertionError("nobody was told to wait")


def test_one_key_takes_nothing_from_another() -> None:
    rates = Rates(1, lambda: 0.0)
    while not let_in(rates, "ana"):
        pass
    assert not let_in(rates, "bob")


def test_places_are_given_back_and_one_key_has_its_part() -> None:
    places = Places("things", 3, 2, "THINGS")
    with places.one("ana"), places.one("ana"):
        with pytest.raises(TooMany, match="THINGS"), places.one("ana"):
            pass
        with places.one("bob"):
            with pytest.raises(Busy, match="THINGS"), places.one("eve"):
                pass
            assert places.taken == 3
    assert places.taken == 0
    with pytest.raises(ValueError, match="inside"), places.one("ana"):
        raise ValueError("inside")
    assert places.taken == 0


def test_counters_are_added_up_by_name_and_label() -> None:
    counters = Counters()
    for reason in ("rate", "rate", "slow body"):
        counters.add("refused", reason=reason)
    counters.add("answers", status="200")
    assert counters.number("refused") == 3
    assert counters.number("refused", reason="rate") == 2
    assert counters.number("nothing") == 0
    assert sorted(counters, key=str) == [
        ("answers", {"status": "200"}, 1),
        ("refused", {"reason": "rate"}, 2),
        ("refused", {"reason": "slow body"}, 1),
    ]
