"""The rate of a key and the places at a time, against what they promise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.server.limits import BURST_SECONDS, ConcurrencyLimit, Counters, SharedTokenBuckets, TokenBucket
from agent_manager.server.problems import Busy, TooMany
from agent_manager.server.protocol import ConnectionLimit, network_of

pytestmark = pytest.mark.any_server


def let_in(rates: TokenBucket, key: str = "ana") -> int:
    """0 if a request is let in, else the seconds that it is told to wait."""
    try:
        rates.take(key)
    except TooMany as error:
        return int(error.headers["Retry-After"])
    return 0


@given(st.lists(st.floats(0, 3), max_size=300), st.floats(0.5, 50))
def test_in_no_span_of_time_a_key_gets_more_than_its_rate_and_a_burst(pauses: list[float], rate: float) -> None:
    now = 0.0
    rates = TokenBucket(rate, clock=lambda: now)
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
    rates = TokenBucket(rate, clock=lambda: now)
    for _ in range(1000):
        if seconds := let_in(rates):
            now += seconds
            assert not let_in(rates)
            return
    raise AssertionError("nobody was told to wait")


def test_one_key_takes_nothing_from_another() -> None:
    rates = TokenBucket(1, clock=lambda: 0.0)
    while not let_in(rates, "ana"):
        pass
    assert not let_in(rates, "bob")


def test_places_are_given_back_and_one_key_has_its_part() -> None:
    places = ConcurrencyLimit("things", 3, [2, 1], "THINGS")
    with places.one("acme", "ana"):
        with pytest.raises(TooMany, match=r"1 things.*THINGS"), places.one("acme", "ana"):
            pass
        with places.one("acme", "bob"):
            with pytest.raises(TooMany, match=r"2 things.*THINGS"), places.one("acme", "cid"):
                pass
            with places.one("globex", "ana"):
                with pytest.raises(Busy, match="THINGS"), places.one("initech", "eve"):
                    pass
                assert places.taken == 3
    assert places.taken == 0
    with pytest.raises(ValueError, match="inside"), places.one("acme", "ana"):
        raise ValueError("inside")
    assert places.taken == 0


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(1, 500)), max_size=100), st.floats(1, 50))
def test_who_spends_more_than_is_left_waits_until_the_debt_is_paid(
    steps: list[tuple[float, float]], rate: float
) -> None:
    now, spent, largest = 0.0, 0.0, 0.0
    rates = TokenBucket(rate, clock=lambda: now)
    for pause, amount in steps:
        now += pause
        largest = max(largest, amount)
        with suppress(TooMany):
            rates.take("ana", amount)
            spent += amount
        assert spent <= BURST_SECONDS * rate + rate * now + largest + 1e-6


def test_more_keys_give_a_tenant_no_higher_rate() -> None:
    rates = SharedTokenBuckets(TokenBucket(2, clock=lambda: 0.0), TokenBucket(4, clock=lambda: 0.0))
    taken = 0
    for number in range(20):
        with suppress(TooMany):
            for _ in range(20):
                rates.take(("acme", f"key {number}"))
                taken += 1
    assert taken == BURST_SECONDS * 4
    rates.take(("globex", "key 1"))
    rates.take(())


STEPS = st.tuples(st.sampled_from(["add", "busy", "idle", "remove"]), st.integers(0, 3), st.integers(0, 30))


@given(st.lists(STEPS, max_size=200), st.integers(1, 8))
def test_connections_displace_only_idle_ones_of_the_network_that_has_most(
    steps: list[tuple[str, int, int]], most: int
) -> None:
    limit = ConnectionLimit(most)
    is_idle: dict[Callable[[], None], bool] = {}
    was_answered: set[Callable[[], None]] = set()
    networks: dict[Callable[[], None], str] = {}
    displaced: list[int] = []
    numbers: dict[int, Callable[[], None]] = {}

    def displace(number: int) -> None:
        displaced.append(number)

    def count(address: str) -> int:
        return sum(is_idle[each] for each in is_idle if networks[each] == address)

    for number, (what, network, place) in enumerate(steps):
        address = f"192.0.2.{network}"
        if what == "add":
            close = partial(displace, number)
            networks[close], numbers[number] = address, close
            counts = {each: count(each) for each in networks.values()}
            was_full = len(is_idle) == most
            if limit.add(close, address):
                if was_full:
                    victim = numbers[displaced.pop()]
                    assert is_idle.pop(victim)
                    assert counts[networks[victim]] == max(counts.values())
                    assert victim not in was_answered or counts[networks[victim]] > counts[address]
                is_idle[close] = True
            else:
                assert was_full
                assert counts[address] == max(counts.values())
                own = [each for each in is_idle if is_idle[each] and networks[each] == address]
                assert was_answered.issuperset(own)
            assert not displaced
        elif is_idle:
            chosen = list(is_idle)[place % len(is_idle)]
            if what == "remove":
                limit.remove(chosen)
                del is_idle[chosen]
            else:
                if what == "busy":
                    limit.set_busy(chosen)
                elif not is_idle[chosen]:
                    limit.set_idle(chosen, was_answered=True)
                    was_answered.add(chosen)
                is_idle[chosen] = what == "idle"
        assert len(limit) == len(is_idle) <= most


def test_a_network_is_what_one_host_can_have() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") == network_of("::ffff:192.0.2.1") != network_of("192.0.2.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("") == ""


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
