"""Instances of pydantic models and of protobuf messages as plain JSON, and back."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ValidationError

from agent_manager.manager.views import Json
from eventstore.errors import InputError, printable


def to_wire(value: Any) -> Json:
    """An instance, whatever its class, as it is on the wire. A dictionary is taken for that already.

    Raises:
        InputError: it is neither a model, nor a protobuf message, nor a dictionary, or cannot be written as JSON.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, BaseModel):
        # What was never set stays away; what was set to None is sent as null by nobody, and refused by some.
        # Values that the model did not expect are no matter for a warning: as JSON they are checked like all others.
        return _written(value, lambda: value.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False))
    if hasattr(type(value), "DESCRIPTOR"):
        return _written(value, lambda: _json_format().MessageToDict(value))
    raise InputError(
        f"a {type(value).__name__} is no message: give an instance of the application's class, or its JSON as a dict"
    )


def _written(value: Any, write: Callable[[], Json]) -> Json:
    try:
        return write()
    except (ValueError, TypeError, RecursionError) as error:  # among them pydantic's, and those of lone surrogates
        raise InputError(f"this {type(value).__name__} cannot be written as JSON: {printable(str(error))}") from None


def from_wire(kind: type, sent: Json) -> Any:
    """An instance of a pydantic or protobuf class.

    Raises:
        InputError: what is stored has no place in this class.
    """
    try:
        if hasattr(kind, "DESCRIPTOR"):
            return _parsed(kind, sent)
        return kind.model_validate(sent)  # type: ignore[attr-defined]
    except (ValidationError, ValueError, TypeError) as error:
        raise InputError(f"what is stored does not fit the application's class {kind.__name__}: {error}") from None


def _parsed(kind: type, sent: Json) -> Any:
    json_format = _json_format()
    try:
        return json_format.ParseDict(sent, kind(), ignore_unknown_fields=True)
    except json_format.Error as error:  # which is no ValueError
        raise ValueError(str(error)) from None


def is_protobuf(kind: type) -> bool:
    """Whether the class is one of protobuf, as a2a-sdk 1.x has them."""
    return hasattr(kind, "DESCRIPTOR")


def _json_format() -> Any:
    return import_module("google.protobuf.json_format")
