"""The server's settings come with the store's, or from the same environment."""

from __future__ import annotations

import pytest

from agent_manager.settings import ServerSettings, server_settings
from eventstore import Settings
from eventstore.errors import SettingsError

pytestmark = [pytest.mark.any_server, pytest.mark.usefixtures("clean_environment")]


def test_the_settings_of_a_server_are_those_given() -> None:
    given = ServerSettings(max_requests=7)
    assert server_settings(given) is given


def test_the_settings_of_a_store_are_completed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_MAX_REQUESTS", "7")
    monkeypatch.setenv("EVENTSTORE_TENANT", "of-the-environment")
    completed = server_settings(Settings(tenant="acme", database_url="postgresql://h/d"))
    assert (completed.max_requests, completed.tenant, completed.server_url()) == (7, "acme", "postgresql://h/d")


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_MAX_REQUESTS", "none")
    Settings()
    with pytest.raises(SettingsError, match=r"^EVENTSTORE_MAX_REQUESTS: "):
        server_settings(Settings())
