"""No request to the console takes the server from others: what it makes is bounded, and made beside the event loop."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.callers import People
from support.console import Visitor, console_routes
from support.examples import examples
from support.longest import Longest
from support.serving import Served, served

from agent_manager.auth import TokenScope
from agent_manager.console.chat import MAX_BLOCKS, MAX_LIST, chat_messages, number_that_fits
from agent_manager.console.rendering import pretty, preview
from eventstore import EventStore, MessageAdded, Settings

pytestmark = pytest.mark.shared_database

ODD = (
    "", "x", "live", "-1", "0", "1", "9" * 40, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "a,b", "[]",
    "é", "%", "..", "x.json", "\U0001f600", "newest", "deleted", "true", "none", "Nowhere/City", "title", "content",
    "row", "more", "state", "results", "aside", "body", "findings", "older", "scripts",
)  # fmt: skip
TEXTS = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20))
PARAMETERS = (
    "q", "state", "by", "actor", "since", "until", "after", "version", "time", "from", "older", "newer", "type",
    "types", "text", "before", "order", "a", "b", "id", "table", "zone", "next", "failed", "download",
)  # fmt: skip
FIELDS = (
    "token", "token[]", "next", "next[]", "csrf", "csrf[]", "theme", "theme[]", "language", "name", "name[]",
    "is_active", "version", "user", "user[]", "access", "actor", "scopes", "scopes[]", "days", "key", "tenant",
    "suspended", "disabled", "kind", "expected_version",
)  # fmt: skip
PATHS = sorted((method, route.path) for route in console_routes() for method in route.methods or ())


@asynccontextmanager
async def limited(settings: Settings, *, requires_tokens: bool = False, **limits: Any) -> AsyncIterator[Served]:
    """A server with other limits."""
    async with (
        EventStore(settings.model_copy(update=limits)) as store,
        served(store, requires_tokens=requires_tokens) as here,
    ):
        yield here


@pytest.fixture
async def begun(here: Served) -> Served:
    """A server with a conversation, a task and a file."""
    await here.begin(id="trip", name="n")
    await here.say("trip", "a train to Lisbon")
    file = {"kind": "file", "file": {"name": "n", "bytes": "aGVsbG8="}}
    await here.say("trip", "", messageId="m", parts=[file, {"kind": "data", "data": {"x": [1]}}])
    task = {"event_type": "task.created", "content": {"task_id": "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"}}
    await here.client.post("/v1/conversations/trip/events", json={"events": [task]})
    return here


@given(data=st.data())
@examples(200)
async def test_no_request_to_the_console_causes_a_server_error(begun: Served, data: st.DataObject) -> None:
    method, path = data.draw(st.sampled_from([each for each in PATHS if "doctor" not in each[1]]))
    for name in ("conversation", "version", "file_id", "task", "artifact", "part", "position", "name", "path"):
        known = {"conversation": "trip", "version": "3", "position": "1", "name": "messages"}.get(name, "0")
        value = data.draw(st.one_of(st.just(known), TEXTS)) if f"{{{name}" in path else ""
        path = path.replace(f"{{{name}}}", _escaped(value)).replace(f"{{{name}:path}}", _escaped(value))
    parameters = data.draw(st.lists(st.tuples(st.sampled_from(PARAMETERS), TEXTS), max_size=3))
    headers = {
        name: value.encode()
        for name, value in data.draw(
            st.lists(st.tuples(st.sampled_from(("HX-Target", "Accept-Language", "Cookie", "Range")), TEXTS), max_size=3)
        )
        if value.isprintable()
    }
    fields = data.draw(st.lists(st.tuples(st.sampled_from(FIELDS), TEXTS), max_size=4)) if method == "POST" else []
    if path.endswith("/live"):
        return
    if data.draw(st.booleans()):
        fields = [*fields, ("csrf", await _tag(begun))]
    form = {"content": _form(fields), "headers": headers | {"Content-Type": "application/x-www-form-urlencoded"}}
    more = form if method == "POST" else {"headers": headers}
    found = await begun.client.request(method, path, params=parameters, **more)
    assert found.status_code < 500, (method, path, parameters, headers, fields, found.text)


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode()) or "x"


def _form(fields: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{_escaped(name)}={_escaped(value) if value else ''}" for name, value in fields).encode()


async def _tag(here: Served) -> str:
    async with Visitor(here.url) as visitor:
        return await visitor.tag("conversations/trip")


async def test_forms_that_need_no_token_are_small_and_may_have_any_fields(protected: Served) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("sign-in", "preferences"):
        for fields in ("token[]=x", "token=x&token[]=y", "token[]=x&token=y", "theme[]=dark", "next[]=x", "="):
            sent = await protected.client.post(f"/console/{path}", content=fields, headers=headers)
            assert sent.status_code in (303, 422), (path, fields, sent.text)
        large = await protected.client.post(f"/console/{path}", content=b"token=" + b"%41" * 6000, headers=headers)
        assert (large.status_code, "16,384 bytes" in large.text) == (413, True), path


async def test_pages_that_need_no_token_are_limited_by_address_until_one_is_shown(settings: Settings) -> None:
    async with limited(settings, requires_tokens=True, rate_per_second=5) as here:
        people = People(here.store, here.url)
        ana = await people.person("acme", "ana")
        async with Visitor(here.url, ana.token) as visitor:
            await visitor.get("conversations")
            asked = await asyncio.gather(*(here.client.get("/console/sign-in") for _ in range(20)))
            refused = [each for each in asked if each.status_code == 429]
            assert len(refused) >= 5
            assert "requests without a token of one address" in refused[0].json()["detail"]
            assert refused[0].headers["retry-after"]
            assert (await here.client.get("/health")).status_code == 200
            assert 'name="token"' in await visitor.get("sign-in"), "who has shown a token is known"
        await people.close()


async def test_a_large_response_of_any_endpoint_counts_against_the_budget(settings: Settings) -> None:
    async with limited(settings, response_bytes=2**20) as here:
        trip = await here.begin()
        for size in (100_000, 700_000):
            file = {"kind": "file", "file": {"name": "n", "bytes": "QUFB" * (size // 3)}}
            await here.say(trip, "", messageId=f"m{size}", parts=[file])
        last = await here.say(trip, "x" * 700_000)
        await here.client.get("/v1/conversations", params={"at_least": last["position"]})
        small, large = [f"/message/file/{UUID(trip).hex}-{version}-0" for version in (2, 3)]
        spool = here.server_context.response_cache.spool
        for _ in range(20):
            assert len((await here.client.get(small)).content) == 99_999
            for path in (large, f"/console/conversations/{trip}/files/{large[14:]}"):
                refused = await here.client.get(path)
                assert (refused.status_code, "EVENTSTORE_RESPONSE_BYTES" in refused.text) == (422, True), refused.text
        refused = await here.client.get(f"/console/conversations/{trip}/messages/4.json")
        assert refused.status_code == 422
        assert (await here.client.get(f"/console/conversations/{trip}/messages/4")).status_code == 200
        gc.collect()
        assert spool.used < 100_000, "what was sent is released"


def test_the_beginning_of_a_large_value_is_shown_without_the_rest() -> None:
    class Endless(list[int]):
        """A list that may be looked at only at its beginning."""

        def __iter__(self) -> Any:
            yield from range(1000)
            raise AssertionError("read to its end")

    value = {"x": Endless([1])}
    assert pretty(value, 100).endswith("…")
    assert preview(value).startswith('{"x": [0, 1, 2')


def test_a_message_of_many_parts_is_shown_up_to_a_limit() -> None:
    from types import SimpleNamespace

    def message(parts: list[Any]) -> Any:
        return SimpleNamespace(
            sent={"role": "user", "parts": parts}, id=UUID(int=1), conversation_id=UUID(int=2), version=3,
            role="user", content="", error=None,
        )  # fmt: skip

    many, long = message([{"kind": "text", "text": "x"}] * 1000), message([{"kind": "text", "text": "x" * 3000}] * 100)
    for each, number in ((many, MAX_BLOCKS), (long, -(-MAX_LIST // 3000))):
        [shown] = chat_messages([each])
        assert [block.kind for block in shown.blocks] == ["text"] * number + ["more"]
    assert number_that_fits([long, long]) == 1


@pytest.mark.slow
async def test_making_a_large_page_does_not_block_other_requests(here: Served) -> None:
    trip = UUID(await here.begin(name="Trip"))
    texts = [{"kind": "text", "text": "[" * 50_000}] * 20
    data = {"kind": "data", "data": {"numbers": list(range(200_000))}}
    file = {"kind": "file", "file": {"name": "n", "mimeType": "image/png", "bytes": "QUFB" * 1_000_000}}
    for parts in (texts, [data], [file], [{"kind": "text", "text": "*a " * 1300}] * 9, [data]):
        result = await here.store.append(trip, [MessageAdded(role="user", content="", parts=parts)])
    await here.client.get("/v1/conversations", params={"at_least": result.position})
    async with Visitor(here.url) as visitor:
        await visitor.get("")
        gc.collect()
        gc.freeze()
        for path in (
            "", "?after=0", "?version=6", "/messages/2", "/messages/3", "/messages/3.json", "/events", "/events.json",
            f"/files/{trip.hex}-4-0", "/compare?a=1", "/export.json",
        ):  # fmt: skip
            await _is_beside_the_loop(visitor, f"conversations/{trip}{path}")
        for path in ("log", "log.json?text=999", f"log/{result.position}", "log.json"):
            await _is_beside_the_loop(visitor, path)
        gc.unfreeze()


async def _is_beside_the_loop(visitor: Visitor, path: str) -> None:
    longest = Longest()
    watching = asyncio.create_task(longest.watch())
    found = await visitor.client.get(path, timeout=120)  # the watching task, which never rests, delays it
    watching.cancel()
    assert found.status_code == 200, (path, found.text[:500])
    assert longest.seconds < 0.15, (path, longest.seconds)


@pytest.mark.slow
async def test_a_user_of_any_id_is_shown_and_their_conversations_only_to_who_may_read(
    protected: Served, people: People
) -> None:
    reader = await people.person("acme", "root", TokenScope.READ, TokenScope.ADMIN)
    admin = await people.person("acme", "root", TokenScope.ADMIN)
    ids = ["ana", "ana.json", "a/b", "..", ".", "a?b&id=ana", "a#b", "a%2Fb", "a b+c", "é", "'\"<x>", "live"]
    made = {}
    for user in ids:
        person = await people.person("acme", user)
        made[user] = (await person.post("/v1/conversations", {"name": f"of {ids.index(user)}"})).json()["id"]
    async with Visitor(protected.url, reader.token) as visitor:
        page = await visitor.get("people")
        for user in ids:
            found = json.loads((await visitor.client.get("people/user.json", params={"id": user})).text)
            assert (found["known"]["id"], [item["id"] for item in found["items"]]) == (user, [made[user]])
        links = [line.partition('"')[0] for line in page.split('href="./people/user?')[1:]]
        links.remove("id=root")
        for link in links:
            # the results, which are waited for as long as it takes
            shown = await visitor.get(f"people/user?{link.replace('&amp;', '&')}", hx_target="results")
            assert sum(f"of {number}<" in shown for number in range(len(ids))) == 1, link
        assert len(links) == len(ids)
    async with Visitor(protected.url, admin.token) as visitor:
        found = json.loads(await visitor.get("people/user.json?id=ana"))
        assert (found["known"]["id"], found["items"]) == ("ana", [])
