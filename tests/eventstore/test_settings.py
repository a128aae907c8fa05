"""Settings name the server, and refuse what could name another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from eventstore import Settings
from eventstore import settings as settings_module
from eventstore.database.embedded import embedded_server
from eventstore.database.server import Server
from eventstore.errors import ConnectionLost, DiskFull, InputError, SettingsError
from eventstore.settings import default_data_dir

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, None),
        ({"database_url": "postgres://a:b@h/d"}, "postgresql://a:b@h/d"),
        ({"database_url": "postgresql+asyncpg://a:b@h/d"}, "postgresql://a:b@h/d"),
        ({"postgres_host": "h"}, "postgresql://agents@h:5432/flowagents"),
        ({"postgres_db": "d d", "postgres_user": "u@x"}, "postgresql://u%40x@localhost:5432/d%20d"),
        ({"postgres_host": "h", "postgres_password": SecretStr("p/w")}, "postgresql://agents:p%2Fw@h:5432/flowagents"),
        ({"postgres_host": "::1", "postgres_port": 6000}, "postgresql://agents@[::1]:6000/flowagents"),
        ({"postgres_host": "/run"}, "postgresql://agents@/flowagents?host=%2Frun&port=5432"),
        ({"postgres_password": SecretStr("alone")}, "postgresql://agents:alone@localhost:5432/flowagents"),
    ],
    ids=str,
)
def test_a_server_is_named_by_a_url_or_by_its_parts(given: dict[str, object], url: str | None) -> None:
    assert Settings(**given).server_url() == url


@pytest.mark.parametrize("url", ["mysql://h/d", "h/d", "postgresql://h", "postgresql://h:port/d", "postgresql://[h/d"])
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        Settings(database_url=url).server_url()


@pytest.mark.parametrize("url", ["mysql://h/d", "h/d", "postgresql://h", "postgresql://h:port/d", "postgresql://[h/d"])
def test_listening_connections_may_have_another_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().listening_url() is None
    monkeypatch.setenv("EVENTSTORE_LISTEN_URL", "postgres://a:b@direct/d")
    assert Settings().listening_url() == "postgresql://a:b@direct/d"
    with pytest.raises(SettingsError, match="EVENTSTORE_LISTEN_URL"):
        Settings(listen_url=url).listening_url()


@pytest.mark.parametrize("url", ["mysql://h/d", "h/d", "postgresql://h", "postgresql://h:port/d", "postgresql://[h/d"])
def test_reads_may_have_another_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().reading_url() is None
    monkeypatch.setenv("EVENTSTORE_READ_URL", "postgres://a:b@standby/d")
    assert Settings().reading_url() == "postgresql://a:b@standby/d"
    with pytest.raises(SettingsError, match="EVENTSTORE_READ_URL"):
        Settings(read_url=url).reading_url()


@pytest.mark.parametrize("schema", ["Public", "pg_x", "a-b", "a.b", "x" * 64, "", "ä"])
def test_only_plain_names_of_schemas_are_accepted(schema: str) -> None:
    with pytest.raises(SettingsError, match="EVENTSTORE_SCHEMA"):
        Settings(db_schema=schema)


@pytest.mark.parametrize("text", [b'DATABASE_URL="postgresql://h/d\nX=1\n', b"DATABASE_URL=\xff\xfe\n"])
def test_an_env_file_that_cannot_be_read_is_an_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".env").write_bytes(text)
    with pytest.raises(SettingsError, match=r"^\.env: "):
        Settings()


def test_the_env_file_names_the_server(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("POSTGRES_HOST=there\n# a remark\n")
    assert Settings().server_url() == "postgresql://agents@there:5432/flowagents"


@pytest.mark.parametrize(
    "name",
    [
        "EVENTSTORE_ANSWER",
        "eventstore_answer",
        "EVENTSTORE_PROJECTIONS",
        "EVENTSTORE_AGENT_CREDENTIALS",
        "EVENTSTORE_DATA_DIR",
    ],
)
def test_the_env_file_may_not_name_code_or_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / ".env").write_text(f"export {name}='there:run'\n")
    with pytest.raises(SettingsError, match=rf"^\.env: {name.upper()} names code"):
        Settings()
    monkeypatch.setenv(name.upper(), "here:run")
    assert any(str(value).endswith("here:run") for value in Settings().model_dump().values())
    monkeypatch.delenv(name.upper())
    settings = Settings(**{name.lower().removeprefix("eventstore_"): "here:run"})
    assert any(str(value).endswith("here:run") for value in settings.model_dump().values())


@pytest.mark.parametrize("answer", ["echo", "https://agent.example/", ""])
def test_the_env_file_may_name_an_agent(tmp_path: Path, answer: str) -> None:
    (tmp_path / ".env").write_text(f"EVENTSTORE_ANSWER={answer}\n")
    assert Settings().answer == answer


@pytest.mark.parametrize(
    ("user", "platform", "base", "folder"),
    [
        (0, "linux", "", "/var/lib/flowagents-eventstore"),
        (1000, "linux", "", "~/.local/share/flowagents-eventstore"),
        (1000, "linux", "/data", "/data/flowagents-eventstore"),
        (1000, "linux", "relative", "~/.local/share/flowagents-eventstore"),
        (1000, "darwin", "", "~/Library/Application Support/flowagents-eventstore"),
    ],
)
def test_the_default_data_directory_depends_on_user_and_system(
    monkeypatch: pytest.MonkeyPatch, user: int, platform: str, base: str, folder: str
) -> None:
    monkeypatch.setattr(settings_module.os, "geteuid", lambda: user)
    monkeypatch.setattr(settings_module.sys, "platform", platform)
    monkeypatch.setenv("XDG_DATA_HOME", base)
    assert default_data_dir() == Path(folder).expanduser()


def test_a_configured_server_is_neither_started_nor_stopped() -> None:
    with Server(Settings(database_url="postgresql://a:secret@h/d?password=x")) as server:
        assert server.embedded is None
        assert server.public_url == "postgresql://a@h/d"
        server.ensure_running()
        reason = InputError("anything")
        assert server.likely_cause(reason) is reason


def test_a_lost_connection_on_a_full_disk_raises_disk_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Server(Settings(data_dir=tmp_path))
    lost = ConnectionLost("gone")
    assert server.likely_cause(lost) is lost
    monkeypatch.setattr(embedded_server, "free_space", lambda folder: 1000)
    assert isinstance(server.likely_cause(lost), DiskFull)


def test_a_url_may_name_several_servers(clean_environment: None) -> None:
    url = "postgresql://me@first:5432,second:5433/agents?target_session_attrs=read-write"
    assert Settings(database_url=url).server_url() == url
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        Settings(database_url="postgresql://me@first:5432,second:x/agents").server_url()


@pytest.mark.parametrize("name", ["databse_url", "jwt_key", "Tenant"])
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"Settings has no setting '{name}'"):
        Settings(**{name: "x"})
    assert Settings(DATABASE_URL="postgresql://h/d").server_url() == "postgresql://h/d"
