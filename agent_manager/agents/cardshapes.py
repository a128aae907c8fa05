"""Agent cards for the clients of both versions of A2A: each finds in a card what its version demands.

What an agent gave stays. What lacks, or is of another kind than it must be, is filled in: one card that a client
cannot read costs it all others.
"""

from __future__ import annotations

from typing import Any

from agent_manager.agents.wire import Json

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


def least_card(card: Json) -> Json:
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
