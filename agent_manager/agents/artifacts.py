"""Artifacts as events and back: whole ones, and chunks that are appended until the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from agent_manager.agents.wire import Json
from eventstore.vocabulary import TaskArtifactAdded, TaskArtifactExtended

_PLACES: dict[str, type] = {"artifactId": str, "parts": list, "name": str, "description": str, "metadata": dict}


def artifact_event(
    task_id: UUID,
    artifact: Json,
    *,
    append: bool,
    last_chunk: bool,
    update: Json | None = None,
    continues: bool = False,
) -> TaskArtifactAdded | TaskArtifactExtended:
    """The event that keeps an artifact, or a chunk of one, as it was sent.

    Args:
        continues: whether the chunk's first text belongs to the artifact's last part.
    """
    placed = {name: artifact[name] for name, kind in _PLACES.items() if isinstance(artifact.get(name), kind)}
    extra = {name: value for name, value in artifact.items() if name not in placed}
    members: dict[str, Any] = {
        "task_id": task_id,
        "artifact_id": placed.pop("artifactId", ""),
        "parts": placed.pop("parts", []),
        "last_chunk": last_chunk,
        "extra": extra or None,
        "update": update or None,
        **placed,
    }
    return TaskArtifactExtended(**members, continues_text=continues or None) if append else TaskArtifactAdded(**members)


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
        whole = sent
        if chunk["extends"] and known is not None:
            whole = joined(known, sent, continues=chunk["continues_text"])
        artifacts[chunk["artifact_id"]] = whole
    return list(artifacts.values())


def joined(artifact: Json, chunk: Json, *, continues: bool = False) -> Json:
    """An artifact continued by a chunk: parts and metadata of both, and what else the chunk is first to say.

    Args:
        continues: whether the chunk's first text belongs to the artifact's last part.
    """
    whole = chunk | artifact
    before, further = artifact.get("parts"), chunk.get("parts")
    if isinstance(before, list) and isinstance(further, list):
        if continues and before and further and _has_text(before[-1]) and _has_text(further[0]):
            longer = before[-1] | {"text": before[-1]["text"] + further[0]["text"]}
            before, further = [*before[:-1], longer], further[1:]
        whole["parts"] = before + further
    if isinstance(artifact.get("metadata"), dict) and isinstance(chunk.get("metadata"), dict):
        whole["metadata"] = artifact["metadata"] | chunk["metadata"]
    return whole


def growth(known: Json, sent: Json) -> tuple[Json, bool] | None:
    """Return the chunk by which an artifact grew, and whether it continues the last text; None if it did not just grow.

    ``joined(known, chunk, continues=...)`` is the artifact as it was sent.
    """
    before, now = known.get("parts"), sent.get("parts")
    if not isinstance(before, list) or not isinstance(now, list) or len(now) < len(before):
        return None
    chunk = {name: value for name, value in sent.items() if name == "artifactId" or known.get(name) != value}
    continues = bool(before) and before[-1] != now[len(before) - 1]
    further = now[len(before) - continues :]
    if continues:
        longer, text = further[0], before[-1].get("text") if isinstance(before[-1], dict) else None
        if not (_has_text(longer) and isinstance(text, str) and longer["text"].startswith(text)):
            return None
        further[0] = longer | {"text": longer["text"][len(text) :]}
    chunk["parts"] = further
    return (chunk, continues) if joined(known, chunk, continues=continues) == sent else None


def merged(artifact: Json) -> Json:
    """The artifact with texts that follow on each other, and differ in nothing else, put together."""
    parts = artifact.get("parts")
    if not isinstance(parts, list):
        return artifact
    put: list[Any] = []
    texts: list[str] = []
    for part in parts:
        if texts and _has_text(part) and put[-1] == part | {"text": ""}:
            texts.append(part["text"])
            continue
        _close(put, texts)
        texts = [part["text"]] if _has_text(part) else []
        put.append(part | {"text": ""} if texts else part)
    _close(put, texts)
    return artifact | {"parts": put}


def _close(parts: list[Any], texts: list[str]) -> None:
    if texts:
        parts[-1] = parts[-1] | {"text": "".join(texts)}


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _sent(chunk: Json) -> Json:
    sent: dict[str, Any] = {"artifactId": chunk["artifact_id"], "parts": chunk["parts"]}
    for name in ("name", "description", "metadata"):
        if chunk[name] is not None:
            sent[name] = chunk[name]
    return sent | (chunk["extra"] or {})
