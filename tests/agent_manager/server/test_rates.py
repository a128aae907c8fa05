"""The limits of rates, concurrency and connections keep what they promise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.server.limits import BURST_SECONDS, RateLimit, SharedLimit
from agent_manager.server.problems import Busy, TooMany
from agent_manager.server.protocol import ConnectionLimit, network_of

pytestmark = pytest.mark.any_server


def limit_of(rate: float, clock: Callable[[], float] = lambda: 0.0, tenant_rate: float = 4) -> RateLimit:
    """Return a limit on the requests of a caller."""
    return RateLimit("requests", rate, tenant_rate, "EVENTSTORE_RATE_PER_SECOND", clock)


def seconds_to_wait(rates: RateLimit, key: str = "ana") -> int:
    """Return 0 if a request is admitted, else its ``Retry-After``."""
    try:
        rates.take(("acme", key))
    except TooMany as error:
        return int(error.headers["Retry-After"])
    return 0


@given(st.lists(st.floats(0, 3), max_size=300), st.floats(0.5, 50))
def test_a_key_never_gets_more_than_its_rate_and_a_burst(pauses: list[float], rate: float) -> None:
    now = 0.0
    rates = limit_of(rate, lambda: now)
    times = []
    for pause in pauses:
        now += pause
        if not seconds_to_wait(rates):
            times.append(now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            most = max(1.0, BURST_SECONDS * rate) + rate * (times[last] - times[first])
            assert last - first + 1 <= most + 1e-6


@given(st.floats(0.05, 200))
def test_a_request_after_its_retry_after_is_admitted(rate: float) -> None:
    now = 0.0
    rates = limit_of(rate, lambda: now)
    for _ in range(1000):
        if seconds := seconds_to_wait(rates):
            now += seconds
            assert not seconds_to_wait(rates)
            return
    raise AssertionError("every request was admitted")


def test_one_key_does_not_use_up_the_rate_of_another() -> None:
    rates = limit_of(1)
    while not seconds_to_wait(rates, "ana"):
        pass
    assert not seconds_to_wait(rates, "bob")


def test_a_concurrency_limit_has_parts_and_is_released_at_the_end() -> None:
    limit = SharedLimit("things", 3, [2, 1], "raise THINGS")
    with limit.one("acme", "ana"):
        with pytest.raises(TooMany, match=r"1 things.*THINGS"), limit.one("acme", "ana"):
            pass
        with limit.one("acme", "bob"):
            with pytest.raises(TooMany, match=r"2 things.*THINGS"), limit.one("acme", "cid"):
                pass
            with limit.one("globex", "ana"):
                with pytest.raises(Busy, match="THINGS"), limit.one("initech", "eve"):
                    pass
                assert limit.taken == 3
    assert limit.taken == 0
    with pytest.raises(ValueError, match="inside"), limit.one("acme", "ana"):
        raise ValueError("inside")
    assert limit.taken == 0


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(1, 500)), max_size=100), st.floats(1, 50))
def test_a_key_that_exceeds_its_bucket_waits_until_it_is_refilled(
    steps: list[tuple[float, float]], rate: float
) -> None:
    now, spent, largest = 0.0, 0.0, 0.0
    rates = limit_of(rate, lambda: now)
    for pause, amount in steps:
        now += pause
        largest = max(largest, amount)
        with suppress(TooMany):
            rates.take(("acme", "ana"), amount)
            spent += amount
        assert spent <= BURST_SECONDS * rate + rate * now + largest + 1e-6


def test_more_keys_give_a_tenant_no_higher_rate() -> None:
    rates = limit_of(2, tenant_rate=2)
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
    had_response: set[Callable[[], None]] = set()
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
                    assert victim not in had_response or counts[networks[victim]] > counts[address]
                is_idle[close] = True
            else:
                assert was_full
                assert counts[address] == max(counts.values())
                own = [each for each in is_idle if is_idle[each] and networks[each] == address]
                assert had_response.issuperset(own)
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
                    limit.set_idle(chosen, had_response=True)
                    had_response.add(chosen)
                is_idle[chosen] = what == "idle"
        assert len(limit) == len(is_idle) <= most


def test_the_addresses_that_one_host_may_own_are_one_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") == network_of("::ffff:192.0.2.1") != network_of("192.0.2.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("") == ""
