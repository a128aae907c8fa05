"""Settings, from the environment and ``.env``: which server, which schema, which limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import psycopg
from dotenv.parser import parse_stream
from psycopg.conninfo import conninfo_to_dict
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from eventstore.errors import SettingsError, printable
from eventstore.urls import check_url, has_password_parameter

DEFAULT_DATABASE = "flowagents"


def default_data_dir() -> Path:
    """Where the embedded server keeps its data: a system folder for root, the user's own otherwise."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/flowagents-eventstore")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "flowagents-eventstore"
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "flowagents-eventstore"


class Settings(BaseSettings):
    """All settings. Keyword arguments go before environment variables, those before ``.env``.

    ``.env`` is read from the working directory, which may be anybody's: it may not name code that is then run.

    A server is named by ``DATABASE_URL`` or, failing that, by any of the ``POSTGRES_*`` variables.
    With none of them the embedded server is used.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_prefix="EVENTSTORE_", extra="ignore", populate_by_name=True
    )

    database_url: SecretStr | None = Field(None, validation_alias=AliasChoices("database_url", "DATABASE_URL"))
    postgres_host: str | None = Field(None, validation_alias=AliasChoices("postgres_host", "POSTGRES_HOST"))
    postgres_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, validation_alias=AliasChoices("postgres_port", "POSTGRES_PORT")
    )
    postgres_db: str | None = Field(None, validation_alias=AliasChoices("postgres_db", "POSTGRES_DB"))
    postgres_user: str | None = Field(None, validation_alias=AliasChoices("postgres_user", "POSTGRES_USER"))
    postgres_password: SecretStr | None = Field(
        None, validation_alias=AliasChoices("postgres_password", "POSTGRES_PASSWORD")
    )
    listen_url: SecretStr | None = None
    allow_superuser: bool = False
    db_schema: str = Field("public", validation_alias=AliasChoices("db_schema", "EVENTSTORE_SCHEMA"))
    data_dir: Path = Field(default_factory=default_data_dir)
    pg_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tenant: Annotated[str, Field(min_length=1, max_length=255)] = "default"
    answer: str = ""
    max_content_bytes: Annotated[int, Field(ge=1024, le=128 * 1024 * 1024)] = 1024 * 1024
    connect_timeout: Annotated[int, Field(ge=1, le=600, description="seconds")] = 10
    agent_allow_private: bool | None = None
    projections: str = ""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 8
    storage: Literal["memory", "postgres", "both"] = "postgres"
    read_from: Literal["memory", "postgres"] = "postgres"
    jwt_key: SecretStr | None = None
    jwt_jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_tenant_claim: Annotated[str, Field(min_length=1)] = "tenant"
    jwt_user_claim: Annotated[str, Field(min_length=1)] = "sub"
    rate_per_second: Annotated[float, Field(gt=0, le=1e6, description="requests of one key")] = 100
    events_per_second: Annotated[float, Field(ge=1, le=1e9, description="appended for one tenant")] = 2000
    bytes_per_second: Annotated[float, Field(ge=1024, le=1e12, description="of bodies of one tenant")] = 8 * 1024 * 1024
    max_requests: Annotated[int, Field(ge=1, le=100_000, description="at a time")] = 256
    max_streams: Annotated[int, Field(ge=1, le=100_000, description="endless answers at a time")] = 500
    max_connections: Annotated[int, Field(ge=1, le=100_000, description="of HTTP")] = 800
    answer_bytes: Annotated[int, Field(ge=1024 * 1024, le=2**50, description="of all answers under way")] = 2**30
    request_seconds: Annotated[float, Field(gt=0, le=86_400, description="for an answer to begin")] = 120
    body_seconds: Annotated[float, Field(gt=0, le=3600, description="for a request's head, and for its body")] = 30
    statement_seconds: Annotated[float, Field(gt=0, le=86_400, description="for a statement that reads")] = 30
    append_seconds: Annotated[float, Field(ge=2, le=86_400, description="for an append")] = 30

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read ``.env`` without what names code."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        return init_settings, env_settings, _EnvFile(settings_cls, dotenv_settings.env_file)

    def __init__(self, **values: Any) -> None:
        try:
            if "_env_file" not in values:
                _check_env_file()
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "the settings"
            raise SettingsError(
                f"{_VARIABLES.get(name, name.upper())}: {first['msg']}: correct the environment, .env or the option"
            ) from None

    @field_validator("db_schema")
    @classmethod
    def _plain_schema(cls, value: str) -> str:
        # dbmate takes the schema from a comma-separated search_path in a URL, so only plain names are safe there.
        if not (value.isascii() and value.isidentifier() and value == value.lower() and len(value) <= 63):
            raise ValueError("a schema is named by lower-case letters, digits and underscores, at most 63")
        if value.startswith("pg_"):
            raise ValueError("names that begin with pg_ belong to PostgreSQL")
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    def server_url(self) -> str | None:
        """The URL of the server that the settings name, or None for the embedded one.

        Raises:
            SettingsError: ``DATABASE_URL`` is not a PostgreSQL URL that names a database.
        """
        if self.database_url is not None and self.database_url.get_secret_value():
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
        """The URL for connections that listen, or None where they go where all others go.

        Raises:
            SettingsError: ``EVENTSTORE_LISTEN_URL`` is not a PostgreSQL URL that names a database.
        """
        if self.listen_url is None or not self.listen_url.get_secret_value():
            return None
        return _checked_url(self.listen_url.get_secret_value(), "EVENTSTORE_LISTEN_URL")


_VARIABLES = {
    "db_schema": "EVENTSTORE_SCHEMA",
    "data_dir": "EVENTSTORE_DATA_DIR, --data-dir",
    "pg_port": "EVENTSTORE_PG_PORT, --pg-port",
    "tenant": "EVENTSTORE_TENANT, --tenant",
    "answer": "EVENTSTORE_ANSWER",
    "max_content_bytes": "EVENTSTORE_MAX_CONTENT_BYTES",
    "connect_timeout": "EVENTSTORE_CONNECT_TIMEOUT",
    "pool_size": "EVENTSTORE_POOL_SIZE",
    "listen_url": "EVENTSTORE_LISTEN_URL",
    "agent_allow_private": "EVENTSTORE_AGENT_ALLOW_PRIVATE",
    "allow_superuser": "EVENTSTORE_ALLOW_SUPERUSER, --allow-superuser",
    "projections": "EVENTSTORE_PROJECTIONS",
    "storage": "EVENTSTORE_STORAGE",
    "read_from": "EVENTSTORE_READ_FROM",
    "jwt_key": "EVENTSTORE_JWT_KEY",
    "jwt_jwks": "EVENTSTORE_JWT_JWKS",
    "jwt_issuer": "EVENTSTORE_JWT_ISSUER",
    "jwt_audience": "EVENTSTORE_JWT_AUDIENCE",
    "jwt_tenant_claim": "EVENTSTORE_JWT_TENANT_CLAIM",
    "jwt_user_claim": "EVENTSTORE_JWT_USER_CLAIM",
    "rate_per_second": "EVENTSTORE_RATE_PER_SECOND",
    "events_per_second": "EVENTSTORE_EVENTS_PER_SECOND",
    "bytes_per_second": "EVENTSTORE_BYTES_PER_SECOND",
    "max_requests": "EVENTSTORE_MAX_REQUESTS",
    "max_streams": "EVENTSTORE_MAX_STREAMS",
    "max_connections": "EVENTSTORE_MAX_CONNECTIONS",
    "answer_bytes": "EVENTSTORE_ANSWER_BYTES",
    "request_seconds": "EVENTSTORE_REQUEST_SECONDS",
    "body_seconds": "EVENTSTORE_BODY_SECONDS",
    "statement_seconds": "EVENTSTORE_STATEMENT_SECONDS",
    "append_seconds": "EVENTSTORE_APPEND_SECONDS",
}


class _EnvFile(DotEnvSettingsSource):
    """The settings in ``.env``, of which none that is in force may name code."""

    def __init__(self, settings_cls: type[BaseSettings], env_file: Any) -> None:
        super().__init__(settings_cls, env_file=env_file)

    def __call__(self) -> dict[str, Any]:
        """Return the values by field.

        Raises:
            SettingsError: one of them names code, and no option or environment variable overrides it.
        """
        values = super().__call__()
        for name, is_harmless in _NAMES_CODE.items():
            if name not in self.current_state and not is_harmless(str(values.get(name, "")).strip()):
                raise SettingsError(
                    f".env: {_VARIABLES[name]} names code to run, which a file in the working directory may not: "
                    "set it in the environment, or remove it from .env"
                )
        return values


_NAMES_CODE: dict[str, Callable[[str], bool]] = {
    "answer": lambda value: value in ("", "echo") or "://" in value,
    "projections": lambda value: not value,
}
"""Settings that can name Python or SQL to run; and whether a value does not."""


def _check_env_file() -> None:
    """A line of ``.env`` that cannot be read would be passed over, and another server used than the one it names."""
    try:
        text = Path(".env").read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env: {error}: correct or remove it") from None
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise SettingsError(f".env: line {binding.original.line} cannot be read: quotes must be closed")


def _checked_url(url: str, name: str = "DATABASE_URL") -> str:
    scheme, separator, rest = url.partition("://")
    # SQLAlchemy-style URLs name a driver after a plus sign; the server is the same.
    if not separator or scheme.partition("+")[0] not in ("postgres", "postgresql"):
        raise SettingsError(f"{name}: expected postgresql://user:password@host:port/database")
    try:
        url = check_url(f"postgresql://{rest}", name)
    except SettingsError as error:
        raise SettingsError(f"{error}; expected postgresql://user:password@host:port/database") from None
    try:
        conninfo_to_dict(url)
        parts = urlsplit(url)
        path = parts.path
        for host in parts.netloc.rpartition("@")[2].split(","):  # several: libpq takes the first that fits
            _ = urlsplit(f"//{host}").port
    except ValueError as error:
        raise SettingsError(f"{name}: {error}: expected postgresql://user:password@host:port/database") from None
    except psycopg.ProgrammingError as error:
        why = "" if has_password_parameter(url) else f": {printable(str(error).strip())}"
        raise SettingsError(f"{name}: its parameters are not those of libpq{why}: correct them") from None
    if not path.strip("/"):
        raise SettingsError(f"{name}: names no database: write postgresql://user:password@host:port/database")
    return url
