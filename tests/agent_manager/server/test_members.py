"""Sharing a conversation: what was changed holds from the instant of the answer, for reads, writes and streams."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support.callers import People, Person
from support.eventsource import EventSource
from support.serving import Served

from agent_manager.auth import TokenScope
from agent_manager.server.routes import members
from eventstore import ConversationUnshared

pytestmark = pytest.mark.shared_database


async def begun(person: Person) -> str:
    """The path of a conversation with a message in it."""
    made = await person.post("/v1/conversations", {"name": "Trip"})
    path = f"/v1/conversations/{made.json()['id']}"
    assert (await say(person, path, "hello")).status_code == 201
    return path


async def say(person: Person, path: str, text: str) -> httpx.Response:
    """Adds a message."""
    return await person.post(f"{path}/messages", {"role": "user", "content": text})


async def share(person: Person, path: str, access: str = "read", user: str = "bob") -> int:
    """The status of sharing."""
    return (await person.post(f"{path}/members", {"user": user, "access": access})).status_code


async def unshare(person: Person, path: str, user: str = "bob") -> int:
    """The status of taking that back."""
    return (await person.client.delete(f"{path}/members/{user}")).status_code


async def listed(person: Person) -> list[Any]:
    """Return the ids that a caller sees, by both kinds of endpoints."""
    items = (await person.get("/v1/conversations")).json()["items"]
    old = (await person.post("/conversation/list")).json()["result"]
    assert [each["id"] for each in items] == [each["conversation_id"] for each in old]
    return [each["id"] for each in items]


async def test_members_read_and_write_according_to_their_access(protected: Served, people: People) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    path = await begun(ana)
    assert await listed(bob) == []
    assert (await ana.get(f"{path}/members")).json()["items"] == [{"user": "ana", "access": "own"}]

    assert await share(ana, path) == 201
    assert await listed(bob) == [path.rpartition("/")[2]]
    assert (await bob.get(f"{path}/messages")).json()["items"][0]["content"] == "hello"
    assert len((await bob.get(f"{path}/members")).json()["items"]) == 2
    for refused in (
        (await say(bob, path, "no")).status_code,
        (await bob.client.patch(path, json={"name": "mine"})).status_code,
        (await bob.client.delete(path)).status_code,
        await share(bob, path, user="eve"),
        await unshare(bob, path, user="ana"),
    ):
        assert refused == 403

    assert await share(ana, path, "write") == 201
    assert (await say(bob, path, "yes")).status_code == 201
    assert (await bob.client.delete(path)).status_code == 403
    assert await share(bob, path, user="eve") == 403
    assert (await ana.get(f"{path}/members")).json()["items"][1] == {"user": "bob", "access": "write"}

    assert await unshare(ana, path) == 204
    assert await listed(bob) == []
    assert (await bob.get(path)).status_code == 404
    assert (await say(bob, path, "no")).status_code == 404
    assert (await bob.get(f"{path}/members")).status_code == 404


async def test_the_members_of_a_conversation_are_read_a_part_at_a_time(
    protected: Served, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await people.person("acme", "ana")
    path = await begun(ana)
    users = ["aaron", "bob", "carol", "dan", "é"]
    for number, user in enumerate(users):
        assert await share(ana, path, ("read", "write")[number % 2], user) == 201
    for at_once in (len(users) + 2, len(users) + 1, 4, 1):
        monkeypatch.setattr(members, "READ_AT_ONCE", at_once)
        assert await share(ana, path) == 201  # so that no earlier response is used
        found = (await ana.get(f"{path}/members")).json()["items"]
        assert [member["user"] for member in found] == ["ana", *users]
        assert [member["access"] for member in found] == ["own", "read", "read", "read", "write", "read"]


async def test_an_administrator_sees_and_changes_all_of_the_tenant(protected: Served, people: People) -> None:
    ana, admin = await people.person("acme", "ana"), await people.person("acme", "root", *TokenScope)
    other = await people.person("globex", "root", *TokenScope)
    path = await begun(ana)
    assert len(await listed(admin)) == 1
    assert await listed(other) == []
    assert (await say(admin, path, "by root")).status_code == 201
    assert await share(admin, path, user="eve") == 201
    assert (await other.get(path)).status_code == 404


async def test_the_access_of_an_owner_cannot_be_changed(protected: Served, people: People) -> None:
    ana, bob, admin = [await people.person("acme", name, *scopes) for name, scopes in
                       (("ana", ()), ("bob", ()), ("root", tuple(TokenScope)))]  # fmt: skip
    path = await begun(ana)
    assert await share(ana, path) == 201
    version = (await ana.get(path)).json()["version"]
    for owner in (ana, admin):
        assert await share(owner, path, user="ana") == 409
        assert await unshare(owner, path, user="ana") == 409
    assert await share(bob, path, user="ana") == 403
    assert (await ana.get(path)).json()["version"] == version
    assert (await ana.get(f"{path}/members")).json()["items"][0] == {"user": "ana", "access": "own"}


@pytest.mark.parametrize("name", ["conversations", "messages", "search", "log", "statistics"])
async def test_a_cached_response_is_not_served_after_sharing_ends(protected: Served, people: People, name: str) -> None:
    """Sharing ends past this server, which finds it only by its own queries."""
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    trip = await begun(ana)
    assert await share(ana, trip) == 201
    last = (await say(ana, trip, "hello again")).json()["position"]
    path, params = f"/v1/{name}", {"q": "hello"} if name == "search" else {}
    await bob.get(path, params=params | ({} if name == "log" else {"at_least": last}))
    shared = await bob.get(path, params=params)
    assert trip.rpartition("/")[2] in shared.text or '"conversations":1' in shared.text, shared.text
    await protected.store.append(trip.rpartition("/")[2], [ConversationUnshared(user="bob")], tenant=ana.tenant)
    for tag in ("", shared.headers["etag"]):
        again = await bob.get(path, params=params, headers={"If-None-Match": tag} if tag else {})
        assert again.status_code == 200
        assert trip.rpartition("/")[2] not in again.text
        assert again.text != shared.text


async def test_a_stream_ends_when_its_conversation_is_no_longer_shared(protected: Served, people: People) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    path = await begun(ana)
    assert await share(ana, path) == 201
    async with EventSource(protected.address, f"{path}/stream", token=bob.token) as source:
        position = (await say(ana, path, "for both")).json()["position"]
        assert (await source.next()).id == position
        assert await unshare(ana, path) == 204
        await say(ana, path, "for nobody else")
        with pytest.raises(EOFError):
            await source.next()


async def test_a_log_stream_continues_without_a_conversation_once_it_is_unshared(
    protected: Served, people: People
) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    path = await begun(ana)
    assert await share(ana, path) == 201
    async with EventSource(protected.address, "/v1/log/stream", token=bob.token) as source:
        position = (await say(ana, path, "for both")).json()["position"]
        assert (await source.next()).id == position
        await unshare(ana, path)
        await say(ana, path, "for nobody else")
        own = await bob.post("/v1/conversations", {})
        assert (await source.next()).data["conversation_id"] == own.json()["id"]


async def test_idempotency_keys_belong_to_a_user(protected: Served, people: People) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    path = await begun(ana)
    await share(ana, path, "write")
    message, headers = {"role": "user", "content": "the same"}, {"Idempotency-Key": "1"}
    first = await ana.post(f"{path}/messages", message, headers=headers)
    assert (await ana.post(f"{path}/messages", message, headers=headers)).json() == first.json()
    other = await bob.post(f"{path}/messages", message, headers=headers)
    assert (first.status_code, other.status_code) == (201, 201)


@pytest.mark.parametrize("body", [{}, {"user": ""}, {"user": "x" * 256}, {"user": "bob", "access": "own"}, {"user": 1}])
async def test_an_invalid_member_is_rejected(protected: Served, people: People, body: dict[str, Any]) -> None:
    ana = await people.person("acme", "ana")
    path = await begun(ana)
    assert (await ana.post(f"{path}/members", body)).status_code == 422
