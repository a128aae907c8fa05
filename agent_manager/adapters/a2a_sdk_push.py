"""The settings of push notifications of a2a-sdk in an event store."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from a2a.server.tasks.push_notification_config_store import PushNotificationConfigStore
from cryptography.fernet import Fernet, InvalidToken

from agent_manager.a2a import Json, without_secrets
from agent_manager.adapters.a2a_sdk_state import USER
from agent_manager.adapters.a2a_sdk_tasks import Tasks
from agent_manager.adapters.a2a_sdk_values import (
    CONFIG_CLASS,
    HAS_TASK_ID,
    OwnerResolver,
    from_json,
    in_stored_order,
    to_json,
    user_name,
)
from agent_manager.adapters.store_access import StoreAccess, finished_in_store_loop, in_store_loop
from eventstore import EXISTS, NO_STREAM, ApplicationEvent, EventStore, NewEvent, SyncEventStore
from eventstore.errors import Forbidden, InputError, WrongExpectedVersion, printable
from eventstore.json_text import from_json as parsed
from eventstore.json_text import to_json as as_json

_CONFIG = "a2a.push_notification"
_logger = logging.getLogger(__name__)


class EventStorePushNotificationConfigStore(PushNotificationConfigStore):
    """The settings of push notifications of A2A tasks in an event store.

    Args:
        store: an open store; the caller closes it. Any thread and any event loop may use the settings.
        encryption_key: a Fernet key, with which settings are encrypted. The log keeps what it contains for good, so a
            setting that has a token or credentials is refused without a key.
        owner_resolver: returns the user of a call.
    """

    def __init__(
        self,
        store: EventStore | SyncEventStore,
        encryption_key: str | bytes | None = None,
        owner_resolver: OwnerResolver = user_name,
    ) -> None:
        self._access = StoreAccess(store)
        self._tasks = Tasks(self._access)
        self._owner = owner_resolver
        self._fernet = None if encryption_key is None else Fernet(encryption_key)

    async def initialize(self) -> None:
        """Do nothing, for applications that call it: the store is open."""

    @finished_in_store_loop
    async def set_info(self, task_id: str, notification_config: Any, context: Any = None) -> Any:
        """Store a setting, which replaces one with the same id, and return it with its ids.

        Raises:
            InputError: it has a token or credentials, and the store has no encryption key.
        """
        config = to_json(notification_config)
        config |= {"id": config.get("id") or task_id} | ({"taskId": task_id} if HAS_TASK_ID else {})
        shown = without_secrets(config)
        content: Json = {"config": shown}
        if self._fernet is not None:
            content["sealed"] = self._fernet.encrypt(as_json(config, "config")).decode()
        elif shown != config:
            raise InputError(
                f"the push notifications of task {printable(task_id)!r} have a token or credentials, and the log would "
                "keep them for good: give EventStorePushNotificationConfigStore an encryption_key"
            )
        await self._append(task_id, self._owner(context), config["id"], content)
        return from_json(config, CONFIG_CLASS)

    @in_store_loop
    async def get_info(self, task_id: str, context: Any = None) -> list[Any]:
        """Return the settings of a task that the call's user has made."""
        return await self._configs(task_id, self._owner(context))

    @in_store_loop
    async def get_info_for_dispatch(self, task_id: str) -> list[Any]:
        """Return the settings of a task that any user has made."""
        return await self._configs(task_id, None)

    @finished_in_store_loop
    async def delete_info(self, task_id: str, context: Any = None, config_id: str | None = None) -> None:
        """Delete a setting of a task, or all that the call's user has made."""
        if not isinstance(context, str | None):
            owner = self._owner(context)
        else:  # 0.3 has no context before the id
            owner, config_id = self._owner(None), config_id or context
        settings = await self._settings(task_id)
        for its_owner, its_id in settings:
            if its_owner == owner and config_id in (None, its_id):
                await self._append(task_id, owner, its_id, {})

    async def _configs(self, task_id: str, owner: str | None) -> list[Any]:
        settings = await self._settings(task_id)
        wanted = [content for (its_owner, _), content in settings.items() if owner in (None, its_owner)]
        return [from_json(config, CONFIG_CLASS) for config in map(self._config, wanted) if config is not None]

    def _config(self, content: Json) -> Json | None:
        """Return the setting in an event; None if it was encrypted with another key, so that all others can be used."""
        if "sealed" not in content:
            config: Json = content["config"]
            return config
        with suppress(InvalidToken):
            if self._fernet is not None:
                opened: Json = parsed(self._fernet.decrypt(content["sealed"]))
                return opened
        _logger.error(
            "push notification %r of task %r is encrypted with another key: give "
            "EventStorePushNotificationConfigStore the encryption_key with which it was stored",
            content["config_id"], content["task_id"],
        )  # fmt: skip
        return None

    async def _settings(self, task_id: str) -> dict[tuple[str, str], Json]:
        """Return the settings of a task by their owners and ids."""
        found: dict[tuple[str, str], Json] = {}
        async for event in self._tasks.store.read(self._tasks.records_id(task_id), types=[_CONFIG]):
            if event.is_erased:
                continue
            key = event.content["owner"], event.content["config_id"]
            found.pop(key, None)
            if "config" in event.content:
                found[key] = event.content
        return found

    async def _append(self, task_id: str, owner: str, config_id: str, content: Json) -> None:
        content = in_stored_order({"task_id": task_id, "owner": owner, "config_id": config_id} | content)
        change = NewEvent(ApplicationEvent(_CONFIG, content), actor=owner or USER)
        records_id, is_begun = self._tasks.records_id(task_id), False
        while True:
            user, expected = (None, EXISTS) if is_begun else (owner or None, NO_STREAM)
            try:
                await self._access.append(self._access.store.caller(user=user), records_id, [change], expected)
            except (Forbidden, WrongExpectedVersion):
                is_begun = True  # perhaps by another user, such as the task's
            else:
                return
