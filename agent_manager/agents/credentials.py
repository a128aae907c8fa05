"""Credentials of remote agents: headers, bearer tokens and client certificates, from one TOML file.

``EVENTSTORE_AGENT_CREDENTIALS`` names the file. A secret is a text in it, or ``{ file = "…" }``: the content of a file,
which is read for each exchange, so that a renewed token is used at once. Relative paths begin at the file's directory::

    [[agents]]
    url = "https://agents.example/clerk"
    bearer_token = { file = "/run/secrets/clerk" }
    headers = { X-Api-Key = { file = "/run/secrets/key" }, X-Team = "travel" }
    client_certificate = "client.pem"
    client_key = "client.key"
    ca = "ca.pem"

An entry is for the agents whose URL, or whose interface in the agent's card, begins with its ``url``. Its secrets are
sent to the origin of that URL (scheme, host and port) and to no other, whatever a card names or a redirect says.
"""

from __future__ import annotations

import re
import ssl
import tomllib
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NamedTuple, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from eventstore.errors import SettingsError, printable
from eventstore.urls import check_url, show_url

VARIABLE = "EVENTSTORE_AGENT_CREDENTIALS"
_NAME = re.compile(r"(?!grpc-)[a-z0-9!#$%&'*+.^_`|~-]+(?<!-bin)", re.IGNORECASE)
_VALUE = re.compile(r"[\x20-\x7e]+")
_OF_THE_MESSAGE = frozenset(("host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade"))
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """The scheme, host and port of a URL."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of a URL with the scheme http or https."""
        parts = urlsplit(url)
        return cls(parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0))

    @property
    def is_loopback(self) -> bool:
        """True if the host is this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _absolute(path: Path, info: ValidationInfo) -> Path:
    directory: Path = info.context or Path()
    return directory / path.expanduser()


File: TypeAlias = Annotated[Path, AfterValidator(_absolute)]


class _SecretFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    file: File


Secret: TypeAlias = SecretStr | _SecretFile


class Credentials(BaseModel):
    """The credentials of the agents whose URL begins with a prefix."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str
    bearer_token: Secret | None = None
    headers: dict[str, Secret] = Field(default_factory=dict)
    client_certificate: File | None = None
    client_key: File | None = None
    ca: File | None = None
    allow_plain_http: bool = False

    @field_validator("url")
    @classmethod
    def _usable_url(cls, url: str) -> str:
        try:
            parts = urlsplit(check_url(url, "url"))
            is_usable = parts.scheme in _DEFAULT_PORTS and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:  # also a SettingsError
            is_usable = False
        if not is_usable or "@" in url:
            raise ValueError("expected https://host, https://host:port or a longer URL, without a user")
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _usable_names(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        for name in headers:
            if not _NAME.fullmatch(name) or name.lower() in _OF_THE_MESSAGE:
                raise ValueError(f"{printable(name)!r:.80} is not the name of a header that can be set")
        return headers

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("client_key is given without client_certificate")
        if self.bearer_token is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("give bearer_token or the header Authorization, one of them")
        if self.origin.scheme == "http":
            if self.client_certificate is not None or self.ca is not None:
                raise ValueError("certificates need a url with https")
            if not self.origin.is_loopback and not self.allow_plain_http:
                raise ValueError(
                    "the credentials would be sent unencrypted: give a url with https, or allow_plain_http = true"
                )
        return self

    @cached_property
    def origin(self) -> Origin:
        """The origin to which the credentials are sent."""
        return Origin.of(self.url)

    def current_headers(self) -> dict[str, str]:
        """Return the headers to send, by their names in small letters, with the present contents of the files.

        Raises:
            SettingsError: a file cannot be read, or its content cannot be the value of a header.
        """
        headers = {name.lower(): self._value(secret, f"header {name}") for name, secret in self.headers.items()}
        if self.bearer_token is not None:
            headers["authorization"] = f"Bearer {self._value(self.bearer_token, 'bearer_token')}"
        return headers

    def _value(self, secret: Secret, name: str) -> str:
        if isinstance(secret, SecretStr):
            source, value = name, secret.get_secret_value()
        else:
            source, value = f"{name}: {secret.file}", self.read(secret.file, name).decode("utf-8", "replace")
        if not _VALUE.fullmatch(value := value.strip()):
            raise SettingsError(
                f"{VARIABLE}: {show_url(self.url)}: {source}: is empty, has several lines, or has characters that a "
                "header cannot have"
            )
        return value

    def read(self, file: Path, name: str) -> bytes:
        """Return the content of one of the files. Raises SettingsError."""
        try:
            return file.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise SettingsError(f"{VARIABLE}: {show_url(self.url)}: {name}: {file}: {reason}") from None

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context with the certificates; None if there are none. Raises SettingsError."""
        if self.client_certificate is None and self.ca is None:
            return None
        import httpx  # imported when used: it takes about as long as all the rest

        context = httpx.create_ssl_context()
        try:
            if self.ca is not None:
                context = ssl.create_default_context(cafile=self.ca)
            if self.client_certificate is not None:
                # Without a password function, OpenSSL would prompt for the password of an encrypted key.
                context.load_cert_chain(self.client_certificate, self.client_key, password=lambda: "")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            files = ", ".join(str(file) for file in (self.ca, self.client_certificate, self.client_key) if file)
            raise SettingsError(
                f"{VARIABLE}: {show_url(self.url)}: {files}: {reason}: give readable PEM files, without a password"
            ) from None
        return context

    def pem_files(self) -> dict[str, bytes]:
        """Return the certificates as gRPC takes them."""
        files = {
            "root_certificates": self.ca,
            "certificate_chain": self.client_certificate,
            "private_key": self.client_key or self.client_certificate,
        }
        return {name: self.read(file, name) for name, file in files.items() if file is not None}

    def is_for(self, url: str) -> bool:
        """Return whether the URL of an agent begins with this entry's."""
        path, prefix = urlsplit(url).path.rstrip("/"), urlsplit(self.url).path
        return Origin.of(url) == self.origin and (path == prefix or path.startswith(f"{prefix}/"))


class _Entries(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    agents: list[Credentials]


class AgentCredentials:
    """The credentials of all agents."""

    def __init__(self, entries: tuple[Credentials, ...] = ()) -> None:
        self._entries = entries

    def __bool__(self) -> bool:
        return bool(self._entries)

    @classmethod
    def load(cls, path: Path | None) -> AgentCredentials:
        """Return the credentials in a file, after all the files that it names were tried; none without a file.

        Raises:
            SettingsError: a file cannot be read, or an entry is not valid. The error contains no secret.
        """
        if path is None:
            return cls()
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{VARIABLE}: {path}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{VARIABLE}: {path}: is not UTF-8") from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{VARIABLE}: {path}: is not TOML: {error}") from None
        try:
            entries = _Entries.model_validate(values, context=path.absolute().parent).agents
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            place = ".".join(str(each) for each in first["loc"] if each not in ("_SecretFile", "SecretStr"))
            reason = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"{VARIABLE}: {path}: {printable(place)}: {reason}") from None
        for entry in entries:
            entry.current_headers()
            _ = entry.tls
        return cls(tuple(entries))

    def find(self, url: str) -> Credentials | None:
        """Return the entry for the agent of a URL, the one with the longest URL; None if there is none."""
        found = (entry for entry in self._entries if entry.is_for(url))
        return max(found, key=lambda entry: len(entry.url), default=None)
