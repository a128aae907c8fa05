"""The OpenAPI against the server, by schemathesis: whatever fits it, or does not, is answered as it says."""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from support.callers import People, Person
from support.examples import examples
from support.serving import Served

from agent_manager.auth import TokenScope

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 6
"""Requests to each endpoint."""
BEHIND = {"NotCaughtUp", "AgentUnreachable", "AgentRefused"}
"""Things that may be missing when a request names them: a position that is not there yet, an agent that is nowhere."""


def ask_everything(description: dict[str, Any], url: str, token: str) -> int:
    """Asks all endpoints, and fails unless each answer is as described; gives the number of requests."""
    asked = 0
    of_openapi = importlib.import_module("schemathesis.specs.openapi.checks")
    checks = [
        schemathesis.checks.not_a_server_error,
        of_openapi.status_code_conformance,
        of_openapi.content_type_conformance,
        of_openapi.response_headers_conformance,
        of_openapi.response_schema_conformance,
    ]
    for found in schemathesis.openapi.from_dict(description).get_all_operations():
        operation = found.ok()
        if operation.path.endswith(("/stream", "/replay")):  # they are events, not the text that is described
            continue

        @given(case=operation.as_strategy())
        @examples(EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            answer = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"})
            if answer.status_code in (502, 503) and detail_of(answer) in BEHIND:
                return
            case.validate_response(answer, checks=checks)

        ask()
    return asked


def detail_of(answer: Any) -> str:
    """The kind of error that an answer tells of."""
    body = json.loads(answer.content)
    return str(body.get("title") or body["error"]["data"]["type"])


@pytest.mark.slow
async def test_generated_requests_conform_to_the_openapi_document(protected: Served, people: People) -> None:
    protected.server_context.reader.timeout = 0.05
    person: Person = await people.person("acme", "ana", *TokenScope)
    await person.post("/v1/conversations", {"id": "trip"})
    description = (await protected.client.get("/openapi.json")).json()
    asked = await asyncio.to_thread(ask_everything, description, protected.url, person.token)
    assert asked > 30 * EXAMPLES / 2
