"""Artifacts of google-adk: versions, references, rewinding, and their bytes in the table of files."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("google.adk", reason="google-adk is not installed (extra: adk)")

from google.adk.agents import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.artifacts import artifact_util
from google.adk.artifacts.base_artifact_service import ArtifactVersion
from google.adk.cli.service_registry import get_service_registry
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.runners import Runner
from google.genai import types

from agent_manager.adapters.google_adk import EventStoreArtifactService, EventStoreSessionService, register_services
from eventstore import Caller, EventStore
from projections import Reader, catch_up

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

OF_USER: dict[str, Any] = {"app_name": "app", "user_id": "ana"}
OF_SESSION: dict[str, Any] = OF_USER | {"session_id": "s"}
PNG = types.Part.from_bytes(data=b"\x89PNG" * 9, mime_type="image/png")
PARTS = [
    PNG,
    types.Part(text="olá"),
    types.Part(inline_data=types.Blob(data=b"", mime_type="text/plain", display_name="empty")),
    types.Part(file_data=types.FileData(file_uri="gs://bucket/file", mime_type="text/plain")),
]


@pytest.fixture
def service(store: EventStore) -> EventStoreArtifactService:
    return EventStoreArtifactService(store)


async def count(store: EventStore, table: str) -> int:
    [(number,)] = await store.tables(Caller(store.tenant)).fetch(f"SELECT count(*) FROM {table}")
    return int(number)


async def test_versions_read_back_equal(service: EventStoreArtifactService) -> None:
    for number, part in enumerate(PARTS):
        assert await service.save_artifact(**OF_SESSION, filename="a/b.txt", artifact=part) == number
    for number, part in enumerate(PARTS):
        assert await service.load_artifact(**OF_SESSION, filename="a/b.txt", version=number) == part
    assert await service.load_artifact(**OF_SESSION, filename="a/b.txt") == PARTS[-1]
    assert await service.list_versions(**OF_SESSION, filename="a/b.txt") == [0, 1, 2, 3]
    for number in (4, -1):
        assert await service.load_artifact(**OF_SESSION, filename="a/b.txt", version=number) is None
        assert await service.get_artifact_version(**OF_SESSION, filename="a/b.txt", version=number) is None


async def test_what_is_known_of_a_version(service: EventStoreArtifactService) -> None:
    await service.save_artifact(**OF_SESSION, filename="a", artifact=PNG, custom_metadata={"k": [1, None]})
    await service.save_artifact(**OF_USER, filename="user:a", artifact={"text": "camel"})
    [found] = await service.list_artifact_versions(**OF_SESSION, filename="a")
    uri = "artifact://apps/app/users/ana/sessions/s/artifacts/a/versions/0"
    assert found == ArtifactVersion(
        version=0,
        canonical_uri=uri,
        custom_metadata={"k": [1, None]},
        create_time=found.create_time,
        mime_type="image/png",
    )
    assert await service.get_artifact_version(**OF_SESSION, filename="a") == found
    of_user = await service.get_artifact_version(**OF_SESSION, filename="user:a")
    assert of_user is not None
    assert of_user.mime_type == "text/plain"


async def test_artifacts_of_a_user_are_there_in_all_sessions(service: EventStoreArtifactService) -> None:
    await service.save_artifact(**OF_SESSION, filename="user:photo", artifact=PNG)
    await service.save_artifact(**OF_SESSION, filename="note", artifact=PARTS[1])
    other = OF_USER | {"session_id": "other"}
    assert await service.load_artifact(**other, filename="user:photo") == PNG
    assert await service.load_artifact(**other, filename="note") is None
    assert await service.list_artifact_keys(**OF_SESSION) == ["note", "user:photo"]
    assert await service.list_artifact_keys(**other) == ["user:photo"] == await service.list_artifact_keys(**OF_USER)
    with pytest.raises(InputValidationError, match="Session ID must be provided"):
        await service.save_artifact(**OF_USER, filename="note", artifact=PNG)


async def test_an_artifact_that_is_stored_again_after_its_deletion_begins_anew(
    service: EventStoreArtifactService,
) -> None:
    for _ in range(2):
        assert await service.save_artifact(**OF_SESSION, filename="a", artifact=PNG) == 0
        assert await service.save_artifact(**OF_SESSION, filename="a", artifact=PARTS[1]) == 1
        await service.delete_artifact(**OF_SESSION, filename="a")
        await service.delete_artifact(**OF_SESSION, filename="a")
        assert await service.load_artifact(**OF_SESSION, filename="a") is None
        assert await service.list_artifact_keys(**OF_SESSION) == []
        assert await service.list_versions(**OF_SESSION, filename="a") == []


async def test_concurrent_writers_get_versions_of_their_own(
    service: EventStoreArtifactService, store: EventStore
) -> None:
    numbers = await asyncio.gather(
        *(service.save_artifact(**OF_SESSION, filename="a", artifact=PNG) for _ in range(8)),
        *(service.save_artifact(**OF_SESSION, filename="b", artifact=PNG) for _ in range(4)),
    )
    assert sorted(numbers[:8]) == list(range(8))
    assert sorted(numbers[8:]) == list(range(4))
    assert await count(store, "blobs") == 1


async def test_references_are_followed_within_their_scope(service: EventStoreArtifactService) -> None:
    def reference(filename: str, user: str = "ana", session: str | None = "s") -> types.Part:
        uri = artifact_util.get_artifact_uri("app", user, filename, 0, session)
        return types.Part(file_data=types.FileData(file_uri=uri))

    await service.save_artifact(**OF_SESSION, filename="a0", artifact=PNG)
    for number in range(1, 7):
        await service.save_artifact(**OF_SESSION, filename=f"a{number}", artifact=reference(f"a{number - 1}"))
    assert await service.load_artifact(**OF_SESSION, filename="a5") == PNG
    with pytest.raises(InputValidationError, match="recursion depth"):
        await service.load_artifact(**OF_SESSION, filename="a6")
    for wrong in (reference("a0", user="bob"), reference("a0", session="other")):
        with pytest.raises(InputValidationError, match="same"):
            await service.save_artifact(**OF_SESSION, filename="b", artifact=wrong)
    invalid = types.Part(file_data=types.FileData(file_uri="artifact://x"))
    with pytest.raises(InputValidationError, match="Invalid artifact reference"):
        await service.save_artifact(**OF_SESSION, filename="b", artifact=invalid)


@pytest.mark.parametrize("part", [types.Part(), types.Part(function_call=types.FunctionCall(name="f"))])
async def test_only_files_and_texts_are_artifacts(service: EventStoreArtifactService, part: types.Part) -> None:
    with pytest.raises(InputValidationError, match="Not supported"):
        await service.save_artifact(**OF_SESSION, filename="a", artifact=part)


@pytest.mark.parametrize("name", ["app_name", "user_id", "session_id"])
async def test_names_that_are_paths_are_refused(service: EventStoreArtifactService, name: str) -> None:
    with pytest.raises(InputValidationError, match=name):
        await service.load_artifact(**OF_SESSION | {name: "../x"}, filename="a")


async def test_artifacts_are_not_listed_among_the_active_conversations(
    service: EventStoreArtifactService, store: EventStore
) -> None:
    await service.save_artifact(**OF_SESSION, filename="a", artifact=PNG)
    await catch_up(store)
    [conversation] = await Reader(store).conversations()
    assert (conversation.is_active, conversation.message_count) == (False, 0)
    session = await EventStoreSessionService(store).create_session(**OF_SESSION)
    assert [each.id for each in (await EventStoreSessionService(store).list_sessions(**OF_USER)).sessions] == [
        session.id
    ]


async def test_artifacts_belong_to_a_user_of_the_store(store: EventStore) -> None:
    service = EventStoreArtifactService(store, owned_by_user=True)
    await service.save_artifact(**OF_SESSION, filename="a", artifact=PNG)
    assert await service.load_artifact(**OF_SESSION, filename="a") == PNG
    await catch_up(store)
    assert len(await Reader(store, caller=Caller(store.tenant, "ana")).conversations()) == 1
    assert len(await Reader(store, caller=Caller(store.tenant, "bob")).conversations()) == 0


async def test_a_session_is_rewound_with_its_artifacts(service: EventStoreArtifactService, store: EventStore) -> None:
    class Painter(BaseAgent):
        async def _run_async_impl(self, ctx: InvocationContext) -> Any:
            number = len(ctx.session.events)
            version = await service.save_artifact(**OF_SESSION, filename=f"p{number}", artifact=PNG)
            shared = await service.save_artifact(**OF_SESSION, filename="p", artifact=types.Part(text=f"{number}"))
            yield Event(
                author=self.name,
                invocation_id=ctx.invocation_id,
                actions=EventActions(
                    state_delta={"last": number, f"k{number}": True},
                    artifact_delta={f"p{number}": version, "p": shared},
                ),
            )

    sessions = EventStoreSessionService(store)
    runner = Runner(agent=Painter(name="painter"), app_name="app", session_service=sessions, artifact_service=service)
    await sessions.create_session(**OF_SESSION)
    for _ in range(2):
        message = types.Content(role="user", parts=[types.Part(text="paint")])
        async for _ in runner.run_async(user_id="ana", session_id="s", new_message=message):
            pass
    session = await sessions.get_session(**OF_SESSION)
    assert session is not None
    assert session.state == {"last": 3, "k1": True, "k3": True}
    invocation = session.events[2].invocation_id
    await runner.rewind_async(user_id="ana", session_id="s", rewind_before_invocation_id=invocation)
    session = await sessions.get_session(**OF_SESSION)
    assert session is not None
    assert session.state == {"last": 1, "k1": True, "k3": None}
    assert await service.load_artifact(**OF_SESSION, filename="p3") is None
    assert await service.load_artifact(**OF_SESSION, filename="p1") == PNG
    assert await service.load_artifact(**OF_SESSION, filename="p") == types.Part(text="1")


async def test_a_service_opens_its_own_store_from_a_uri(database_url: str, store: EventStore) -> None:
    register_services()
    uri = database_url.replace("postgresql://", "eventstore://")
    uri += f"{'&' if '?' in uri else '?'}tenant={store.tenant}"
    service = get_service_registry().create_artifact_service(uri, agents_dir=".")
    assert isinstance(service, EventStoreArtifactService)
    async with service:
        await service.save_artifact(**OF_SESSION, filename="a", artifact=PNG)
    assert await EventStoreArtifactService(store).load_artifact(**OF_SESSION, filename="a") == PNG
