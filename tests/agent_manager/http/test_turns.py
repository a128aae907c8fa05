"""A tenant's large posts, its refusals, and what its agents write: none of it is paid for by another tenant."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.callers import People
from support.serving import served
from support.waiting import until_async

from agent_manager.http.limits import Refusals
from eventstore import Append, EventStore, MessageAdded, NewEvent, Settings
from eventstore.batching import GROUP_EVENTS, PendingAppend, in_turn, next_group
from projections import Reader
from projections.apply import Applier
from projections.checkpoints import lagging
from projections.projection import named


@given(st.lists(st.tuples(st.floats(0, 0.1), st.sampled_from("ab")), max_size=100))
def test_refusals_of_a_key_are_answered_at_a_bounded_rate_and_in_bounded_time(steps: list[tuple[float, str]]) -> None:
    refusals = Refusals(50, 1.0)
    now = 0.0
    answered: dict[str, list[float]] = {"a": [], "b": []}
    for pause, key in steps:
        now += pause
        delay = refusals.delay(key, now)
        assert 0 <= delay <= 1
        if not answered[key] or now >= max(answered[key]) + 0.02:
            assert delay == 0, "whoever is not ahead of the pace is answered at once"
        if answered[key] and delay < 1:
            assert now + delay >= max(answered[key]) + 0.02 - 1e-9
        answered[key].append(now + delay)
