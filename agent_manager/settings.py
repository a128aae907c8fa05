"""Settings of the service: JWT, limits, backups, retention, the sealed log, logs, sources of agents' cards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator

from agent_manager.logs import LogFormat, LogLevel
from eventstore import Settings


class ServerSettings(Settings):
    """The settings of a store, and those of the HTTP server that serves it."""

    agent_allow_private: bool | None = None
    audit_key: Path | None = None
    audit_policy: Path | None = None
    audit_file: Path | None = None
    audit_url: str = ""
    audit_command: str = ""
    audit_seconds: Annotated[float, Field(ge=0.05, le=86_400, description="from one checkpoint to the next")] = 10
    audit_reads: bool = False
    backup_dir: str = ""
    backup_minutes: Annotated[float, Field(gt=0, le=1e6, description="from one backup to the next")] = 60
    backup_drill_hours: Annotated[float, Field(ge=0, le=1e5, description="from one drill to the next; 0: none")] = 0
    backup_daily: Annotated[int, Field(ge=0, le=10_000, description="backups kept, the last one of a day")] = 7
    backup_weekly: Annotated[int, Field(ge=0, le=10_000, description="backups kept, the last one of a week")] = 4
    backup_monthly: Annotated[int, Field(ge=0, le=10_000, description="backups kept, the last one of a month")] = 12
    retention_hours: Annotated[float, Field(ge=0, le=1e5, description="from one run to the next; 0: none")] = 24
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    jwt_key: SecretStr | None = None
    jwt_jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_tenant_claim: Annotated[str, Field(min_length=1)] = "tenant"
    jwt_user_claim: Annotated[str, Field(min_length=1)] = "sub"
    rate_per_second: Annotated[float, Field(gt=0, le=1e6, description="requests of one key")] = 100
    events_per_second: Annotated[float, Field(ge=1, le=1e9, description="appended by one tenant")] = 2000
    bytes_per_second: Annotated[float, Field(ge=1024, le=1e12, description="request bodies of one tenant")] = 2**23
    max_requests: Annotated[int, Field(ge=1, le=100_000, description="concurrent requests")] = 256
    max_streams: Annotated[int, Field(ge=1, le=100_000, description="open streams")] = 500
    max_connections: Annotated[int, Field(ge=1, le=100_000, description="HTTP connections")] = 800
    metrics_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    ready_lag_seconds: Annotated[float, Field(gt=0, le=1e9, description="that read tables may be behind")] = 60
    response_bytes: Annotated[int, Field(ge=2**20, le=2**50, description="all responses in flight")] = 2**30
    request_seconds: Annotated[float, Field(gt=0, le=86_400, description="until a response begins")] = 120
    body_seconds: Annotated[float, Field(gt=0, le=3600, description="for a request's head, and for its body")] = 30

    @field_validator("audit_key", "audit_policy", "audit_file", mode="before")
    @classmethod
    def _none_if_blank(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("audit_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("expected http://… or https://…")
        return value

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _in_lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


def server_settings(settings: Settings) -> ServerSettings:
    """Return the server's settings that go with a store's: the same if they include them, else from the environment.

    Raises:
        SettingsError: a variable has a value that cannot be used.
    """
    if isinstance(settings, ServerSettings):
        return settings
    return ServerSettings(**{name: getattr(settings, name) for name in settings.model_fields_set})
