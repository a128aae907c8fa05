"""The asynchronous manager: conversations, messages, tasks and agents as plain A2A JSON, in any storage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter, itemgetter
from typing import Self, cast
from uuid import UUID, uuid4

from agent_manager.a2a import Json, push_notification_config
from agent_manager.accepted_messages import Accepted, Key, Pending
from agent_manager.agent_registry import AgentRegistry
from agent_manager.agents.agent import Answer
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.answering import Answers
from agent_manager.conversation_cache import MAX_BYTES, ConversationFoldCache
from agent_manager.conversation_fold import ConversationFold, ConversationView, EventView, event_view
from agent_manager.errors import AnswerFailed, AnswerTaken
from agent_manager.storage import ClosableLog, Log
from agent_manager.task_requests import TaskRequests
from agent_manager.writer import Writer, checked_id, checked_message
from eventstore import (
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    EventData,
    NewEvent,
    conversation_uuid,
)
from eventstore.errors import (
    ConversationIsDeleted,
    InputError,
    NotFound,
    WrongExpectedVersion,
    printable,
)
from eventstore.ids import is_canonical_uuid


class Manager:
    """Conversations of one tenant, for the coroutines of one event loop.

    Reads contain everything that is in the log when they begin; they do not wait for the workers. Conversations are
    named by the ids that their clients gave.

    After ``async with``, calls raise ManagerClosed until the manager is entered again.

    Args:
        log: the storage.
        answer: the agent that answers messages; without one, messages get no reply.
        fold_bytes: approximate size of the contents of cached conversations.
        credentials: the credentials with which the cards of registered agents are fetched.

    Attributes:
        answers: the answers to the messages.
        task_requests: the requests of clients about tasks: to cancel them, and to be notified.
    """

    def __init__(
        self,
        log: Log,
        answer: Answer | None = None,
        fold_bytes: int = MAX_BYTES,
        credentials: AgentCredentials | None = None,
    ) -> None:
        self.tenant = log.tenant
        self.agent = answer
        self._closable = ClosableLog(log)
        self._log = log = cast(Log, self._closable)
        self._cache = ConversationFoldCache(log, fold_bytes)
        self._writer = Writer(log, self._cache)
        self._registry = AgentRegistry(log, self._cache, credentials)
        self._credentials = credentials
        self.answers = Answers(log, self._cache, self._writer, self._registry)
        self.task_requests = TaskRequests(log, self._cache, self._writer, answer)

    async def __aenter__(self) -> Self:
        self._closable.is_closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.answers.close()
        self._closable.is_closed = True

    # Conversations

    async def create_conversation(self, name: str = "", conversation_id: str | None = None) -> ConversationView:
        """Begin a conversation; return the existing one if there is one of this id.

        Raises:
            ConversationIsDeleted: the existing one is deleted.
            InputError: the name is too long, or name or id cannot be stored.
        """
        given_id = str(uuid4()) if conversation_id is None else checked_id(conversation_id)
        uuid = conversation_uuid(self.tenant, given_id)
        created = ConversationCreated(name=name, given_id=None if is_canonical_uuid(given_id) else given_id)
        with suppress(WrongExpectedVersion):  # the conversation exists
            await self._log.append(uuid, [NewEvent(created, actor="user")], expected="NO_STREAM")
        return await self._view(await self._existing(given_id))

    async def rename_conversation(self, conversation_id: str, name: str) -> ConversationView:
        """Rename a conversation.

        Raises:
            NotFound: there is no such conversation.
            InputError: the name is longer than 255 characters, or cannot be stored.
        """
        return await self._change(conversation_id, ConversationRenamed(name=name))

    async def archive_conversation(self, conversation_id: str) -> ConversationView:
        """Archive a conversation: it is no longer active. Raises NotFound."""
        return await self._change(conversation_id, ConversationArchived())

    async def reactivate_conversation(self, conversation_id: str) -> ConversationView:
        """Reactivate a conversation: it is active, and no longer hidden. Raises NotFound."""
        return await self._change(conversation_id, ConversationReactivated())

    async def delete_conversation(self, conversation_id: str) -> ConversationView:
        """Delete a conversation: lists hide it, and it rejects events until it is reactivated; nothing is lost.

        Deleting it again changes nothing. Raises NotFound.
        """
        with suppress(ConversationIsDeleted):
            return await self._change(conversation_id, ConversationDeleted())
        return await self._view(await self._existing(conversation_id))

    async def get_conversation(self, conversation_id: str) -> ConversationView | None:
        """Return a conversation, hidden or not; None if there is none. A fork begins with what it shares."""
        fold = await self._fold(conversation_id)
        return None if fold is None else await self._view(fold)

    async def fork_conversation(
        self,
        conversation_id: str,
        *,
        version: int | None = None,
        before: UUID | str | None = None,
        name: str | None = None,
    ) -> ConversationView:
        """Begin a conversation that continues another one; nothing is copied.

        Args:
            version: the last version that the fork shares; by default the latest.
            before: a message, by the id of its event or the latest with this ``messageId``: the fork shares everything
                before it. Instead of ``version``.
            name: of the fork; by default that of the conversation.

        Raises:
            NotFound: there is no such conversation or message, or it has not reached that version.
            ConversationIsDeleted: it is deleted.
            InputError: both ``version`` and ``before`` are given, or one of them is not valid.
        """
        if version is not None and before is not None:
            raise InputError("version, before: give one of them")
        fold = await self._existing(conversation_id)
        source = fold
        if before is not None:
            source, event_id = await self._place(fold, before)
            version = source.message_version(event_id) - 1
        if version is None:
            version = source.version
        elif isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise InputError(f"version: {version!r:.80} is not a version: give a number from 0")
        elif version > source.version:
            raise NotFound(
                f"conversation {conversation_id} is at version {source.version}: it has no version {version}"
            )
        if source.is_deleted:
            raise ConversationIsDeleted(source.id)
        forked = ConversationForked(
            source_conversation_id=source.id,
            source_version=version,
            name=(fold.name or None) if name is None else name,
        )
        fork = uuid4()
        await self._log.append(fork, [NewEvent(forked, actor="user")], expected="NO_STREAM")
        return await self._view(await self.conversation_fold(fork))

    async def edit_message(self, conversation_id: str, replaced: UUID | str, message: Json | None = None) -> Accepted:
        """Accept a message in place of another one, in a fork that shares everything before it.

        :meth:`answer` then answers it. The conversation itself does not change.

        Args:
            replaced: the message to replace, as for :meth:`fork_conversation`.
            message: by default the same one again, so that it gets another answer.

        Raises:
            NotFound: there is no such conversation or message.
            ConversationIsDeleted: the conversation is deleted.
            InputError: the message cannot be stored.
        """
        fold = await self._existing(conversation_id)
        source, event_id = await self._place(fold, replaced)
        if message is None:
            message = {name: value for name, value in source.messages[event_id].items() if name != "taskId"}
        checked_message(message)
        fork = await self.fork_conversation(conversation_id, before=event_id)
        return await self.accept(message | {"contextId": fork.conversation_id}, fork.conversation_id)

    async def conversations(
        self, *, include_archived: bool = True, include_deleted: bool = False
    ) -> list[ConversationView]:
        """Return all conversations, in the order in which they began."""
        folds = await self._cache.all_of(await self._log.conversations())
        views = [await self._view(fold) for fold in folds.values()]
        return [v for v in views if (include_archived or v.is_active) and (include_deleted or not v.is_deleted)]

    async def versions(self) -> dict[UUID, int]:
        """Return the versions of all conversations, in the order in which they began."""
        return await self._log.conversations()

    def folds(self, versions: Mapping[UUID, int | None], *, keep: bool = False) -> AsyncIterator[ConversationFold]:
        """Yield conversations at these versions or later, in the order given.

        Args:
            keep: whether to cache them.
        """
        return self._cache.each(versions, keep=keep)

    # Messages

    async def messages(self, conversation_id: str) -> list[Json]:
        """Return the messages of a conversation as they were sent, oldest first; none if it does not exist.

        A fork begins with those that it shares.
        """
        fold = await self._fold(conversation_id)
        return [] if fold is None else list((await self._view(fold)).messages)

    async def save_message(self, message: Json, conversation_id: str | None = None) -> Json:
        """Store a message that awaits no answer, in the same conversation as :meth:`accept`; return it as stored."""
        stored = await self._writer.add_message(checked_message(message), conversation_id, awaits_answer=False)
        return stored.message

    async def accept(
        self,
        message: Json,
        conversation_id: str | None = None,
        *,
        name: str = "",
        event_id: UUID | None = None,
        push_notification: Json | None = None,
    ) -> Accepted:
        """Store a message that awaits an answer. It is durable when this returns.

        The message is added to ``conversation_id``, else to the conversation of its ``contextId``, else to a new one,
        and then contains the id of that one. If the conversation has an open task, the message continues it.

        A message that the client has sent before, with the same ``messageId`` and body, is not stored again: the one
        accepted then is returned.

        Args:
            name: the name of the conversation if the message begins it.
            event_id: identifies repetitions of a message that has no ``messageId``.
            push_notification: a setting of push notifications for the first task of the answer, see
                :meth:`set_push_notification`. The agent receives it with the message.

        Raises:
            InputError: the message cannot be stored, or the setting is not valid.
            ConversationIsDeleted: the conversation is deleted.
            RequestUnsupported: the agent sends no push notifications.
        """
        config = None
        if push_notification is not None:
            self.task_requests.check_push_notifications()
            config = push_notification_config(push_notification, str(uuid4()))
        accepted = await self._writer.add_message(
            checked_message(message), conversation_id, awaits_answer=True, name=name, event_id=event_id
        )
        return replace(accepted, push_notification=config)

    async def send_message(self, conversation_id: str, message: Json) -> Json | None:
        """Accept a message and answer it; return the reply, None if the agent sends none.

        Raises:
            InputError: the message cannot be stored.
            AnswerFailed: the agent failed.
        """
        answered = await self.answers.answer_shared(self.agent, await self.accept(message, conversation_id))
        if answered.error is not None:
            raise AnswerFailed(answered.error)
        return answered.reply

    async def answer(self, accepted: Accepted) -> Json | None:
        """Answer a message and store the updates as they arrive; return the last message of the reply.

        An error of the agent is stored as the outcome. A message that is answered already is not answered again; one
        that is being answered is waited for.
        """
        return (await self.answers.answer_shared(self.agent, accepted)).reply

    async def pending(self) -> list[Pending]:
        """Return the messages that await an answer, of all processes, oldest first; none of a deleted conversation."""
        messages: defaultdict[UUID, list[UUID]] = defaultdict(list)
        for conversation, event_id in await self._log.pending():
            messages[conversation].append(event_id)
        pending = [
            fold.pending(event_id)
            async for fold in self._cache.each(dict.fromkeys(messages))
            if not fold.is_deleted
            for event_id in messages[fold.id]
        ]
        return sorted(pending, key=attrgetter("position"))

    async def accepted(self, pending: Pending) -> Accepted:
        """Return a pending message, such as that of a killed process, so that it can be answered.

        Raises:
            NotFound: there is no such message.
        """
        return await self.stored((pending.conversation, pending.event_id))

    async def stored(self, key: Key) -> Accepted:
        """Return an accepted message from the log.

        Raises:
            NotFound: there is no such message.
        """
        conversation, event_id = key
        fold = await self._cache.get(conversation)
        if fold is None or event_id not in fold.requests:
            raise NotFound(
                f"conversation {conversation} has no message {event_id} that was sent to be answered: pending() "
                "returns those that await an answer"
            )
        return Accepted(fold.given_id, fold.id, event_id, fold.messages[event_id], fold.requests[event_id].position)

    async def answer_pending(self) -> list[tuple[Pending, str | None]]:
        """Answer all pending messages, oldest first; return each with the error of its answer, if any.

        Messages that another process is answering are skipped. It takes some seconds to tell whether it still runs.
        """
        alive: set[UUID] = set()
        answered: list[tuple[Pending, str | None]] = []
        for pending in await self.pending():
            with suppress(AnswerTaken):
                accepted = await self.accepted(pending)
                answered.append((pending, (await self.answers.answer_shared(self.agent, accepted, alive)).error))
        return answered

    async def abandon(self, pending: Pending) -> None:
        """End the waiting of a pending message without an answer."""
        await self.answers.abandon(pending.conversation, pending.event_id, None)

    # Tasks, events, agents

    async def tasks(self, conversation_id: str | None = None) -> list[Json]:
        """Return the tasks of a conversation, or of all, as A2A JSON, in the order in which they began."""
        if conversation_id is not None:
            fold = await self._fold(conversation_id)
            fold = None if fold is None else await self._cache.with_shared_tasks(fold)
            return [] if fold is None else [fold.wire(task) for task in fold.tasks.values()]
        folds = await self._cache.all_of(await self._log.conversations_with_tasks())
        found = [(task.position, fold, task) for fold in folds.values() for task in fold.tasks.values()]
        return [fold.wire(task) for _, fold, task in sorted(found, key=itemgetter(0)) if not fold.is_deleted]

    async def cancel_task(self, conversation_id: str, task_id: str) -> Json:
        """Cancel a task at its agent, and store the state that the agent returns; return the task.

        A task that nobody works on, such as one that waits for input, is cancelled here if its agent has no function
        for it.

        Raises:
            NotFound: there is no such conversation or task.
            TaskNotCancelable, RequestUnsupported: the task has ended, or the agent cannot cancel it.
            AgentError: the agent did not answer.
        """
        return await self.task_requests.cancel(await self._existing(conversation_id), task_id)

    async def set_push_notification(self, conversation_id: str, task_id: str, config: Json) -> Json:
        """Let the agent of a task notify a URL of its changes; return the setting as it is stored, without secrets.

        Args:
            config: ``url`` and optionally ``id``, ``token`` and ``authentication``, as in A2A 0.3 or 1.x. The agent
                receives all of it; token and credentials are not stored.

        Raises:
            InputError: the setting is not valid.
            NotFound: there is no such conversation or task.
            RequestUnsupported: the agent sends no push notifications, or does not know the task.
            AgentError: the agent did not answer.
        """
        return await self.task_requests.set_push_notification(await self._existing(conversation_id), task_id, config)

    async def push_notifications(self, conversation_id: str, task_id: str) -> list[Json]:
        """Return the settings of push notifications of a task, without secrets. Raises NotFound."""
        return self.task_requests.push_notifications(await self._existing(conversation_id), task_id)

    async def push_notification(self, conversation_id: str, task_id: str, config_id: str) -> Json:
        """Return a setting of push notifications; to the actor who set it, with its secrets, if the agent returns it.

        Raises:
            NotFound: there is no such setting.
        """
        return await self.task_requests.push_notification(await self._existing(conversation_id), task_id, config_id)

    async def delete_push_notification(self, conversation_id: str, task_id: str, config_id: str) -> None:
        """Delete a setting of push notifications at the agent, and here.

        Raises:
            NotFound: there is no such setting.
            RequestUnsupported: the agent cannot delete it.
            AgentError: the agent did not answer.
        """
        await self.task_requests.delete_push_notification(await self._existing(conversation_id), task_id, config_id)

    async def events(self, *, after: int = 0, limit: int | None = None) -> list[EventView]:
        """Return the events after a position, oldest first; those among the latest ``limit`` that are not deleted.

        Raises:
            InputError: one of the arguments is not a number, or is negative.
        """
        for name, value in (("after", after), ("limit", 0 if limit is None else limit)):
            if not isinstance(value, int) or value < 0:
                raise InputError(f"{name}: {value!r:.80} is not a number of 0 or more")
        events = await self._log.latest(after, limit)
        folds = self._cache.each({event.conversation_id: event.version for event in events})
        summaries = {fold.id: fold.summary async for fold in folds}
        views = [
            event_view(event, conversation)
            for event in events
            if (conversation := summaries.get(event.conversation_id)) is not None and not conversation.is_deleted
        ]
        return [view for view in views if view is not None]

    async def position(self) -> int:
        """Return the position up to which the log is final: while it is the same, reads give the same results."""
        return await self._log.position()

    async def register_agent(self, url_or_card: str | Json, *, allow_private: bool = True) -> Json:
        """Register an agent by the URL of its card, or by the card itself; return the card.

        Args:
            allow_private: fetch a card also from an address that is not global: private, loopback, link-local.

        Raises:
            InputError: the URL is not valid, or the card has none.
            AgentUnreachable: the card could not be fetched.
        """
        return await self._registry.register(url_or_card, allow_private=allow_private)

    async def unregister_agent(self, url: str) -> None:
        """Remove the registration of an agent. Raises NotFound if none is registered under this URL."""
        await self._registry.unregister(url)

    async def agents(self) -> list[Json]:
        """Return the cards of the registered agents, in the order in which they were registered."""
        return await self._registry.cards()

    # Folds

    async def _fold(self, conversation_id: str) -> ConversationFold | None:
        return await self._cache.get(conversation_uuid(self.tenant, conversation_id))

    async def _view(self, fold: ConversationFold) -> ConversationView:
        return fold.view if fold.source is None else fold.view_with(await self._cache.shared_messages(fold))

    async def _place(self, fold: ConversationFold, message: UUID | str) -> tuple[ConversationFold, UUID]:
        """Return the conversation in which a message that a fork may share was written, and the id of its event."""
        for source, last in ((fold, fold.version), *await self._cache.shared(fold)):
            for event_id, sent in reversed(source.messages_up_to(last).items()):
                if message in (event_id, str(event_id), sent.get("messageId")):
                    return source, event_id
        raise NotFound(
            f"conversation {printable(fold.given_id)!r} has no message {printable(str(message))!r}: its messages show "
            "their ids"
        )

    async def _existing(self, conversation_id: str) -> ConversationFold:
        return await self._cache.existing(conversation_uuid(self.tenant, conversation_id), conversation_id)

    async def conversation_fold(self, conversation: UUID) -> ConversationFold:
        """Return a conversation by its id in the log and the tables. Raises NotFound."""
        return await self._cache.existing(conversation)

    async def _change(self, conversation_id: str, event: EventData) -> ConversationView:
        fold = await self._existing(conversation_id)
        await self._log.append(fold.id, [NewEvent(event, actor="user")])
        return await self._view(await self._existing(conversation_id))
