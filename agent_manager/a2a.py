"""A2A 0.3 and 1.x as plain JSON: states, conversion between the versions, validation, artifacts, tasks, agent cards.

0.3 marks objects by ``kind`` and writes small states and roles (``working``, ``agent``). 1.x is JSON of protobuf: no
``kind``, names in capitals (``TASK_STATE_WORKING``, ``ROLE_AGENT``), and other members in parts. All other names are
the same in both, in camelCase.

Conversions keep values that neither version defines, and return values of the target version unchanged. Values that A2A
does define must have A2A's types: a client that reads a list fails on the whole list because of one malformed item. So
an agent card is completed, and a message is validated or repaired, before it is served or sent to an agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

from eventstore.errors import InputError
from eventstore.event_types import TaskArtifactAdded, TaskArtifactExtended, TaskStatus
from projections import Task

Json: TypeAlias = dict[str, Any]
Version: TypeAlias = Literal["0.3", "1.0"]

RESERVED = "eventstore:"
"""Prefix of conversation ids that only the manager uses."""

# States and roles, and which version a value has

_STATES = (
    (TaskStatus.UNKNOWN, "unknown", "TASK_STATE_UNSPECIFIED"),
    (TaskStatus.PENDING, "submitted", "TASK_STATE_SUBMITTED"),
    (TaskStatus.IN_PROGRESS, "working", "TASK_STATE_WORKING"),
    (TaskStatus.COMPLETED, "completed", "TASK_STATE_COMPLETED"),
    (TaskStatus.FAILED, "failed", "TASK_STATE_FAILED"),
    (TaskStatus.CANCELED, "canceled", "TASK_STATE_CANCELED"),
    (TaskStatus.INPUT_REQUIRED, "input-required", "TASK_STATE_INPUT_REQUIRED"),
    (TaskStatus.REJECTED, "rejected", "TASK_STATE_REJECTED"),
    (TaskStatus.AUTH_REQUIRED, "auth-required", "TASK_STATE_AUTH_REQUIRED"),
)
"""Task states in the order of protobuf's numbers, which JSON of protobuf may contain: the same in 0.3 and 1.x."""

STATE_NAMES: dict[TaskStatus, dict[Version, str]] = {status: {"0.3": v03, "1.0": v1} for status, v03, v1 in _STATES}
"""Names of the task states in each version."""

FINAL = frozenset((TaskStatus.COMPLETED, TaskStatus.CANCELED, TaskStatus.FAILED, TaskStatus.REJECTED))
"""States after which a task no longer changes."""

OPEN = frozenset((TaskStatus.PENDING, TaskStatus.IN_PROGRESS))
"""States in which the agent continues without further input."""


def _letters(state: str) -> str:
    return state.upper().replace("_", "").replace("-", "").replace(" ", "").removeprefix("TASKSTATE")


_STATE_NAMES = frozenset(name for _, *names in _STATES for name in names)
_SPELLINGS = {
    _letters(name): status for number, (status, *names) in enumerate(_STATES) for name in (status, *names, str(number))
} | {"CANCELLED": TaskStatus.CANCELED}
"""States by their letters, or their number. The enum of 0.3 spells ``TASK_STATE_CANCELLED``."""
_USER: dict[Version, str] = {"0.3": "user", "1.0": "ROLE_USER"}
_AGENT: dict[Version, str] = {"0.3": "agent", "1.0": "ROLE_AGENT"}
_ROLES = {name: names for names in (_USER, _AGENT) for name in names.values()}


def known_status(state: Any) -> TaskStatus | None:
    """Return the stored status for a state in any spelling; None if the value is not a state of A2A."""
    if isinstance(state, bool) or not isinstance(state, str | int) or not str(state)[:1].isalnum():
        return None
    return _SPELLINGS.get(_letters(str(state)))


def status_of(state: Any) -> TaskStatus:
    """Return the stored status for a state; ``unknown`` if the value is not a state of A2A."""
    return known_status(state) or TaskStatus.UNKNOWN


def state_name(status: TaskStatus | str, version: Version) -> str:
    """Return the name of a status in a version."""
    return STATE_NAMES[TaskStatus(status)][version]


def state_in_version(state: Any, version: Version) -> Any:
    """Return a state under its name in a version; a value that is not a state unchanged."""
    status = known_status(state)
    return state if status is None else state_name(status, version)


def readable_state(state: Any) -> Any:
    """Return a state under a name that clients know: unchanged if it is a name of either version."""
    if isinstance(state, str) and state in _STATE_NAMES:
        return state
    is_protobuf = isinstance(state, int) or str(state).upper().startswith("TASK")
    return state_in_version(state, "1.0" if is_protobuf else "0.3")


def role_in_version(role: Any, version: Version) -> Any:
    """Return a role under its name in a version; a value that is not a role unchanged."""
    return _ROLES[role][version] if isinstance(role, str) and role in _ROLES else role


def agent_role(version: Version) -> str:
    """Return the agent's role in a version."""
    return _AGENT[version]


def agent_message(parts: list[Any], version: Version, message_id: str) -> Json:
    """Return a message of an agent in a version."""
    kind: Json = {"kind": "message"} if version == "0.3" else {}
    return kind | {"messageId": message_id, "role": agent_role(version), "parts": parts}


def version_of(value: Json) -> Version:
    """Return the version of a message, task or update; 0.3 if nothing distinguishes it."""
    if "kind" in value:
        return "0.3"
    role, status = value.get("role"), value.get("status")
    names = (role, status.get("state") if isinstance(status, dict) else None)
    if any(isinstance(name, int) or str(name).upper().startswith(("ROLE_", "TASK_STATE_")) for name in names):
        return "1.0"
    parts = value.get("parts")
    if isinstance(parts, list) and parts and all(isinstance(part, dict) and "kind" not in part for part in parts):
        return "0.3" if role in list(_ROLES) else "1.0"
    return "0.3"


# Conversion of messages, parts, artifacts and tasks between the versions

_FILE_MEMBERS = {"mimeType": "mediaType", "name": "filename", "bytes": "raw", "uri": "url"}
"""Members of a file in 0.3, and of a part in 1.x."""
_PART_MEMBERS = {part: file for file, part in _FILE_MEMBERS.items()}
_WRAPPED = "data_part_compat"
"""Metadata with which a2a-sdk marks a value that it wrapped in an object: 0.3 has only objects as data."""


def message_in_version(message: Json, version: Version) -> Json:
    """Return a message in a version."""
    converted = _with_kind(message, "message", version)
    if "role" in converted:
        converted["role"] = role_in_version(converted["role"], version)
    return artifact_in_version(converted, version)


def task_in_version(task: Json, version: Version) -> Json:
    """Return a task in a version, with its status, history and artifacts."""
    converted = _with_kind(task, "task", version)
    if isinstance(converted.get("status"), dict):
        converted["status"] = status_in_version(converted["status"], version)
    for name, convert in (("history", message_in_version), ("artifacts", artifact_in_version)):
        if isinstance(converted.get(name), list):
            items = converted[name]
            converted[name] = [convert(item, version) if isinstance(item, dict) else item for item in items]
    return converted


def artifact_in_version(artifact: Json, version: Version) -> Json:
    """Return an artifact in a version."""
    if isinstance(artifact.get("parts"), list):
        return artifact | {"parts": [part_in_version(part, version) for part in artifact["parts"]]}
    return artifact


def status_in_version(status: Json, version: Version) -> Json:
    """Return the status of a task in a version."""
    converted = dict(status)
    if "state" in converted:
        converted["state"] = state_in_version(converted["state"], version)
    if isinstance(converted.get("message"), dict):
        converted["message"] = message_in_version(converted["message"], version)
    return converted


def part_in_version(part: Any, version: Version) -> Any:
    """Return a part in a version; a value that is not a part of either unchanged."""
    if not isinstance(part, dict):
        return part
    return _part_in_v1(part) if version == "1.0" else _part_in_v03(part)


def text_part(text: str, version: Version) -> Json:
    """Return a part that contains a text."""
    return {"kind": "text", "text": text} if version == "0.3" else {"text": text}


def parts_text(parts: Any) -> str:
    """Return the texts of the parts of a message or artifact, one per line."""
    if not isinstance(parts, list):
        return ""
    return "\n".join(part["text"] for part in parts if _has_text(part))


def first_text(parts: Any) -> str:
    """Return the first text of parts that is not empty; an empty text if there is none."""
    texts = [part["text"] for part in parts if _has_text(part)] if isinstance(parts, list) else []
    return next(filter(None, texts), "")


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _with_kind(value: Json, kind: str, version: Version) -> Json:
    rest = _without(value, "kind")
    return {"kind": value.get("kind", kind), **rest} if version == "0.3" else rest


def _part_in_v1(part: Json) -> Json:
    rest = _without(part, "kind")
    match part.get("kind"):
        case "text":
            return rest
        case "data":
            metadata = part.get("metadata")
            if isinstance(metadata, dict) and metadata.get(_WRAPPED) is True and isinstance(part.get("data"), dict):
                metadata = _without(metadata, _WRAPPED)
                unwrapped = _without(rest, "metadata") | {"data": part["data"].get("value")}
                return unwrapped | ({"metadata": metadata} if metadata else {})
            return rest
        case "file" if isinstance(part.get("file"), dict):
            file = {_FILE_MEMBERS.get(name, name): value for name, value in part["file"].items() if value is not None}
            return file | _without(rest, "file")
    return part


def _part_in_v03(part: Json) -> Json:
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


# Validation of messages

_FILE_TEXTS = ("mimeType", "mime_type", "name")
_PART_TEXTS = ("text", "raw", "url", "filename", "mediaType")
_CONTENTS = ("text", "raw", "url", "data")
_TEXT_LISTS = ("extensions", "referenceTaskIds")


class InvalidMember(NamedTuple):
    """A member of a message that is not valid, by its path, such as ``parts[0].text``."""

    path: str
    reason: str


def invalid_member(message: Json, version: Version) -> InvalidMember | None:
    """Return the first member, apart from role and ids, that is not valid in a version; None if there is none."""
    if message.get("kind", "message") != "message":
        return InvalidMember("kind", "is not 'message'")
    if not isinstance(message.get("metadata"), dict | None):
        return InvalidMember("metadata", "is not an object")
    for name in _TEXT_LISTS:
        if not (message.get(name) is None or _is_text_list(message[name])):
            return InvalidMember(name, "is not a list of texts")
    parts = message.get("parts")
    if not isinstance(parts, list):
        return InvalidMember("parts", "is not a list of parts")
    for index, part in enumerate(parts):
        if (invalid := invalid_part(part, version)) is not None:
            return InvalidMember(f"parts[{index}]{invalid.path}", invalid.reason)
    return None


def invalid_part(part: Any, version: Version) -> InvalidMember | None:
    """Return the first member of a part that is not valid in a version; None if there is none."""
    if not isinstance(part, dict):
        return InvalidMember("", "is not an object")
    if not isinstance(part.get("metadata"), dict | None):
        return InvalidMember(".metadata", "is not an object")
    return _invalid_v03(part) if version == "0.3" else _invalid_v1(part)


def _invalid_v03(part: Json) -> InvalidMember | None:
    # A part without a kind has the kind of its content.
    match part.get("kind", next((name for name in ("text", "file", "data") if name in part), None)):
        case "text":
            return None if _has_text(part) else InvalidMember(".text", "is missing or not a text")
        case "data":
            return None if isinstance(part.get("data"), dict) else InvalidMember(".data", "is missing or not an object")
        case "file":
            file = part.get("file")
            if not isinstance(file, dict) or not any(isinstance(file.get(name), str) for name in ("bytes", "uri")):
                return InvalidMember(".file", "has neither bytes nor uri as a text")
            return _first_non_text(file, _FILE_TEXTS, ".file.")
    return InvalidMember(".kind", "is not one of text, file, data")


def _invalid_v1(part: Json) -> InvalidMember | None:
    if (invalid := _first_non_text(part, _PART_TEXTS, ".")) is not None:
        return invalid
    if sum(name in part and (name == "data" or part[name] is not None) for name in _CONTENTS) > 1:
        return InvalidMember("", f"has more than one of {', '.join(_CONTENTS)}")
    return None


def _first_non_text(value: Json, names: Iterable[str], path: str) -> InvalidMember | None:
    wrong = next((name for name in names if not isinstance(value.get(name), str | None)), None)
    return None if wrong is None else InvalidMember(path + wrong, "is not a text")


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Messages that are not valid, as the nearest ones that are


def repaired(message: Json, version: Version, message_id: str) -> Json:
    """Return a message that is not valid in A2A, such as one of an imported chat, as the nearest one that is.

    Args:
        message_id: the id of a message that has none.
    """
    given_id, role = message.get("messageId"), message.get("role")
    valid_id = given_id if isinstance(given_id, str) and given_id else message_id
    result = agent_message(_valid_parts(message, version), version, valid_id)
    if role in ("user", "ROLE_USER"):
        result["role"] = role_in_version("user", version)
    result |= {name: message[name] for name in ("contextId", "taskId") if isinstance(message.get(name), str)}
    if isinstance(message.get("metadata"), dict):
        result["metadata"] = message["metadata"]
    return result | {name: message[name] for name in _TEXT_LISTS if _is_text_list(message.get(name))}


def message_to_send(message: Json, version: Version, message_id: str) -> Json:
    """Return a message of any format as an agent of a version understands it.

    Agents know the roles user and agent: a message with another role, such as system or tool, is sent as the user's.

    Args:
        message_id: the id of a message that has none.
    """
    is_agents = message.get("role") in (*_AGENT.values(), "assistant")
    message = message | {"role": agent_role(version) if is_agents else _USER[version]}
    given_id = message.get("messageId")
    if not (isinstance(given_id, str) and given_id):
        message["messageId"] = message_id
    converted = message_in_version(message, version)
    if converted.get("parts") and invalid_member(converted, version) is None:
        return converted | {"parts": [_valid_part(part, version) for part in converted["parts"]]}
    return repaired(converted, version, message_id)


def _valid_parts(message: Json, version: Version) -> list[Json]:
    content = message.get("parts", message.get("content"))
    items = content if isinstance(content, list) else [] if content is None else [content]
    calls = {name: message[name] for name in ("tool_calls", "function_call") if message.get(name) is not None}
    return [_valid_part(item, version) for item in [*items, *([calls] if calls else [])]]


def _valid_part(item: Any, version: Version) -> Json:
    if isinstance(item, dict) and invalid_part(item, version) is None:
        has_content = not item.keys().isdisjoint(_CONTENTS)
        if "kind" in item if version == "0.3" else has_content and "kind" not in item:
            return item
    text = item.get("text") if isinstance(item, dict) else item
    if isinstance(text, str):
        return text_part(text, version)
    data = item if isinstance(item, dict) else {"value": item}
    return {"kind": "data", "data": data} if version == "0.3" else {"data": data}


# Settings of push notifications, in 1.x's format

_CONFIG_ID = "[A-Za-z0-9_-]{1,255}"
_PUSH_NOTIFICATIONS = (
    "pushNotificationConfig", "push_notification_config",
    "taskPushNotificationConfig", "task_push_notification_config",
)  # fmt: skip
"""The setting in the configuration of a request that sends a message, in 0.3 and in 1.x."""


def message_and_push_notification(request: Json) -> tuple[Json, Any]:
    """Return the message of a request that sends one, and the setting of push notifications that comes with it.

    A message by itself, and anything else that is not A2A's request, is returned as it is, without a setting.
    """
    message = request.get("message")
    if "role" in request or not isinstance(message, dict):
        return request, None
    configuration = request.get("configuration")
    members = configuration if isinstance(configuration, dict) else {}
    return message, next((members[name] for name in _PUSH_NOTIFICATIONS if members.get(name) is not None), None)


def push_notification_config(given: Json, config_id: str) -> Json:
    """Return a setting of push notifications of either version in 1.x's format.

    Args:
        config_id: the id of a setting that has none.

    Raises:
        InputError: a member is not valid; names it.
    """
    config = given.get("pushNotificationConfig", given) if isinstance(given, dict) else None
    if not isinstance(config, dict):
        raise InputError("the setting of push notifications is not an object with a url")
    authentication = config.get("authentication")
    if authentication is not None:
        if not isinstance(authentication, dict):
            raise InputError("authentication: is not an object with a scheme and credentials")
        schemes = authentication.get("schemes")  # of 0.3
        scheme = authentication.get("scheme", schemes[0] if isinstance(schemes, list) and schemes else None)
        authentication = {"scheme": scheme, "credentials": authentication.get("credentials")}
        authentication = _given_texts(authentication, "authentication.")
        if "scheme" not in authentication:
            raise InputError("authentication.scheme: is missing: give one such as Bearer")
    members = _given_texts({name: config.get(name) for name in ("id", "url", "token")}, "")
    if not members.get("url", "").startswith(("http://", "https://")):
        raise InputError("url: expected the http or https URL that the agent is to notify")
    if not re.fullmatch(_CONFIG_ID, members.get("id", config_id)):  # a2a-sdk writes it into paths as it is
        raise InputError("id: expected at most 255 letters, digits and the characters _ and -")
    return {"id": config_id} | members | ({} if authentication is None else {"authentication": authentication})


def without_secrets(config: Json) -> Json:
    """Return a setting of push notifications without its token and credentials."""
    shown = _without(config, "token")
    if "authentication" in shown:
        shown["authentication"] = _without(shown["authentication"], "credentials")
    return shown


def _given_texts(values: Json, path: str) -> Json:
    for name, value in values.items():
        if not isinstance(value, str | None):
            raise InputError(f"{path}{name}: is not a text")  # without the value, which may be a secret
    return {name: value for name, value in values.items() if value}


# Agent cards with the members that clients of both versions require

_TEXTS = ("name", "description", "version")
_LISTS = ("defaultInputModes", "defaultOutputModes")
_SKILL_TEXTS = ("id", "name", "description")


def readable_card(card: Json) -> Json:
    """Return a card with all members that A2A 0.3 or 1.x requires."""
    complete = card | _texts(card, _TEXTS) | {name: _text_list(card.get(name)) for name in _LISTS}
    complete["capabilities"] = card["capabilities"] if isinstance(card.get("capabilities"), dict) else {}
    skills = _objects(card.get("skills"))
    complete["skills"] = [
        skill | _texts(skill, _SKILL_TEXTS) | {"tags": _text_list(skill.get("tags"))} for skill in skills
    ]
    if not isinstance(card.get("url"), str):
        interfaces = [each for each in _objects(card.get("supportedInterfaces")) if isinstance(each.get("url"), str)]
        first = interfaces[0] if interfaces else {}
        complete["url"] = first.get("url", "")
        for name, member in (("preferredTransport", "protocolBinding"), ("protocolVersion", "protocolVersion")):
            if isinstance(first.get(member), str) and name not in card:
                complete[name] = first[member]
    if "securitySchemes" in card and not _are_v03_schemes(card["securitySchemes"]):
        del complete["securitySchemes"]  # a scheme of 0.3 has a type; one of 1.x is in a member named by its type
    return complete


def minimal_card(card: Json) -> Json:
    """Return a card with only the members that A2A requires."""
    complete = readable_card(card)
    minimal = {name: complete[name] for name in (*_TEXTS, *_LISTS, "url")}
    minimal["skills"] = [{name: skill[name] for name in (*_SKILL_TEXTS, "tags")} for skill in complete["skills"]]
    capabilities = complete["capabilities"]
    minimal["capabilities"] = {name: capabilities.get(name) is True for name in ("streaming", "pushNotifications")}
    return minimal


def with_interfaces(card: Json) -> Json:
    """Return a card with the interfaces of 1.x, which has no other member for an agent's URL."""
    if card.get("supportedInterfaces") or not isinstance(card.get("url"), str):
        return card
    interface = {
        "url": card["url"],
        "protocolBinding": card.get("preferredTransport") or "JSONRPC",
        "protocolVersion": card.get("protocolVersion") or "0.3",
    }
    return card | {"supportedInterfaces": [interface]}


def _texts(value: Json, names: Iterable[str]) -> Json:
    return {name: value[name] if isinstance(value.get(name), str) else "" for name in names}


def _text_list(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _objects(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _are_v03_schemes(schemes: Any) -> bool:
    return isinstance(schemes, dict) and all(isinstance(each, dict) and "type" in each for each in schemes.values())


# Artifacts as events and back: whole artifacts, and chunks that continue them

_EVENT_MEMBERS: dict[str, type] = {"artifactId": str, "parts": list, "name": str, "description": str, "metadata": dict}


def artifact_event(
    task_id: UUID,
    artifact: Json,
    *,
    append: bool,
    last_chunk: bool,
    update: Json | None = None,
    continues: bool = False,
) -> TaskArtifactAdded | TaskArtifactExtended:
    """Return the event for an artifact, or a chunk of one, with all of its members.

    Args:
        update: further members of the update that contained the artifact.
        continues: whether the chunk's first text continues the artifact's last part.
    """
    members = {name: artifact[name] for name, kind in _EVENT_MEMBERS.items() if isinstance(artifact.get(name), kind)}
    extra = {name: value for name, value in artifact.items() if name not in members}
    content: dict[str, Any] = {
        "task_id": task_id,
        "artifact_id": members.pop("artifactId", ""),
        "parts": members.pop("parts", []),
        "last_chunk": last_chunk,
        "extra": extra or None,
        "update": update or None,
        **members,
    }
    return TaskArtifactExtended(**content, continues_text=continues or None) if append else TaskArtifactAdded(**content)


def assemble_artifacts(chunks: Iterable[Json]) -> list[Json]:
    """Return the wire artifacts that a task's chunks add up to, in the order in which they began.

    A chunk that begins an artifact replaces an earlier one of the same id. A chunk that continues an unknown artifact
    begins it: the first chunks may not have been received.

    Args:
        chunks: the chunks of :attr:`projections.Task.artifacts`, oldest first.
    """
    artifacts: dict[str, Json] = {}
    for chunk in chunks:
        add_chunk(artifacts, chunk)
    return list(artifacts.values())


def add_chunk(artifacts: dict[str, Json], chunk: Json) -> None:
    """Add a chunk to the wire artifacts of a task, which have their ids as keys; see :func:`assemble_artifacts`."""
    artifact = chunk_to_wire(chunk)
    if chunk["extends"] and (known := artifacts.get(chunk["artifact_id"])) is not None:
        artifact = append_chunk(known, artifact, continues=chunk["continues_text"])
    artifacts[chunk["artifact_id"]] = artifact


def chunk_to_wire(chunk: Json) -> Json:
    """Return a chunk as the wire artifact that it was sent as."""
    artifact: Json = {"artifactId": chunk["artifact_id"], "parts": chunk["parts"]}
    artifact |= {name: chunk[name] for name in ("name", "description", "metadata") if chunk[name] is not None}
    return artifact | (chunk["extra"] or {})


def append_chunk(artifact: Json, chunk: Json, *, continues: bool = False) -> Json:
    """Return an artifact with a chunk appended: parts and metadata of both; of other members, the artifact's.

    Args:
        continues: whether the chunk's first text continues the artifact's last part.
    """
    whole = chunk | artifact
    parts, further = artifact.get("parts"), chunk.get("parts")
    if isinstance(parts, list) and isinstance(further, list):
        if continues and parts and further and _has_text(parts[-1]) and _has_text(further[0]):
            last = parts[-1] | {"text": parts[-1]["text"] + further[0]["text"]}
            parts, further = [*parts[:-1], last], further[1:]
        whole["parts"] = parts + further
    if isinstance(artifact.get("metadata"), dict) and isinstance(chunk.get("metadata"), dict):
        whole["metadata"] = artifact["metadata"] | chunk["metadata"]
    return whole


def artifact_delta(known: Json, artifact: Json) -> tuple[Json, bool] | None:
    """Return the chunk by which an artifact grew, and whether it continues the last text; None if it changed otherwise.

    ``append_chunk(known, chunk, continues=...)`` equals ``artifact``.
    """
    before, now = known.get("parts"), artifact.get("parts")
    if not isinstance(before, list) or not isinstance(now, list) or len(now) < len(before):
        return None
    chunk = {name: value for name, value in artifact.items() if name == "artifactId" or known.get(name) != value}
    continues = bool(before) and before[-1] != now[len(before) - 1]
    further = now[len(before) - continues :]
    if continues:
        longer, text = further[0], before[-1].get("text") if isinstance(before[-1], dict) else None
        if not (_has_text(longer) and isinstance(text, str) and longer["text"].startswith(text)):
            return None
        further[0] = longer | {"text": longer["text"][len(text) :]}
    chunk["parts"] = further
    return (chunk, continues) if append_chunk(known, chunk, continues=continues) == artifact else None


def merge_texts(artifact: Json) -> Json:
    """Return an artifact with consecutive text parts merged if they are otherwise equal."""
    if not isinstance(artifact.get("parts"), list):
        return artifact
    groups: list[tuple[Any, list[str]]] = []  # a part, without its text, and the texts of the group
    for part in artifact["parts"]:
        rest, texts = (part | {"text": ""}, [part["text"]]) if _has_text(part) else (part, [])
        if texts and groups and groups[-1][1] and groups[-1][0] == rest:
            groups[-1][1].extend(texts)
        else:
            groups.append((rest, texts))
    return artifact | {"parts": [rest | {"text": "".join(texts)} if texts else rest for rest, texts in groups]}


# Tasks of the read tables as wire JSON


def task_to_wire(row: Task, version: Version | None = None, *, context_id: str | None = None) -> Json:
    """Return a task as its agent sent it, with all later changes.

    Args:
        row: a row of the table ``tasks``.
        version: the version of the JSON; None for the version that each value was sent in.
        context_id: the id that the client chose for the conversation, for a task whose agent sent no context.
    """
    extra = row.extra or {}
    task: Json = {"id": str(row.id) if row.given_id is None else row.given_id}
    if context_id is not None:
        task["contextId"] = context_id
    task["status"] = status_to_wire(row.status, row.status_message, row.status_extra)
    if artifacts := assemble_artifacts(row.artifacts):
        task["artifacts"] = artifacts
    if row.metadata is not None:
        task["metadata"] = row.metadata
    task |= extra
    return task if version is None else task_in_version(task, version)


def status_to_wire(status: TaskStatus | str, message: Json | None, extra: Json | None) -> Json:
    """Return the status of a task as its agent sent it."""
    wire: Json = dict(extra or {})
    wire["state"] = readable_state(wire.get("state", state_name(status, "0.3")))
    return wire if message is None else wire | {"message": message}


def apply_description(known: Json | None, extra: Json | None, history: list[Any] | None) -> Json | None:
    """Return the further members of a task after an event that describes it, see :class:`eventstore.TaskDescribed`."""
    if history is None:
        return known if extra is None else extra
    rest = known or {} if extra is None else extra
    before = (rest if "history" in rest else known or {}).get("history")
    return rest | {"history": [*(before if isinstance(before, list) else []), *history]}
