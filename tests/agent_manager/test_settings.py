"""The server's settings come with the store's, or from the same environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from agent_manager.settings import ServerSettings, server_settings
from eventstore import Settings
from eventstore.errors import SettingsError

pytestmark = [pytest.mark.any_server, pytest.mark.usefixtures("clean_environment")]

SECRET_FILES = ServerSettings.secret_files()
each_secret = pytest.mark.parametrize(("field", "variable"), SECRET_FILES.items(), ids=SECRET_FILES.values())


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with a secret, and the newline that editors put at its end."""
    path = tmp_path / "secret"
    path.write_text(" s3cret\nof two lines \r\n")
    return path


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


def test_every_secret_may_be_in_a_file() -> None:
    secrets = {name for name, field in ServerSettings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert set(SECRET_FILES) == secrets >= {"database_url", "postgres_password", "listen_url", "jwt_key"}
    assert SECRET_FILES["postgres_password"] == "POSTGRES_PASSWORD_FILE"
    assert SECRET_FILES["jwt_key"] == "EVENTSTORE_JWT_KEY_FILE"


@each_secret
def test_a_secret_is_read_from_its_file_without_the_newlines_at_the_end(
    field: str, variable: str, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(secret))
    settings = ServerSettings()
    assert getattr(settings, field) == SecretStr(" s3cret\nof two lines ")
    assert "s3cret" not in repr(settings)
    assert getattr(ServerSettings(**{field: "given"}), field) == SecretStr("given")


@each_secret
def test_a_secret_that_is_given_directly_and_in_a_file_is_an_error(
    field: str, variable: str, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = variable.removesuffix("_FILE")
    monkeypatch.setenv(variable, str(secret))
    monkeypatch.setenv(direct, "another")
    with pytest.raises(SettingsError, match=f"^{direct} and {variable} are both set") as raised:
        ServerSettings()
    assert "s3cret" not in str(raised.value)
    assert "another" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"s3cret\xff", "is not UTF-8 text"),
    ],
    ids=["missing", "empty", "blank", "binary"],
)
@each_secret
def test_a_file_without_a_secret_is_an_error_that_names_it(
    field: str,
    variable: str,
    content: bytes | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(SettingsError, match=f"^{variable}: {path}: {reason}") as raised:
        ServerSettings()
    assert "s3cret" not in str(raised.value)


def test_a_folder_or_an_empty_name_is_no_file_of_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in (str(tmp_path), ""):
        monkeypatch.setenv("POSTGRES_PASSWORD_FILE", path)
        with pytest.raises(SettingsError, match=r"^POSTGRES_PASSWORD_FILE: .*Is a directory"):
            Settings()


@each_secret
def test_the_env_file_may_not_name_files_with_secrets(field: str, variable: str, tmp_path: Path, secret: Path) -> None:
    for name in (variable, variable.lower()):
        (tmp_path / ".env").write_text(f"{name}={secret}\n")
        with pytest.raises(SettingsError, match=rf"^\.env: {variable} names a file"):
            ServerSettings()


def test_a_file_of_a_secret_goes_before_the_env_file(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=of-the-env-file\n")
    monkeypatch.setenv("postgres_password_file", str(secret))
    assert Settings().postgres_password == SecretStr(" s3cret\nof two lines ")
