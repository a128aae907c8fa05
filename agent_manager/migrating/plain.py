"""Instances of an application's classes as plain JSON, whatever they are made with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from agent_manager.migrating.source import SourceUnreadable


def plain(value: Any) -> Any:
    """The JSON of a value: of models of pydantic and protobuf as they are on the wire, and of what holds them.

    Raises:
        SourceUnreadable: there is something in it that has no JSON.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, BaseModel):
        return _of_model(value)
    if hasattr(value, "DESCRIPTOR"):
        return _of_protobuf(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return {name: plain(item) for name, item in vars(value).items() if not name.startswith("_")}
    raise SourceUnreadable(f"a {type(value).__name__} has no JSON form: give models of pydantic or protobuf, or dicts")


def _of_model(value: BaseModel) -> Any:
    try:
        return value.model_dump(mode="json", by_alias=True)
    except (
        PydanticSerializationError
    ):  # it holds something else than models, such as a conversation of protobuf messages
        fields = type(value).model_fields.items()
        members = {field.serialization_alias or name: getattr(value, name) for name, field in fields}
        return plain(members | (value.model_extra or {}))


def _of_protobuf(value: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(value)
