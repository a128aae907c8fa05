"""A process that opens a manager and forks, run by a test: other libraries in the test's process may not be forked."""

from __future__ import annotations

import multiprocessing

import pytest

from agent_manager.errors import ManagerClosed
from agent_manager.factory import application_manager
from eventstore import Settings
from eventstore.errors import StoreClosed


def main() -> None:
    """Use the manager in forked processes and in this one."""
    manager = application_manager(Settings(), answer="echo")

    def child() -> None:
        with pytest.raises(StoreClosed, match="opened by the parent"):
            manager.create_conversation("child")
        manager.initialize()
        manager.create_conversation("child")
        manager.close()
        with pytest.raises(ManagerClosed):
            manager.create_conversation("late")

    def only_closes() -> None:
        manager.close()

    manager.create_conversation("parent")
    for run in (child, only_closes):
        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        process.join(30)
        assert process.exitcode == 0
    assert [each.name for each in manager.conversations] == ["parent", "child"]
    manager.close()


if __name__ == "__main__":
    main()
