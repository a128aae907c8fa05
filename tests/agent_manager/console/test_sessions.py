"""Access to the console: signing in, the cookie, forged forms, scopes, tenants, and the headers of pages."""

from __future__ import annotations

import re

import httpx
import pytest
from support.callers import People
from support.console import Visitor
from support.serving import Served

from agent_manager.auth import TokenScope

pytestmark = pytest.mark.shared_database


async def test_a_visitor_signs_in_with_a_key_and_comes_back_to_the_page_that_they_wanted(
    protected: Served, people: People
) -> None:
    ana = await people.person("acme", "ana")
    async with httpx.AsyncClient(base_url=protected.url) as client:
        refused = await client.get("/console/conversations?state=archived")
        assert refused.status_code == 303
        assert refused.headers["location"] == "./sign-in?next=conversations%3Fstate%3Darchived"
        form = await client.get("/console/sign-in?next=conversations%3Fstate%3Darchived")
        assert 'value="conversations?state=archived"' in form.text
        done = await client.post(
            "/console/sign-in", data={"token": f"  {ana.token}\n", "next": "conversations?state=archived"}
        )
        assert (done.status_code, done.headers["location"]) == (303, "./conversations?state=archived")
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "path" not in cookie, "so that a browser takes the folder, whatever prefix a proxy adds"
        page = await client.get("/console/conversations?state=archived")
        assert page.status_code == 200
        assert ana.token not in page.text
        behind_tls = await client.post(
            "/console/sign-in", data={"token": ana.token}, headers={"Origin": "https://x.example", "Host": "x.example"}
        )
        assert "secure" in behind_tls.headers["set-cookie"].lower()
        out = await client.post("/console/sign-out")
        assert out.status_code == 303
        assert (await client.get("/console/conversations")).status_code == 303


async def test_a_token_that_is_not_valid_leads_back_to_the_form_and_is_forgotten(protected: Served) -> None:
    async with httpx.AsyncClient(base_url=protected.url, follow_redirects=True) as client:
        form = await client.post("/console/sign-in", data={"token": "es_wrong", "next": "conversations"})
        assert (form.status_code, "The token is invalid" in form.text) == (401, True)
        assert not client.cookies
        broken = await client.post("/console/sign-in", data={"token": "a;b"})
        assert (broken.status_code, "neither a key nor a JWT" in broken.text) == (422, True)


@pytest.mark.parametrize("next", ["//evil.example", "https://evil.example", "\\\\evil.example", "javascript:alert(1)"])
async def test_signing_in_never_leads_to_another_site(here: Served, next: str) -> None:
    done = await here.client.post("/console/sign-in", data={"token": "x", "next": next})
    assert done.headers["location"].startswith("./")


async def test_a_cookie_is_of_no_use_for_the_api(protected: Served, people: People) -> None:
    ana = await people.person("acme", "ana")
    refused = await protected.client.get("/v1/conversations", headers={"Cookie": f"console_token={ana.token}"})
    assert refused.status_code == 401


async def test_a_form_without_the_tag_of_its_session_changes_nothing(protected: Served, people: People) -> None:
    ana, bob = await people.person("acme", "ana", *TokenScope), await people.person("acme", "bob", *TokenScope)
    trip = (await ana.post("/v1/conversations", {"name": "Trip"})).json()["id"]
    page = f"conversations/{trip}"
    async with Visitor(protected.url, ana.token) as visitor, Visitor(protected.url, bob.token) as other:
        assert await other.tag(page) != await visitor.tag(page)
        for fields in ({}, {"csrf": ""}, {"csrf": await other.tag(page)}):
            refused = await visitor.client.post(f"{page}/rename", data=fields | {"name": "Stolen"})
            assert refused.status_code == 403, fields
        as_json = await visitor.client.post(f"{page}/rename", json={"name": "Stolen"})
        assert as_json.status_code == 415
        foreign = {"csrf": await visitor.tag(page), "name": "Stolen"}
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            assert (await visitor.client.post(f"{page}/rename", data=foreign, headers=headers)).status_code == 403
        assert '<h1 id="title">Trip</h1>' in await visitor.get(page)
        assert '<h1 id="title">Journey</h1>' in await visitor.send(page, f"{page}/rename", name="Journey")


async def test_pages_run_no_script_but_the_files_of_the_server(here: Served) -> None:
    for path in ("", "conversations", "sign-in", "nothing-here"):
        page = await here.client.get(f"/console/{path}")
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|<style", page.text), path
        assert not re.search(r'(src|href|action)="(/|https?:)', page.text), "relative, for a proxy with a prefix"


async def test_each_scope_opens_its_pages_and_no_others(protected: Served, people: People) -> None:
    writer = await people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE)
    trip = (await writer.post("/v1/conversations", {"name": "Trip"})).json()["id"]
    async with Visitor(protected.url, writer.token) as visitor:
        page = await visitor.get(f"conversations/{trip}")
        assert "As of version" not in page
        for path in (
            "log",
            f"conversations/{trip}/events",
            f"conversations/{trip}/compare",
            f"conversations/{trip}?version=1",
        ):
            await visitor.get(path, status=403)
        for path in ("projections", "people", "operations"):
            await visitor.get(path, status=403)
            assert f'href="../{path}"' not in page
    auditor = await people.person("acme", "ana", TokenScope.AUDIT)
    async with Visitor(protected.url, auditor.token) as visitor:
        assert "conversation.created" in await visitor.get("log")
        await visitor.get("conversations", status=403)


async def test_a_visitor_sees_what_the_api_would_show_them(protected: Served, people: People) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    eve = await people.person("globex", "eve", *TokenScope)
    trip = (await ana.post("/v1/conversations", {"name": "Secret trip"})).json()["id"]
    await ana.post(f"/v1/conversations/{trip}/messages", {"role": "user", "content": "to Lisbon"})
    async with Visitor(protected.url, ana.token) as hers:
        assert "Secret trip" in await hers.get("conversations")
        assert "to Lisbon" in await hers.get(f"conversations/{trip}.json")
    for other in (bob, eve):
        async with Visitor(protected.url, other.token) as visitor:
            for path in ("conversations", "conversations?q=lisbon"):
                assert "Secret" not in await visitor.get(path)
            for path in ("", "/messages/2", "/export.json", "/live"):
                await visitor.get(f"conversations/{trip}{path}", status=404)


async def test_preferences_are_kept_and_the_language_is_that_of_the_browser(here: Served) -> None:
    async with Visitor(here.url) as visitor:
        assert "<h1>Conversas</h1>" in await visitor.get("conversations", accept_language="de, pt-BR;q=0.8, en;q=0.5")
        assert "<h1>Conversations</h1>" in await visitor.get("conversations", accept_language="de")
        await visitor.client.post("preferences", data={"theme": "dark", "language": "pt", "next": "conversations"})
        page = await visitor.get("conversations")
        assert '<html lang="pt-BR" data-theme="dark">' in page
