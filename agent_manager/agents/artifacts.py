"""Artifacts as events and back: whole ones, and chunks that are appended until the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from agent_manager.agents.wire import Json
from eventstore.vocabulary import TaskArtifactAdded, TaskArtifactExtended

_PLACES: dict[str, type] = {"artifactId": str, "parts": list, "name": str, "description": str, "metadata": dict}


def artifact_event(
    task_id: UUID, artifact: Json, *, append: bool, last_chunk: bool, update: Json | None = None
) -> TaskArtifactAdded | TaskArtifactExtended:
    """The event that keeps an artifact, or a chunk of one, as it was sent."""
    placed = {name: artifact[name] for name, kind in _PLACES.items() if isinstance(artifact.get(name), kind)}
    extra = {name: value for name, value in artifact.items() if name not in placed}
    kind = TaskArtifactExtended if append else TaskArtifactAdded
    return kind(
        task_id=task_id,
        artifact_id=placed.pop("artifactId", ""),
        parts=placed.pop("parts", []),
        last_chunk=last_chunk,
        extra=extra or None,
        update=update or None,
        **placed,
    )


def assemble(chunks: Iterable[Json]) -> list[Json]:
    """The artifacts on the wire that the chunks of a task amount to, in the order in which they began.

    A chunk that begins an artifact takes the place of an earlier one of its id. One that continues an artifact nobody
    began begins it: an agent may have been heard from its middle on.

    Args:
        chunks: as in :attr:`projections.Task.artifacts`, oldest first.
    """
    artifacts: dict[str, Json] = {}
    for chunk in chunks:
        sent, known = _sent(chunk), artifacts.get(chunk["artifact_id"])
        artifacts[chunk["artifact_id"]] = joined(known, sent) if chunk["extends"] and known is not None else sent
    return list(artifacts.values())


def joined(artifact: Json, chunk: Json) -> Json:
    """An artifact continued by a chunk: parts and metadata of both, and what else the chunk is first to say."""
    whole = chunk | artifact
    if isinstance(artifact.get("parts"), list) and isinstance(chunk.get("parts"), list):
        whole["parts"] = artifact["parts"] + chunk["parts"]
    if isinstance(artifact.get("metadata"), dict) and isinstance(chunk.get("metadata"), dict):
        whole["metadata"] = artifact["metadata"] | chunk["metadata"]
    return whole


def _sent(chunk: Json) -> Json:
    sent: dict[str, Any] = {"artifactId": chunk["artifact_id"], "parts": chunk["parts"]}
    for name in ("name", "description", "metadata"):
        if chunk[name] is not None:
            sent[name] = chunk[name]
    return sent | (chunk["extra"] or {})
