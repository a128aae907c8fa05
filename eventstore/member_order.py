"""The order of the members of JSON objects, which ``jsonb`` does not keep.

``jsonb`` orders the members of an object by the length of their keys, then by their bytes. If a content was sent in
another order, the metadata of its event has the member :data:`MEMBER`. It is made when the event is encoded, and
applied when the event or a row made from it is read. Events without it, such as those that were appended in plain SQL,
are read in the order of ``jsonb``.

The order of a value is a list with an entry for each distinct set of two or more keys, in the sequence of their first
occurrence in a preorder traversal of the stored value. An entry is 0 if all objects with these keys are in the stored
order; otherwise it lists, for the members as they were sent, their indices in the stored order; or, if objects with
these keys differ, it is ``{"each": [...]}`` with one such entry for each of them. Entries of 0 at the end are left out.
``{"name": …, "date": …}`` has the order ``[[1, 0]]``, and so has a list of a thousand such objects.

Reading never fails, whatever is stored there: an order that does not fit the value is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeGuard

from pydantic_core import to_json

MEMBER = "eventstore.member_order"
"""The member of the metadata with the orders of ``content`` and ``metadata``. The content of a built-in event has an
order for each of its members, any other content a single one."""

Order: TypeAlias = list[Any]
_CONTAINERS = (dict, list)


def encode(value: Any) -> Order | None:
    """Return the order of a JSON value; None if it is the stored one."""
    if _is_stored_order(value):  # a fast check, which most values pass
        return None
    entries: dict[tuple[str, ...], list[Any]] = {}
    _collect(value, entries)
    order = [each[0] if all(entry == each[0] for entry in each) else {"each": each} for each in entries.values()]
    while order and order[-1] == 0:
        order.pop()
    return order or None


def encode_members(members: Mapping[str, Any]) -> dict[str, Order] | None:
    """Return the orders of the values of an object by name; None if all are stored ones."""
    orders = {
        name: order
        for name, value in members.items()
        if isinstance(value, _CONTAINERS) and (order := encode(value)) is not None
    }
    return orders or None


def restore(value: Any, order: object) -> None:
    """Arrange the members of the objects in a value, as it was read, in an order, in place."""
    if isinstance(order, list) and isinstance(value, _CONTAINERS):
        _arrange(value, order, {}, {})


def restore_members(members: Mapping[str, Any], orders: object) -> None:
    """Arrange the members of the objects in the values of an object in their orders, in place."""
    if isinstance(orders, dict):
        for name, order in orders.items():
            restore(members.get(name), order)


def arranged(names: list[str], indices: object) -> list[str]:
    """Return the names in the sequence of the indices; unchanged if the indices do not fit."""
    if not _fits(indices, len(names)):
        return names
    return [names[index] for index in indices]


def _is_stored_order(value: Any) -> bool:
    items: Iterable[Any] = value
    if isinstance(value, dict):
        size, last = 0, ""
        for name in value:
            before, size = size, len(name) if name.isascii() else _bytes(name)
            if size < before or (size == before and name < last):
                return False
            last = name
        items = value.values()
    elif not isinstance(value, list):
        return True
    return all(not isinstance(item, _CONTAINERS) or _is_stored_order(item) for item in items)


def _stored(names: Iterable[str]) -> list[str]:
    """Return the names in the order of ``jsonb``: texts compare like their bytes in UTF-8."""
    ordered = sorted(names)
    ordered.sort(key=len if "".join(ordered).isascii() else _bytes)
    return ordered


def _bytes(name: str) -> int:
    return len(name.encode())


def _collect(value: dict[str, Any] | list[Any], entries: dict[tuple[str, ...], list[Any]]) -> None:
    items: Iterable[Any] = value
    if isinstance(value, dict):
        sent = list(value)
        stored = _stored(sent) if len(sent) > 1 else sent
        if len(sent) > 1:
            entry: Any = 0
            if stored != sent:
                index_of = {name: index for index, name in enumerate(stored)}
                entry = [index_of[name] for name in sent]
            entries.setdefault(tuple(stored), []).append(entry)
        items = [value[name] for name in stored]
    for item in items:
        if isinstance(item, _CONTAINERS):
            _collect(item, entries)


def _arrange(
    value: dict[str, Any] | list[Any], order: Order, numbers: dict[tuple[str, ...], int], counts: dict[int, int]
) -> None:
    indices: Any = 0
    if isinstance(value, dict) and len(value) > 1:
        number = numbers.setdefault(tuple(value), len(numbers))
        indices = order[number] if number < len(order) else 0
        if isinstance(indices, dict):
            each, count = indices.get("each"), counts.get(number, 0)
            counts[number] = count + 1
            indices = each[count] if isinstance(each, list) and count < len(each) else 0
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, _CONTAINERS):
            _arrange(item, order, numbers, counts)
    if isinstance(value, dict) and _fits(indices, len(value)):
        members = list(value.items())
        value.clear()
        value.update(members[index] for index in indices)


def _fits(indices: object, number: int) -> TypeGuard[list[int]]:
    """Return whether the indices are a permutation."""
    return (
        isinstance(indices, list)
        and len(indices) == number
        and all(type(index) is int for index in indices)
        and sorted(indices) == list(range(number))
    )


def with_member_order(metadata: bytes, content: Any, extra: dict[str, Any] | None) -> bytes:
    """Return the metadata of an event, as JSON, with the orders that differ from the stored ones.

    Args:
        content: the order of the members in the content; None for the stored one.
        extra: the application's members of the metadata.
    """
    extra_order = encode(extra) if extra else None
    if content is None and extra_order is None:
        return metadata
    orders = {name: order for name, order in (("content", content), ("metadata", extra_order)) if order is not None}
    member = b'"%s":%s' % (MEMBER.encode(), to_json(orders))
    return b"{%s}" % b",".join(filter(None, (metadata[1:-1], member)))
