"""Artifacts of google-adk in the event store; see :mod:`agent_manager.adapters.google_adk`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from google.adk.artifacts import artifact_util
from google.adk.artifacts.base_artifact_service import ArtifactVersion, BaseArtifactService, ensure_part
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.sessions.state import State
from google.genai import types
from psycopg.rows import TupleRow

from agent_manager.a2a import Json
from agent_manager.adapters.blobs import load_blob, referring, store_blob
from agent_manager.adapters.google_adk_events import conversation_name
from agent_manager.adapters.google_adk_service import Service
from agent_manager.adapters.store_access import restart
from eventstore import (
    NO_STREAM,
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    Metadata,
    NewEvent,
    conversation_uuid,
)
from eventstore.database.queries import query
from eventstore.errors import ConversationIsDeleted, WrongExpectedVersion

ARTIFACT = "adk.artifact"
"""The type of the application event of a version of an artifact; without ``version``, the artifact was deleted."""


class EventStoreArtifactService(Service, BaseArtifactService):
    """Artifacts of google-adk in the event store: their bytes in the table of files, each version an event.

    The versions of a session's artifacts are a conversation beside that of the session, and so are those of a user's.
    As with google-adk's own services, they remain if the session is deleted.

    Args:
        store, owned_by_user: see :class:`EventStoreSessionService`.
    """

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: types.Part | dict[str, Any],
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Store a version of an artifact, durably, and return its number: 0, 1, 2 and so on.

        Raises:
            InputValidationError: the artifact is neither a file nor a text nor a reference that may be followed, or it
                is not of a user and no session is given.
            BlobTooLarge: its bytes are more than the limit.
        """
        place = _place(app_name, user_id, session_id, filename)
        return await self._access.finish(self._save(place, filename, ensure_part(artifact), custom_metadata or {}))

    async def load_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> types.Part | None:
        """Return a version of an artifact, the latest one if left out; None if it does not exist."""
        for remaining in range(_MAX_REFERENCES, -1, -1):
            place = _place(app_name, user_id, session_id, filename)
            part = await self._access.run(self._load(place, filename, version))
            if part is None or part in (types.Part(), _REWOUND):
                return None
            if not artifact_util.is_artifact_ref(part):
                return part
            assert part.file_data is not None
            target = artifact_util.resolve_artifact_reference(
                file_uri=str(part.file_data.file_uri),
                app_name=app_name,
                user_id=user_id,
                session_id=session_id,
                remaining_depth=remaining,
            )
            session_id, filename, version = target.session_id, target.filename, target.version
        raise AssertionError("google-adk refuses the last reference")

    async def list_artifact_keys(self, *, app_name: str, user_id: str, session_id: str | None = None) -> list[str]:
        """Return the names of the artifacts of a user, and of a session if one is given."""
        sessions = [None] if session_id is None else [None, session_id]
        places = [_place(app_name, user_id, each, "" if each else State.USER_PREFIX) for each in sessions]
        return await self._access.run(self._keys(places))

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Hide all versions of an artifact; the next one that is stored is version 0 again."""
        await self._access.finish(self._delete(_place(app_name, user_id, session_id, filename), filename))

    async def list_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[int]:
        """Return the numbers of the versions of an artifact."""
        versions = await self._access.run(self._versions(_place(app_name, user_id, session_id, filename), filename))
        return list(range(len(versions)))

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[ArtifactVersion]:
        """Return what is known of each version of an artifact, beside its bytes."""
        stored = await self._access.run(self._versions(_place(app_name, user_id, session_id, filename), filename))
        return [_artifact_version(each) for each in stored]

    async def get_artifact_version(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> ArtifactVersion | None:
        """Return what is known of a version of an artifact, the latest one if left out; None if it does not exist."""
        stored = await self._access.run(self._versions(_place(app_name, user_id, session_id, filename), filename))
        found = _chosen(stored, version)
        return None if found is None else _artifact_version(found)

    async def _save(self, place: _Place, filename: str, part: types.Part, custom_metadata: Json) -> int:
        payload, mime_type = None, None
        if part.inline_data is not None:
            payload, mime_type = part.inline_data.data or b"", part.inline_data.mime_type
        elif part.text is not None:
            payload, mime_type = part.text.encode(), "text/plain"
        elif part.file_data is None:
            raise InputValidationError("Not supported artifact type.")
        elif artifact_util.is_artifact_ref(part):  # its type is that of the artifact that it refers to
            place.check_reference(str(part.file_data.file_uri))
        else:
            mime_type = part.file_data.mime_type
        rest = part.model_dump(mode="json", exclude_none=True, exclude={"inline_data": {"data"}, "text": True})
        content: Json = {"filename": filename, "part": rest}
        if payload is not None:
            content["sha256"] = (await store_blob(self._store, payload, self._conversation_id(place))).hex()
        while True:
            head = await self._head(place)
            number = len(await self._versions(place, filename))
            version = ArtifactVersion(
                version=number,
                canonical_uri=artifact_util.get_artifact_uri(
                    place.app_name, place.user_id, filename, number, place.session_id
                ),
                custom_metadata=custom_metadata,
                mime_type=mime_type,
            )
            data = ApplicationEvent(ARTIFACT, content | version.model_dump(mode="json", exclude_none=True))
            if await self._added(place, data, head):
                return number

    async def _delete(self, place: _Place, filename: str) -> None:
        while True:
            head = await self._head(place)
            if not await self._versions(place, filename):
                return
            if await self._added(place, ApplicationEvent(ARTIFACT, {"filename": filename}), head):
                return

    async def _added(self, place: _Place, data: ApplicationEvent, head: int) -> bool:
        """Append an event to the conversation of a place; return whether nobody has appended to it since a version."""
        files = [bytes.fromhex(data.content["sha256"])] if "sha256" in data.content else []
        events = [NewEvent(data, actor=place.user_id[:255], metadata=referring(Metadata(), files))]
        if not head:
            created = ConversationCreated(given_id=place.name, metadata={"adk_artifacts": place.names})
            # Archived, so that lists of active conversations leave it out: it has no messages.
            events = [NewEvent(each, actor=place.user_id[:255]) for each in (created, ConversationArchived())] + events
        with suppress(WrongExpectedVersion):
            try:
                await self._append(place.user_id, place.name, events, head or NO_STREAM)
            except ConversationIsDeleted:
                await self._append(place.user_id, place.name, [*restart(), *events], head)
            return True
        return False

    async def _load(self, place: _Place, filename: str, version: int | None) -> types.Part | None:
        found = _chosen(await self._versions(place, filename), version)
        if found is None:
            return None
        part = types.Part.model_validate(found["part"])
        if "sha256" in found:
            payload = await load_blob(self._store, bytes.fromhex(found["sha256"]), self._conversation_id(place))
            if part.inline_data is None:
                part.text = payload.decode()
            else:
                part.inline_data.data = payload
        return part

    async def _keys(self, places: list[_Place]) -> list[str]:
        names: set[str] = set()
        for place in places:
            for content in await self._stored(place):
                (names.add if "version" in content else names.discard)(content["filename"])
        return sorted(names)

    async def _versions(self, place: _Place, filename: str) -> list[Json]:
        """Return the versions of an artifact."""
        versions: list[Json] = []
        for content in await self._stored(place, filename):
            versions = [*versions, content] if "version" in content else []
        return versions

    async def _stored(self, place: _Place, filename: str | None = None) -> list[Json]:
        """Return the contents of the events of one artifact, or of all, in order."""
        return [content for (content,) in await self._fetch(_ARTIFACT_EVENTS, place, filename=filename)]

    async def _head(self, place: _Place) -> int:
        """Return the version of the conversation of a place; 0 if it has no artifacts."""
        return next((version for (version,) in await self._fetch(_HEAD, place)), 0)

    def _conversation_id(self, place: _Place) -> UUID:
        return conversation_uuid(self._store.tenant, place.name)

    async def _fetch(self, text: str, place: _Place, **more: Any) -> list[TupleRow]:
        caller = self._caller(place.user_id)
        given = {"tenant": caller.tenant, "conversation_id": self._conversation_id(place)}
        return await self._store.log(caller).fetch(text, given | more)


_MAX_REFERENCES = 5
"""References that are followed from one artifact to the next; as many as google-adk's own services follow."""
_REWOUND = types.Part(inline_data=types.Blob(mime_type="application/octet-stream", data=b""))
"""The artifact that google-adk stores when it rewinds a session to a time at which the artifact did not exist."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The owner of artifacts: a session or a user."""

    app_name: str
    user_id: str
    session_id: str | None

    @property
    def names(self) -> Json:
        """The names as metadata of the conversation."""
        own = {} if self.session_id is None else {"session_id": self.session_id}
        return {"app_name": self.app_name, "user_id": self.user_id, **own}

    @property
    def name(self) -> str:
        """The id of the conversation with the versions of the artifacts; no session has it."""
        session = "user" if self.session_id is None else f"session/{self.session_id.replace('/', '%2F')}"
        return f"{conversation_name(self.app_name, self.user_id, 'artifacts')}/{session}"

    def check_reference(self, uri: str) -> None:
        """Raise an error unless an artifact of this place may refer to the one that a URI names."""
        target = artifact_util.parse_artifact_uri(uri)
        if target is None:
            raise InputValidationError(f"Invalid artifact reference URI: {uri}")
        artifact_util.validate_artifact_reference_scope(
            app_name=self.app_name, user_id=self.user_id, session_id=self.session_id, parsed_uri=target
        )


def _place(app_name: str, user_id: str, session_id: str | None, filename: str) -> _Place:
    """Return where an artifact belongs.

    Raises:
        InputValidationError: a name is not one that all services of google-adk accept, or no session is given.
    """
    artifact_util.validate_path_segment(app_name, "app_name")
    artifact_util.validate_path_segment(user_id, "user_id")
    if filename.startswith(State.USER_PREFIX):
        return _Place(app_name, user_id, None)
    if session_id is None:
        raise InputValidationError("Session ID must be provided for session-scoped artifacts.")
    artifact_util.validate_path_segment(session_id, "session_id")
    return _Place(app_name, user_id, session_id)


def _chosen(versions: list[Json], version: int | None) -> Json | None:
    if version is None:
        return versions[-1] if versions else None
    return versions[version] if 0 <= version < len(versions) else None


def _artifact_version(content: Json) -> ArtifactVersion:
    members = ("version", "canonical_uri", "custom_metadata", "create_time", "mime_type")
    return ArtifactVersion(**{name: content[name] for name in members if name in content})


_ARTIFACT_EVENTS, _HEAD = (query("agent_manager.adapters", name) for name in ("adk_artifact_events", "adk_head"))
