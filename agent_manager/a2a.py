"""A2A 0.3 and 1.x: vocabulary, conversion between versions, validation.

0.3 is told by ``kind``, by small states and roles (``working``, ``agent``); 1.x is JSON of protobuf and names them in
capitals (``TASK_STATE_WORKING``, ``ROLE_AGENT``). All else is named alike in both, in camelCase; parts differ, see
:mod:`~agent_manager.a2a`.

What neither shape knows stays as it is. A value that is in the shape already is given back as it is.

Clients read a list as a whole or not at all: one message with a part that is none costs them all others. What no
version of A2A defines may be there, as in both versions; what they define must be of its kind.

What an agent gave stays. What lacks, or is of another kind than it must be, is filled in: one card that a client
cannot read costs it all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

from eventstore.vocabulary import TaskArtifactAdded, TaskArtifactExtended, TaskStatus
from projections import Task

# The words of A2A 0.3 and 1.x on the wire, and what is stored for them

Json: TypeAlias = dict[str, Any]
Version: TypeAlias = Literal["0.3", "1.0"]

RESERVED = "eventstore:"
"""Ids of conversations that begin so are the manager's own; no client may give one."""

STATE_WORDS: dict[TaskStatus, dict[Version, str]] = {
    TaskStatus.PENDING: {"0.3": "submitted", "1.0": "TASK_STATE_SUBMITTED"},
    TaskStatus.IN_PROGRESS: {"0.3": "working", "1.0": "TASK_STATE_WORKING"},
    TaskStatus.COMPLETED: {"0.3": "completed", "1.0": "TASK_STATE_COMPLETED"},
    TaskStatus.INPUT_REQUIRED: {"0.3": "input-required", "1.0": "TASK_STATE_INPUT_REQUIRED"},
    TaskStatus.AUTH_REQUIRED: {"0.3": "auth-required", "1.0": "TASK_STATE_AUTH_REQUIRED"},
    TaskStatus.CANCELED: {"0.3": "canceled", "1.0": "TASK_STATE_CANCELED"},
    TaskStatus.FAILED: {"0.3": "failed", "1.0": "TASK_STATE_FAILED"},
    TaskStatus.REJECTED: {"0.3": "rejected", "1.0": "TASK_STATE_REJECTED"},
    TaskStatus.UNKNOWN: {"0.3": "unknown", "1.0": "TASK_STATE_UNSPECIFIED"},
}
"""How each shape writes a task's state."""

FINAL = frozenset((TaskStatus.COMPLETED, TaskStatus.CANCELED, TaskStatus.FAILED, TaskStatus.REJECTED))
"""Nothing happens to a task after these."""

OPEN = frozenset((TaskStatus.PENDING, TaskStatus.IN_PROGRESS))
"""The agent goes on by itself in these; in all others it is done or waits for somebody."""

_WORDS = {word: status for status, words in STATE_WORDS.items() for word in words.values()}
_SPELLINGS = {
    "SUBMITTED": TaskStatus.PENDING, "PENDING": TaskStatus.PENDING, "1": TaskStatus.PENDING,
    "WORKING": TaskStatus.IN_PROGRESS, "INPROGRESS": TaskStatus.IN_PROGRESS, "2": TaskStatus.IN_PROGRESS,
    "COMPLETED": TaskStatus.COMPLETED, "3": TaskStatus.COMPLETED,
    "FAILED": TaskStatus.FAILED, "4": TaskStatus.FAILED,
    "CANCELED": TaskStatus.CANCELED, "CANCELLED": TaskStatus.CANCELED, "5": TaskStatus.CANCELED,
    "INPUTREQUIRED": TaskStatus.INPUT_REQUIRED, "6": TaskStatus.INPUT_REQUIRED,
    "REJECTED": TaskStatus.REJECTED, "7": TaskStatus.REJECTED,
    "AUTHREQUIRED": TaskStatus.AUTH_REQUIRED, "8": TaskStatus.AUTH_REQUIRED,
    "UNKNOWN": TaskStatus.UNKNOWN, "UNSPECIFIED": TaskStatus.UNKNOWN, "0": TaskStatus.UNKNOWN,
}  # fmt: skip
"""Other spellings of the states, in capitals and without separators. JSON of protobuf may hold the numbers of the enum,
which are the same in 0.3 and 1.x; the enum of 0.3 spells ``TASK_STATE_CANCELLED``."""
_USER: dict[Version, str] = {"0.3": "user", "1.0": "ROLE_USER"}
_AGENT: dict[Version, str] = {"0.3": "agent", "1.0": "ROLE_AGENT"}
_ROLE_WORDS = {word: words for words in (_USER, _AGENT) for word in words.values()}


def known_status(state: Any) -> TaskStatus | None:
    """Return the status that is stored for a state, in any of its spellings; None if it is none of A2A."""
    if isinstance(state, bool) or not isinstance(state, str | int):
        return None
    if state in _WORDS:
        return _WORDS[str(state)]
    if isinstance(state, int):
        return _SPELLINGS.get(str(state))
    letters = state.upper().replace("_", "").replace("-", "").replace(" ", "")
    return _SPELLINGS.get(letters.removeprefix("TASKSTATE")) if state[:1].isalnum() else None


def status_of(state: Any) -> TaskStatus:
    """Return the status that is stored for a state; ``unknown`` for a value that is none of A2A."""
    return known_status(state) or TaskStatus.UNKNOWN


def state_word(status: TaskStatus | str, shape: Version) -> str:
    """How a shape writes a status."""
    return STATE_WORDS[TaskStatus(status)][shape]


def state_in_version(state: Any, shape: Version) -> Any:
    """Return a state in the word of a shape; a value that is no state of A2A stays."""
    status = known_status(state)
    return state if status is None else state_word(status, shape)


def readable_state(state: Any) -> Any:
    """Return a state in a word that clients know: as it is if it is one of either shape."""
    is_proto = isinstance(state, int) or str(state).upper().startswith("TASK")
    return (
        state if isinstance(state, str) and state in _WORDS else state_in_version(state, "1.0" if is_proto else "0.3")
    )


def role_in_version(role: Any, shape: Version) -> Any:
    """A role of either shape in the words of one; a word of neither stays."""
    return _ROLE_WORDS[role][shape] if isinstance(role, str) and role in _ROLE_WORDS else role


def agent_role(shape: Version) -> str:
    """How a shape calls the agent's role."""
    return _AGENT[shape]


def version_of(sent: Json) -> Version:
    """Which shape a message, task or update has; 0.3 where nothing tells."""
    if "kind" in sent:
        return "0.3"
    status = sent.get("status")
    words = (sent.get("role"), status.get("state") if isinstance(status, dict) else None)
    if any(isinstance(word, int) or str(word).upper().startswith(("ROLE_", "TASK_STATE_")) for word in words):
        return "1.0"
    parts = sent.get("parts")
    if isinstance(parts, list) and parts and all(isinstance(part, dict) and "kind" not in part for part in parts):
        return "0.3" if sent.get("role") in list(_ROLE_WORDS) else "1.0"
    return "0.3"


def parts_text(parts: Any) -> str:
    """The text of a message's or artifact's parts, a line each; empty where they have none."""
    if not isinstance(parts, list):
        return ""
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


# Messages, parts, artifacts and tasks of A2A 0.3 as those of 1.x, and the other way round, as plain JSON

_FILE_MEMBERS = {"mimeType": "mediaType", "name": "filename", "bytes": "raw", "uri": "url"}
_PART_MEMBERS = {new: old for old, new in _FILE_MEMBERS.items()}
_WRAPPED = "data_part_compat"
"""How a2a-sdk marks data of 1.x that is no object, which 0.3 cannot express, where it puts it into one."""


def message_in_version(message: Json, shape: Version) -> Json:
    """A message in that shape."""
    changed = _kind(message, "message", shape)
    if "role" in changed:
        changed["role"] = role_in_version(changed["role"], shape)
    return artifact_in_version(changed, shape)


def task_in_version(task: Json, shape: Version) -> Json:
    """A task in that shape, with its status, history and artifacts."""
    changed = _kind(task, "task", shape)
    if isinstance(changed.get("status"), dict):
        changed["status"] = status_in_version(changed["status"], shape)
    for name, convert in (("history", message_in_version), ("artifacts", artifact_in_version)):
        if isinstance(changed.get(name), list):
            changed[name] = [convert(item, shape) if isinstance(item, dict) else item for item in changed[name]]
    return changed


def artifact_in_version(artifact: Json, shape: Version) -> Json:
    """An artifact in that shape."""
    if isinstance(artifact.get("parts"), list):
        return artifact | {"parts": [part_in_version(part, shape) for part in artifact["parts"]]}
    return artifact


def status_in_version(status: Json, shape: Version) -> Json:
    """A task's status in that shape."""
    changed = dict(status)
    if "state" in changed:
        changed["state"] = state_in_version(changed["state"], shape)
    if isinstance(changed.get("message"), dict):
        changed["message"] = message_in_version(changed["message"], shape)
    return changed


def part_in_version(part: Any, shape: Version) -> Any:
    """A part in that shape; what is no part of either stays."""
    if not isinstance(part, dict):
        return part
    return _to_new(part) if shape == "1.0" else _to_old(part)


def text_part(text: str, shape: Version) -> Json:
    """A part that holds a text."""
    return {"kind": "text", "text": text} if shape == "0.3" else {"text": text}


def _kind(sent: Json, kind: str, shape: Version) -> Json:
    rest = {name: value for name, value in sent.items() if name != "kind"}
    return {"kind": sent.get("kind", kind), **rest} if shape == "0.3" else rest


def _to_new(part: Json) -> Json:
    match part.get("kind"):
        case "text":
            return _without(part, "kind")
        case "data":
            changed, metadata = _without(part, "kind"), part.get("metadata")
            if isinstance(metadata, dict) and metadata.get(_WRAPPED) is True and isinstance(part.get("data"), dict):
                kept = _without(metadata, _WRAPPED)
                changed = _without(changed, "metadata") | {"data": part["data"].get("value")}
                return changed | ({"metadata": kept} if kept else {})
            return changed
        case "file" if isinstance(part.get("file"), dict):
            file = {_FILE_MEMBERS.get(name, name): value for name, value in part["file"].items() if value is not None}
            return file | _without(part, "kind", "file")
    return part


def _to_old(part: Json) -> Json:
    if "kind" in part:
        return part
    if "text" in part:
        return {"kind": "text", **part}
    if "data" in part:
        if isinstance(part["data"], dict):
            return {"kind": "data", **part}
        metadata = part["metadata"] if isinstance(part.get("metadata"), dict) else {}
        wrapped = {"data": {"value": part["data"]}, "metadata": {**metadata, _WRAPPED: True}}
        return {"kind": "data", **part, **wrapped}
    if "raw" in part or "url" in part:
        file = {_PART_MEMBERS[name]: value for name, value in part.items() if name in _PART_MEMBERS}
        return {"kind": "file", "file": file, **_without(part, *_PART_MEMBERS)}
    return part


def _without(value: Json, *names: str) -> Json:
    return {name: item for name, item in value.items() if name not in names}


# Whether a message is one of A2A, in either shape, so that every client understands it

_FILE_TEXTS = ("mimeType", "mime_type", "name")
_PART_TEXTS = ("text", "raw", "url", "filename", "mediaType")
_CONTENTS = ("text", "raw", "url", "data")


class Fault(NamedTuple):
    """What is wrong with a message; ``place`` is its path there, such as ``parts[0].text``."""

    place: str
    words: str


def fault_of(message: Json, shape: Version) -> Fault | None:
    """What is wrong with a message of that shape beside its role and ids; None where nothing is."""
    if message.get("kind", "message") != "message":
        return Fault("kind", "is not 'message'")
    if not isinstance(message.get("metadata"), dict | None):
        return Fault("metadata", "is no object")
    for name in ("extensions", "referenceTaskIds"):
        items = message.get(name)
        if items is not None and not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
            return Fault(name, "is no list of texts")
    parts = message.get("parts")
    if not isinstance(parts, list):
        return Fault("parts", "is no list of parts")
    faults = ((number, part_fault(part, shape)) for number, part in enumerate(parts))
    return next((Fault(f"parts[{n}]{fault.place}", fault.words) for n, fault in faults if fault is not None), None)


def part_fault(part: Any, shape: Version) -> Fault | None:
    """What is wrong with a part of that shape; None where nothing is."""
    if not isinstance(part, dict):
        return Fault("", "is no object")
    if not isinstance(part.get("metadata"), dict | None):
        return Fault(".metadata", "is no object")
    return _old_fault(part) if shape == "0.3" else _new_fault(part)


def _old_fault(part: Json) -> Fault | None:
    # Where nothing says what kind of part it is, its content does.
    kind = part.get("kind", next((name for name in ("text", "file", "data") if name in part), None))
    match kind:
        case "text":
            return None if isinstance(part.get("text"), str) else Fault(".text", "is missing, or no text")
        case "data":
            return None if isinstance(part.get("data"), dict) else Fault(".data", "is missing, or no object")
        case "file":
            return _file_fault(part.get("file"))
    return Fault(".kind", "is not one of text, file, data")


def _file_fault(file: Any) -> Fault | None:
    if not isinstance(file, dict) or not (isinstance(file.get("bytes"), str) or isinstance(file.get("uri"), str)):
        return Fault(".file", "has neither bytes nor uri as a text")
    wrong = next((name for name in _FILE_TEXTS if not isinstance(file.get(name), str | None)), None)
    return None if wrong is None else Fault(f".file.{wrong}", "is no text")


def _new_fault(part: Json) -> Fault | None:
    wrong = next((name for name in _PART_TEXTS if not isinstance(part.get(name), str | None)), None)
    if wrong is not None:
        return Fault(f".{wrong}", "is no text")
    if sum(name in part and (name == "data" or part[name] is not None) for name in _CONTENTS) > 1:
        return Fault("", f"has more than one of {', '.join(_CONTENTS)}")
    return None


# Agent cards for the clients of both versions of A2A: each finds in a card what its version demands

_TEXTS = ("name", "description", "version")
_LISTS = ("defaultInputModes", "defaultOutputModes")
_SKILL_TEXTS = ("id", "name", "description")


def readable_card(card: Json) -> Json:
    """The card with everything in it that A2A 0.3 or 1.x demands of one."""
    read = card | {name: card[name] if isinstance(card.get(name), str) else "" for name in _TEXTS}
    read |= {name: _texts(card.get(name)) for name in _LISTS}
    read["capabilities"] = card["capabilities"] if isinstance(card.get("capabilities"), dict) else {}
    read["skills"] = [_skill(skill) for skill in _objects(card.get("skills"))]
    interfaces = [each for each in _objects(card.get("supportedInterfaces")) if isinstance(each.get("url"), str)]
    if not isinstance(card.get("url"), str):
        first = interfaces[0] if interfaces else {}
        read["url"] = first.get("url", "")
        named = {"preferredTransport": first.get("protocolBinding"), "protocolVersion": first.get("protocolVersion")}
        read |= {name: value for name, value in named.items() if isinstance(value, str) and name not in card}
    if "securitySchemes" in card and not _are_old(card["securitySchemes"]):
        del read["securitySchemes"]  # 0.3 tells them by their type, 1.x by the name of a member
    return read


def minimal_card(card: Json) -> Json:
    """Nothing of the card but what A2A demands."""
    read = readable_card(card)
    named = {name: read[name] for name in (*_TEXTS, *_LISTS, "url")}
    skills = [{name: skill[name] for name in (*_SKILL_TEXTS, "tags")} for skill in read["skills"]]
    streams = {name: read["capabilities"].get(name) is True for name in ("streaming", "pushNotifications")}
    return named | {"skills": skills, "capabilities": streams}


def with_interfaces(card: Json) -> Json:
    """The card with the interfaces of 1.x, which has no other place for an agent's URL."""
    if card.get("supportedInterfaces") or not isinstance(card.get("url"), str):
        return card
    interface = {
        "url": card["url"],
        "protocolBinding": card.get("preferredTransport") or "JSONRPC",
        "protocolVersion": card.get("protocolVersion") or "0.3",
    }
    return card | {"supportedInterfaces": [interface]}


def _skill(skill: Json) -> Json:
    texts = {name: skill[name] if isinstance(skill.get(name), str) else "" for name in _SKILL_TEXTS}
    return skill | texts | {"tags": _texts(skill.get("tags"))}


def _objects(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _are_old(schemes: Any) -> bool:
    return isinstance(schemes, dict) and all(isinstance(each, dict) and "type" in each for each in schemes.values())


# Artifacts as events and back: whole ones, and chunks that are appended until the last

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


# A task of the read tables as A2A task JSON, and the members of it that grow


def task_to_wire(row: Task, shape: Version | None = None, *, context_id: str | None = None) -> Json:
    """The task as its agent showed it, with everything that has happened to it since.

    Args:
        row: of the table ``tasks``.
        shape: of the JSON; None for the words of whoever wrote it.
        context_id: the conversation as its client calls it, for a task whose agent named no context.
    """
    extra, beside = row.extra or {}, row.status_extra or {}
    status: Json = {"state": readable_state(beside.get("state", state_word(row.status, "0.3")))}
    if row.status_message is not None:
        status["message"] = row.status_message
    task: Json = {"id": str(row.id) if row.given_id is None else row.given_id}
    if context_id is not None:
        task["contextId"] = context_id
    task["status"] = beside | status
    if artifacts := assemble(row.artifacts):
        task["artifacts"] = artifacts
    if row.metadata is not None:
        task["metadata"] = row.metadata
    task |= extra
    return task if shape is None else task_in_version(task, shape)


def described(known: Json | None, extra: Json | None, history: list[Any] | None) -> Json | None:
    """Return the further members of a task after an event that describes it, see :class:`eventstore.TaskDescribed`."""
    if history is None:
        return known if extra is None else extra
    rest = known or {} if extra is None else extra
    before = (rest if "history" in rest else known or {}).get("history")
    return rest | {"history": [*(before if isinstance(before, list) else []), *history]}
