"""The keys of an issuer, a JWKS from a file or a URL: remembered, and read again when one appears that is not in it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from agent_manager.fetching import ResponseTooLarge, open_client
from agent_manager.identity.errors import KeysUnavailable
from agent_manager.identity.verifying import LARGEST_FILE, VerifyingKey, keys_of
from eventstore.errors import SettingsError, printable
from eventstore.urls import check_url, show_name, show_url

_log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
"""After so long the set is read again, so that keys that the issuer withdrew are forgotten."""
LASTING_SECONDS = 3600.0
"""So long it is gone by where it cannot be read again."""
AGAIN_SECONDS = 60.0
"""At most so often it is read again for a key that is not in it."""
RETRY_SECONDS = 5.0
"""At most so often where there is none to go by."""
_FETCH_SECONDS = 5.0
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class KeySet:
    """A JWKS.

    Args:
        read: its text.
        name: of the file or URL, as it may be shown.
        clock: seconds that only grow.
    """

    def __init__(
        self, read: Callable[[], Awaitable[bytes]], name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._source = read
        self._clock = clock
        self._keys: dict[str | None, VerifyingKey] = {}
        self._read_at = self._tried_at = self._missed_at = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, key_id: str | None) -> VerifyingKey | None:
        """The key of that id, or the only key for None; None where there is none.

        Raises:
            KeysUnavailable: the set could not be read for too long, or never.
        """
        await self._keep_fresh()
        found = self._keys.get(key_id)
        if found is None and self._clock() - self._missed_at >= AGAIN_SECONDS:
            async with self._lock:
                if key_id not in self._keys and self._clock() - self._missed_at >= AGAIN_SECONDS:
                    self._missed_at = self._clock()
                    await self._read()
            found = self._keys.get(key_id)
        return found

    async def _keep_fresh(self) -> None:
        if self._clock() - self._read_at < FRESH_SECONDS:
            return
        is_usable = self._clock() - self._read_at < LASTING_SECONDS
        if not (is_usable and self._lock.locked()):  # while somebody reads it anew, the others go by what there is
            async with self._lock:
                pause = AGAIN_SECONDS if is_usable else RETRY_SECONDS
                if self._clock() - max(self._read_at, self._tried_at) >= pause:
                    await self._read()
        if self._clock() - self._read_at >= LASTING_SECONDS:
            self._keys = {}
            # Callers are not told where the keys are; the log is.
            raise KeysUnavailable("the keys that JWT are verified with cannot be read now: repeat the request later")

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = keys_of(await self._source())
        except (OSError, ValueError, TimeoutError, httpx.HTTPError) as error:
            said = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
            _log.warning("the keys of the tokens' issuer cannot be read from %s: %s", self.name, said)
        else:
            self._read_at = self._clock()


def key_set(given: str) -> KeySet:
    """The set that ``EVENTSTORE_JWT_JWKS`` names: a path, or a URL.

    Raises:
        SettingsError: the file is not there, or the URL is not safe.
    """
    if "://" not in given:
        path = Path(given).expanduser()
        try:
            keys_of(_read_file(path))
        except (OSError, ValueError) as error:
            why = printable(error.strerror if isinstance(error, OSError) and error.strerror else str(error))
            raise SettingsError(
                f"EVENTSTORE_JWT_JWKS: {show_name(given)}: {why}: give a JWKS file or its https URL"
            ) from None
        return KeySet(lambda: asyncio.to_thread(_read_file, path), str(path))
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    # Over plain HTTP anybody on the way could put in a key of their own.
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        raise SettingsError("EVENTSTORE_JWT_JWKS: is no https URL: give one (http only on this machine), or a path")
    check_url(given, "EVENTSTORE_JWT_JWKS")
    return KeySet(lambda: _fetch(given), show_url(given))


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_FILE)


async def _fetch(url: str) -> bytes:
    """The body, which must come whole, directly (no redirects), soon and small."""
    async with (
        asyncio.timeout(_FETCH_SECONDS),
        open_client(limit=LARGEST_FILE, timeout=_FETCH_SECONDS) as client,
        client.stream("GET", url, headers=_HEADERS) as answer,
    ):
        if answer.status_code != 200:
            raise ValueError(f"it answers with status {answer.status_code}")
        try:
            return await answer.aread()
        except ResponseTooLarge:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes") from None
