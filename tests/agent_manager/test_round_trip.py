"""Every message is read as it was sent, whatever its contents."""

from __future__ import annotations

from itertools import count
from operator import itemgetter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import ServerLog
from eventstore import Settings, SyncEventStore

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=20)
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x != 0)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)
FILES = st.fixed_dictionaries({"bytes": TEXT}, optional={"mimeType": TEXT, "name": TEXT}) | st.fixed_dictionaries(
    {"uri": TEXT}
)
OLD_PARTS = st.one_of(
    st.builds(lambda text: {"kind": "text", "text": text}, TEXT),
    st.builds(lambda data: {"kind": "data", "data": data}, OBJECTS),
    st.builds(lambda file, metadata: {"kind": "file", "file": file, "metadata": metadata}, FILES, OBJECTS),
)
NEW_PARTS = st.one_of(
    st.builds(lambda text: {"text": text}, TEXT),
    st.builds(lambda data, metadata: {"data": data, "metadata": metadata}, JSON, OBJECTS),
    st.builds(lambda raw: {"raw": raw, "mediaType": "image/png", "filename": "a"}, TEXT),
)
MORE = {
    "metadata": st.none() | OBJECTS, "extensions": st.lists(TEXT), "referenceTaskIds": st.none() | st.lists(TEXT),
    "taskId": st.none() | TEXT, "contextId": TEXT.filter(lambda text: text and not text.startswith("eventstore:")),
    "x-of-tomorrow": JSON, "content": JSON,
}  # fmt: skip
OLD = st.fixed_dictionaries(
    {"kind": st.just("message"), "role": st.sampled_from(["user", "agent"]), "messageId": TEXT,
     "parts": st.lists(OLD_PARTS | JSON, max_size=4)},
    optional=MORE,
)  # fmt: skip
NEW = st.fixed_dictionaries(
    {"role": st.sampled_from(["ROLE_USER", "ROLE_AGENT"]), "messageId": TEXT, "parts": st.lists(NEW_PARTS, max_size=4)},
    optional=MORE,
)
# A message that is sent again is stored once, in the order of the first: see test_repeated_messages.py.
LISTS = st.one_of(st.lists(each, min_size=1, max_size=4, unique_by=itemgetter("messageId")) for each in (OLD, NEW))
_TENANTS = count(1)


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal as JSON, including the order of members."""
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def test_every_message_is_read_as_it_was_sent(settings: Settings) -> None:
    with SyncEventStore(settings) as store:

        async def there_and_back(messages: list[dict[str, Any]]) -> None:
            tenant = f"tenant-{next(_TENANTS)}"
            log = ServerLog(store.asynchronous, tenant)
            for manager in (Manager(log), Manager(MemoryLog(tenant))):
                accepted = [(await manager.accept(message, "c")).message for message in messages]
                assert same(accepted, messages)
                assert same((await manager.messages("c"))[: len(messages)], messages)
                saved = [await manager.save_message(message) for message in messages]
                known = [message for view in await manager.conversations() for message in view.messages]
                for message, stored in zip(messages, saved, strict=True):
                    assert same(stored, message | {"contextId": stored["contextId"]})
                    assert any(same(stored, each) for each in known)
            fresh = await Manager(log).messages("c")
            assert same(fresh[: len(messages)], messages)

        @given(LISTS)
        def run(messages: list[dict[str, Any]]) -> None:
            store.portal.call(there_and_back(messages))

        run()
