"""A conversation that was imported before, under another title or with other further members."""

from __future__ import annotations

from dataclasses import replace

from agent_manager.importing.beginnings import BegunElsewhere
from agent_manager.importing.chatlog import IMPORTER
from agent_manager.importing.checked import Checked
from eventstore import Append, ConversationCreated, ConversationRenamed, EventStore, NewEvent
from eventstore.errors import printable
from eventstore.ids import derived_uuid


async def continued(store: EventStore, tenant: str, ready: Checked) -> Checked:
    """Return the same without its first event, which the log holds already; with a renaming if the title is another.

    Raises:
        BegunElsewhere: the stored conversation has another id as given (a text, and the UUID made from it).
    """
    conversation_id = ready.conversation.id
    created = ready.conversation.events[0].data
    assert isinstance(created, ConversationCreated)
    [stored] = [event async for event in store.read(conversation_id, limit=1, tenant=tenant)]
    if stored.content.get("given_id") != created.given_id:
        given_id = stored.content.get("given_id") or str(conversation_id)
        raise BegunElsewhere(f"its UUID is that of the stored conversation {printable(given_id)!r}: give it another id")
    names = store.read(
        conversation_id, types=["conversation.created", "conversation.renamed"], backwards=True, limit=1, tenant=tenant
    )
    present = [event.content.get("name", "") async for event in names]
    first, *others = ready.parts
    events = list(first.events[1:])
    if present != [created.name]:
        renamed_id = derived_uuid("import", tenant, str(conversation_id), "renamed", created.name)
        events.insert(0, NewEvent(ConversationRenamed(name=created.name), renamed_id, IMPORTER))
    parts = [Append(conversation_id, events), *others] if events else others
    return replace(ready, parts=parts)
