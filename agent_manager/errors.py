"""Errors of the managers."""

from __future__ import annotations

from eventstore.errors import EventStoreError, InputError, StoreClosed


class AnswerFailed(EventStoreError):
    """The agent failed. That, and what it said before, is stored; the message does not wait any longer."""


class AnswerTaken(EventStoreError):
    """Another process is answering the message, or has answered it. Nothing further is stored here."""


class ManagerClosed(StoreClosed):
    """The manager was closed, or was closed while it was used."""

    def __init__(self) -> None:
        InputError.__init__(self, "the manager is closed: open it again with initialize(), 'with' or 'async with'")
