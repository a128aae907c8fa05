"""The cost of writes and rejections of a tenant counts against that tenant only."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from support.callers import People, Person
from support.serving import served

from agent_manager.server.limits import RejectionDelays
from eventstore import EventStore, Settings


@given(st.lists(st.tuples(st.floats(0, 0.1), st.sampled_from("ab")), max_size=100))
def test_rejections_of_a_key_are_sent_at_a_bounded_rate_and_in_bounded_time(steps: list[tuple[float, str]]) -> None:
    rejections = RejectionDelays(50, 1.0)
    now = 0.0
    last: dict[str, float] = {}
    for pause, key in steps:
        now += pause
        delay = rejections.delay(key, now)
        assert 0 <= delay <= 1
        if key not in last or now >= last[key] + 0.02:
            assert delay == 0, "the first rejection is sent immediately"
        elif delay < 1:
            assert now + delay >= last[key] + 0.02 - 1e-9
        last[key] = now + delay


async def test_sent_messages_and_their_answers_count_as_events(settings: Settings) -> None:
    limits = {"events_per_second": 1, "bytes_per_second": 1e6}
    message = {"role": "user", "content": "hello"}
    async with (
        EventStore(settings.model_copy(update=limits)) as store,
        served(store, answer=lambda *_: "yes", works=False, requires_tokens=True) as here,
    ):
        people = People(here.store, here.url)

        async def sends(person: Person) -> int:
            """Return how many messages are taken before one is refused."""
            made = await person.post("/conversation/create")
            conversation = made.json()["result"]["conversation_id"]
            for number in range(20):
                params = message | {"contextId": conversation, "messageId": f"m{number}"}
                for path, body in (
                    ("/message/send", {"params": params}),
                    (f"/v1/conversations/{conversation}/send", message),
                ):
                    answer = await person.post(path, body)
                    if answer.status_code == 429:
                        return number
            return 20

        ana, bob, eve = [
            await people.person(tenant, name) for tenant, name in (("acme", "ana"), ("acme", "bob"), ("globex", "eve"))
        ]
        assert await sends(ana) < 20
        assert (await eve.post("/conversation/create")).status_code == 200
        for _ in range(20):
            if (await bob.post("/conversation/create")).status_code == 429:
                break
        else:
            raise AssertionError("another key of the tenant has a rate of its own")
        await people.close()


async def test_large_posts_are_rejected_unread_once_the_events_of_their_tenant_are_spent(
    settings: Settings,
) -> None:
    limits = {"events_per_second": 100}
    async with (
        EventStore(settings.model_copy(update=limits)) as store,
        served(store, works=False, requires_tokens=True) as here,
    ):
        people = People(here.store, here.url)
        ana, eve = await people.person("acme", "ana"), await people.person("globex", "eve")
        path = f"/v1/conversations/{(await ana.post('/v1/conversations')).json()['id']}/events"
        body = {"events": [{"event_type": "note", "content": "x" * 50}] * 5000}
        answers = await asyncio.gather(*(ana.post(path, body) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201, *[429] * 5]
        broken = await ana.post(path, content=b"this is not JSON")
        assert broken.status_code == 429, "its body was not looked at"
        assert (await eve.post("/v1/conversations")).status_code == 201
        await people.close()


async def test_every_event_of_a_large_post_is_validated(settings: Settings) -> None:
    async with EventStore(settings) as store, served(store, works=False) as here:
        conversation = await here.begin()
        events: list[object] = [{"event_type": "note", "content": number} for number in range(200)]
        path = f"/v1/conversations/{conversation}/events"
        for wrong, name in (
            ({"event_type": ""}, "events.150.event_type"),
            ({"kind": 1}, "events.150."),
            (7, "events.150"),
        ):
            answer = await here.client.post(path, json={"events": [*events[:150], wrong, *events[150:]]})
            assert answer.status_code == 422
            assert any(error["name"].startswith(name) for error in answer.json()["errors"]), answer.text
        answer = await here.client.post(path, json={"events": events})
        assert [event["version"] for event in answer.json()["events"]] == list(range(2, 202))
