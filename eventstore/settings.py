"""Settings of a store, from the environment and ``.env``: server, schema, tenant, limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote, urlsplit

import psycopg
from dotenv.parser import parse_stream
from psycopg.conninfo import conninfo_to_dict
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from eventstore.errors import SettingsError, printable
from eventstore.urls import check_url, has_password_parameter

DEFAULT_DATABASE = "flowagents"


def default_data_dir() -> Path:
    """Return the embedded server's data directory: a system folder for root, otherwise one in the user's home."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/flowagents-eventstore")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "flowagents-eventstore"
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "flowagents-eventstore"


def _unprefixed(name: str) -> Any:
    """Return a setting whose environment variable does not begin with ``EVENTSTORE_``."""
    return Field(None, validation_alias=AliasChoices(name, name.upper()))


class Settings(BaseSettings):
    """Settings of a store. Keyword arguments override environment variables, which override ``.env``.

    ``.env`` is read from the working directory, where others may have put it: it cannot name code to run, nor a file of
    credentials, which names files to send.

    A variable with the suffix ``_FILE`` names a file that contains a secret, such as ``POSTGRES_PASSWORD_FILE``.

    The server is the one that ``DATABASE_URL`` names or, without it, the ``POSTGRES_*`` variables. Without any of them
    the embedded server is used.

    Raises:
        SettingsError: a setting is unknown or has an invalid value, or ``.env`` or a secret's file cannot be read.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_prefix="EVENTSTORE_", extra="ignore", populate_by_name=True
    )

    database_url: SecretStr | None = _unprefixed("database_url")
    postgres_host: str | None = _unprefixed("postgres_host")
    postgres_port: Annotated[int, Field(ge=1, le=65535)] | None = _unprefixed("postgres_port")
    postgres_db: str | None = _unprefixed("postgres_db")
    postgres_user: str | None = _unprefixed("postgres_user")
    postgres_password: SecretStr | None = _unprefixed("postgres_password")
    listen_url: SecretStr | None = None
    read_url: SecretStr | None = None
    allow_superuser: bool = False
    db_schema: str = Field("public", validation_alias=AliasChoices("db_schema", "EVENTSTORE_SCHEMA"))
    data_dir: Path = Field(default_factory=default_data_dir)
    pg_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tenant: Annotated[str, Field(min_length=1, max_length=255)] = "default"
    answer: str = ""
    agent_credentials: Path | None = None
    max_content_bytes: Annotated[int, Field(ge=1024, le=128 * 1024 * 1024)] = 12 * 1024 * 1024
    """A file of 8 MiB in Base64, which is a third longer, beside a text."""
    connect_timeout: Annotated[int, Field(ge=1, le=600, description="seconds")] = 10
    projections: str = ""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 8
    storage: Literal["memory", "postgres", "both"] = "postgres"
    read_from: Literal["memory", "postgres"] = "postgres"
    statement_seconds: Annotated[float, Field(gt=0, le=86_400, description="for a statement that reads")] = 30
    append_seconds: Annotated[float, Field(ge=2, le=86_400, description="for an append")] = 30
    slow_statement_seconds: Annotated[float, Field(gt=0, le=86_400, description="until it is logged")] = 1

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read secrets from files, and ``.env`` with a source that rejects names of code and files."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        env_file = _EnvFile(settings_cls, env_file=dotenv_settings.env_file)
        return init_settings, env_settings, _SecretFiles(settings_cls), env_file

    def __init__(self, **values: Any) -> None:
        known = {name for field in self.__class__.model_fields for name in (field, self.variable_of(field))}
        if unknown := [name for name in values if name not in known and not name.startswith("_")]:
            raise SettingsError(
                f"{type(self).__name__} has no setting {unknown[0]!r:.80}: see docs/reference/settings.md"
            )
        try:
            if "_env_file" not in values:
                _check_env_file()
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            variable = self.variable_of(str(first["loc"][0]))
            names = f"{variable}, {_OPTIONS[variable]}" if variable in _OPTIONS else variable
            what = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"{names}: {what}: correct the environment, .env or the option") from None

    @classmethod
    def variable_of(cls, name: str) -> str:
        """Return the environment variable of a setting, named by its field or its alias."""
        field = cls.model_fields.get(name)
        if field is None:
            return name.upper()
        alias = field.validation_alias
        return str(alias.choices[-1]) if isinstance(alias, AliasChoices) else f"EVENTSTORE_{name.upper()}"

    @classmethod
    def secret_files(cls) -> dict[str, str]:
        """Return, for each secret setting by field, the variable that names a file with its value."""
        types = {name: (field.annotation, *get_args(field.annotation)) for name, field in cls.model_fields.items()}
        return {name: f"{cls.variable_of(name)}_FILE" for name, given in types.items() if SecretStr in given}

    @field_validator(
        "database_url", "postgres_host", "postgres_db", "postgres_user", "postgres_password", "listen_url", "read_url",
        "data_dir",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        # Of an empty variable another server would be the result, or the working directory as the data directory.
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and not text.strip():
            raise ValueError("is empty: remove it, or give a value")
        return value

    @field_validator("db_schema")
    @classmethod
    def _plain_schema(cls, value: str) -> str:
        # dbmate takes the schema from a comma-separated search_path in a URL, so only plain names are safe there.
        if not (value.isascii() and value.isidentifier() and value == value.lower() and len(value) <= 63):
            raise ValueError("expected lower-case letters, digits and underscores, at most 63")
        if value.startswith("pg_"):
            raise ValueError("names that begin with pg_ are reserved by PostgreSQL")
        return value

    @field_validator("agent_credentials", mode="before")
    @classmethod
    def _none_if_empty(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    def server_url(self) -> str | None:
        """Return the URL of the server that the settings name, or None for the embedded one.

        Raises:
            SettingsError: ``DATABASE_URL`` is not a PostgreSQL URL that names a database.
        """
        if self.database_url is not None:
            return _checked_url(self.database_url.get_secret_value())
        password = self.postgres_password.get_secret_value() if self.postgres_password else ""
        if not any((self.postgres_host, self.postgres_port, self.postgres_db, self.postgres_user, password)):
            return None
        user = quote(self.postgres_user or "agents", safe="")
        login = f"{user}:{quote(password, safe='')}" if password else user
        host, port = self.postgres_host or "localhost", self.postgres_port or 5432
        database = quote(self.postgres_db or DEFAULT_DATABASE, safe="")
        if host.startswith("/"):
            return f"postgresql://{login}@/{database}?host={quote(host, safe='')}&port={port}"
        return check_url(
            f"postgresql://{login}@{f'[{host}]' if ':' in host else host}:{port}/{database}", "POSTGRES_HOST"
        )

    def listening_url(self) -> str | None:
        """Return the URL for connections that LISTEN, or None if they use the same as all others.

        Raises:
            SettingsError: ``EVENTSTORE_LISTEN_URL`` is not a PostgreSQL URL that names a database.
        """
        if self.listen_url is None:
            return None
        return _checked_url(self.listen_url.get_secret_value(), "EVENTSTORE_LISTEN_URL")

    def reading_url(self) -> str | None:
        """Return the URL of the standby that the read tables are read from, or None if there is none.

        Raises:
            SettingsError: ``EVENTSTORE_READ_URL`` is not a PostgreSQL URL that names a database.
        """
        return None if self.read_url is None else _checked_url(self.read_url.get_secret_value(), "EVENTSTORE_READ_URL")


_OPTIONS = {
    "EVENTSTORE_DATA_DIR": "--data-dir",
    "EVENTSTORE_PG_PORT": "--pg-port",
    "EVENTSTORE_TENANT": "--tenant",
    "EVENTSTORE_ALLOW_SUPERUSER": "--allow-superuser",
    "EVENTSTORE_METRICS_HOST": "--metrics-host",
    "EVENTSTORE_METRICS_PORT": "--metrics-port",
    "EVENTSTORE_LOG_FORMAT": "--log-format",
    "EVENTSTORE_LOG_LEVEL": "--log-level",
}
"""The command-line options of settings that have one."""

_IS_SAFE_IN_ENV_FILE: dict[str, Callable[[str], bool]] = {
    "answer": lambda value: value in ("", "echo") or "://" in value,
    "agent_credentials": lambda value: not value,
    "audit_command": lambda value: not value,  # a setting of the server
    "data_dir": lambda value: not value,  # whose postgresql.conf can name commands and libraries
    "projections": lambda value: not value,
}
"""The settings that can name Python or SQL to run, or files to send, each with a function that returns whether a
value names none."""


class _SecretFiles(PydanticBaseSettingsSource):
    """A source that reads secrets from the files that variables with the suffix ``_FILE`` name.

    The files are those of container engines, Kubernetes and systemd. Variables that name one are read from the
    environment only: ``.env`` may not name files to send.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return no value: the files are read together."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values by field.

        Raises:
            SettingsError: a variable is set together with its file, or the file is unreadable or empty.
        """
        assert issubclass(self.settings_cls, Settings)
        environment = {name.upper(): value for name, value in os.environ.items()}
        values = {}
        for field, variable in self.settings_cls.secret_files().items():
            if (path := environment.get(variable)) is None:
                continue
            if (direct := variable.removesuffix("_FILE")) in environment:
                raise SettingsError(f"{direct} and {variable} are both set: remove one of them")
            if field not in self.current_state:
                values[field] = _secret(variable, path)
        return values


def _secret(variable: str, path: str) -> str:
    """Return the content of a secret's file, without the newlines at its end. Errors do not show the content."""
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise SettingsError(f"{variable}: {printable(path)}: {reason}: name a readable file") from None
    if not (secret := content.rstrip("\r\n")).strip():
        raise SettingsError(f"{variable}: {printable(path)}: is empty: write the secret into the file")
    return secret


class _EnvFile(DotEnvSettingsSource):
    """A source that reads ``.env`` and rejects settings that name code or files, unless others override them."""

    def __call__(self) -> dict[str, Any]:
        """Return the values by field.

        Raises:
            SettingsError: one of them names code or files, and no option or environment variable overrides it.
        """
        values = super().__call__()
        assert issubclass(self.settings_cls, Settings)
        for variable in self.settings_cls.secret_files().values():
            if variable.lower() in (name.lower() for name in self.env_vars):
                raise SettingsError(
                    f".env: {variable} names a file to send, which a file in the working directory may not: set it in "
                    "the environment"
                )
        for name, is_safe in _IS_SAFE_IN_ENV_FILE.items():
            if name not in self.current_state and not is_safe(str(values.get(name, "")).strip()):
                raise SettingsError(
                    f".env: EVENTSTORE_{name.upper()} names code to run or files to send, which a file in the working "
                    "directory may not: set it in the environment, or remove it from .env"
                )
        return values


def _check_env_file() -> None:
    """Reject a ``.env`` with a line that cannot be parsed: it would be skipped, and the wrong server used."""
    try:
        text = Path(".env").read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env: {error}: correct or remove it") from None
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise SettingsError(f".env: line {binding.original.line} cannot be parsed: close its quotes")


_EXPECTED_URL = "expected postgresql://user:password@host:port/database"


def _checked_url(url: str, name: str = "DATABASE_URL") -> str:
    scheme, separator, rest = url.partition("://")
    # SQLAlchemy's URLs name a driver after a plus sign; the server is the same.
    if not separator or scheme.partition("+")[0] not in ("postgres", "postgresql"):
        raise SettingsError(f"{name}: {_EXPECTED_URL}")
    try:
        url = check_url(f"postgresql://{rest}", name)
        conninfo_to_dict(url)
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):  # libpq accepts several
            _ = urlsplit(f"//{host}").port
    except SettingsError as error:
        raise SettingsError(f"{error}; {_EXPECTED_URL}") from None
    except ValueError as error:
        raise SettingsError(f"{name}: {error}: {_EXPECTED_URL}") from None
    except psycopg.ProgrammingError as error:
        why = "" if has_password_parameter(url) else f": {printable(str(error).strip())}"
        raise SettingsError(f"{name}: libpq does not accept its parameters{why}: correct them") from None
    if not parts.path.strip("/"):
        raise SettingsError(f"{name}: names no database: write postgresql://user:password@host:port/database")
    return url
