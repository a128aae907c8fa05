"""The order of the members of JSON objects, which ``jsonb`` does not keep.

``jsonb`` orders the members of an object by the length of their keys, then by their bytes. So that a content comes
back in the order in which it was sent, an event's metadata has the member :data:`MEMBER` if that order is another. It
is made when the event is encoded and applied when the event or a row made of it is read; events without it, such as
those that were appended in plain SQL, are read in the order of ``jsonb``.

The order of a value is a list with an entry for each distinct set of keys of two or more, in the sequence in which a
walk through the stored value meets them first, each object before its members. An entry is 0 if all objects with these
keys are in the stored order; else the places, in the stored order, of the members as they were sent; or, if objects
with these keys differ, ``{"each": [...]}`` with one such entry for each of them. Entries of 0 at the end are left out.
``{"name": …, "date": …}`` has the order ``[[1, 0]]``, and so has a list of a thousand such objects.

Whatever is stored there, reading never fails: what does not fit the value is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic_core import to_json

MEMBER = "eventstore.member_order"
"""In the metadata of an event: ``content`` and ``metadata`` with the orders of their values. The content of a built-in
event has an order for each of its members, that of another event one for the whole."""

Order: TypeAlias = list[Any]
_CONTAINERS = (dict, list)


def encode(value: Any) -> Order | None:
    """Return the order of a value; None if it is the stored one.

    Args:
        value: a JSON value whose keys are texts.
    """
    if _is_stored_order(value):  # of most values; quicker than what follows
        return None
    found: dict[tuple[str, ...], list[Any]] = {}
    _collect(value, found)
    order = [places[0] if all(one == places[0] for one in places) else {"each": places} for places in found.values()]
    while order and order[-1] == 0:
        order.pop()
    return order or None


def encode_members(members: Mapping[str, Any]) -> dict[str, Order] | None:
    """Return the orders of the values of an object by name; None if all are the stored ones."""
    orders = {
        name: order
        for name, value in members.items()
        if isinstance(value, _CONTAINERS) and (order := encode(value)) is not None
    }
    return orders or None


def restore(value: Any, order: object) -> None:
    """Bring the members of the objects in a value, as it was read, into an order, in place."""
    if isinstance(order, list) and isinstance(value, _CONTAINERS):
        _arrange(value, order, {}, {})


def restore_members(members: Mapping[str, Any], orders: object) -> None:
    """Bring the values of an object into their orders, in place."""
    if isinstance(orders, dict):
        for name, order in orders.items():
            restore(members.get(name), order)


def arranged(names: list[str], places: object) -> list[str]:
    """Return the names in the sequence of their places; as they are if the places do not fit."""
    if not _fits(places, len(names)):
        return names
    return [names[place] for place in places]  # type: ignore[attr-defined]


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
    """The names in the order of ``jsonb``: texts compare like their bytes in UTF-8."""
    ordered = sorted(names)
    ordered.sort(key=len if "".join(ordered).isascii() else _bytes)
    return ordered


def _bytes(name: str) -> int:
    return len(name.encode())


def _collect(value: dict[str, Any] | list[Any], found: dict[tuple[str, ...], list[Any]]) -> None:
    items: Iterable[Any] = value
    if isinstance(value, dict):
        names = list(value)
        stored = names
        if len(names) > 1:
            stored = _stored(names)
            places: Any = 0
            if stored != names:
                place_of = {name: place for place, name in enumerate(stored)}
                places = [place_of[name] for name in names]
            found.setdefault(tuple(stored), []).append(places)
        items = [value[name] for name in stored]
    for item in items:
        if isinstance(item, _CONTAINERS):
            _collect(item, found)


def _arrange(
    value: dict[str, Any] | list[Any], order: Order, numbers: dict[tuple[str, ...], int], counts: dict[int, int]
) -> None:
    places: Any = 0
    if isinstance(value, dict) and len(value) > 1:
        number = numbers.setdefault(tuple(value), len(numbers))
        places = order[number] if number < len(order) else 0
        if isinstance(places, dict):
            each, count = places.get("each"), counts.get(number, 0)
            counts[number] = count + 1
            places = each[count] if isinstance(each, list) and count < len(each) else 0
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, _CONTAINERS):
            _arrange(item, order, numbers, counts)
    if isinstance(value, dict) and _fits(places, len(value)):
        members = list(value.items())
        value.clear()
        value.update(members[place] for place in places)


def _fits(places: object, number: int) -> bool:
    """Whether the places are a permutation of so many."""
    return (
        isinstance(places, list)
        and len(places) == number
        and all(type(place) is int for place in places)
        and sorted(places) == list(range(number))
    )


def with_member_order(metadata: bytes, content: Any, own: dict[str, Any] | None) -> bytes:
    """Return the metadata of an event, as JSON, with the orders that are not the stored ones.

    Args:
        content: the order of the members in the content; None if it is the stored one.
        own: the application's own members of the metadata.
    """
    own_order = encode(own) if own else None
    if content is None and own_order is None:
        return metadata
    orders = {name: order for name, order in (("content", content), ("metadata", own_order)) if order is not None}
    member = b'"%s":%s' % (MEMBER.encode(), to_json(orders))
    return b"{%s}" % b",".join(filter(None, (metadata[1:-1], member)))
