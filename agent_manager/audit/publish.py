"""Publishing checkpoints, to a file, a URL and a command, and having witnesses cosign them.

What is published is kept outside of the database: a log that is rewritten later cannot agree with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent_manager.audit.notes import Checkpoint, CheckpointInvalid, Policy, PublicKey, encode, parse_checkpoints
from agent_manager.settings import ServerSettings
from eventstore.errors import EventStoreError, printable

if TYPE_CHECKING:  # it takes longer to import than the rest of a command
    import httpx

HTTP_SECONDS = 10.0
COMMAND_SECONDS = 60.0
MAX_RESPONSE_BYTES = 2**20
"""The most bytes of a response, after decoding; a checkpoint and its signatures take some kilobytes."""
_LAST_BYTES = 65_536
"""The end of a file of checkpoints that has the last one: it has 64 signatures of some hundred bytes at most."""
_log = logging.getLogger(__name__)

Prove = Callable[[int, int], Awaitable[list[bytes]]]
"""Returns the hashes that prove that the log of one size begins with that of another."""


class PublishFailed(EventStoreError):
    """A checkpoint could not be published, or a witness did not cosign it."""


def read_published(path: Path) -> list[Checkpoint]:
    """Return the checkpoints in a file; none if it does not exist.

    Raises:
        CheckpointInvalid: it cannot be read, or has something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise CheckpointInvalid(f"{printable(str(path))}: {reason}: name a readable file of checkpoints") from None
    try:
        return parse_checkpoints(text) if text.strip() else []
    except CheckpointInvalid as error:
        raise CheckpointInvalid(f"{printable(str(path))}: {error}") from None


def last_published(path: Path) -> Checkpoint | None:
    """Return the last checkpoint in a file, however long that is; None if it has none. Raises CheckpointInvalid."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _LAST_BYTES, 0))
            end = file.read().decode(errors="replace").rstrip("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointInvalid(f"{printable(str(path))}: {error.strerror}: name a readable file") from None
    if not end:
        return None
    try:
        return Checkpoint.parse("\n\n".join(end.split("\n\n")[-2:]) + "\n")
    except CheckpointInvalid as error:
        raise CheckpointInvalid(f"{printable(str(path))}: {error}") from None


def _client() -> httpx.AsyncClient:
    from agent_manager.http_client import open_client

    return open_client(limit=MAX_RESPONSE_BYTES, timeout=HTTP_SECONDS)


async def fetch_published(url: str) -> list[Checkpoint]:
    """Return the checkpoint at a URL; none if there is none yet.

    Raises:
        CheckpointInvalid: the URL has something else.
        PublishFailed: the server does not answer so.
    """
    import httpx

    try:
        async with _client() as client:
            response = await client.get(url)
    except httpx.HTTPError as error:
        raise PublishFailed(f"EVENTSTORE_AUDIT_URL: {type(error).__name__}: {printable(str(error))}") from None
    if response.status_code in (404, 410):
        return []
    if response.status_code != 200:
        raise PublishFailed(f"EVENTSTORE_AUDIT_URL: GET returned {response.status_code}: let it return the checkpoint")
    return parse_checkpoints(response.text)


async def publish(checkpoint: Checkpoint, settings: ServerSettings) -> list[str]:
    """Publish a checkpoint wherever the settings say, and return what failed."""
    targets = [
        work
        for is_wanted, work in (
            (settings.audit_file, _append_to_file),
            (settings.audit_url, _put),
            (settings.audit_command, _run),
        )
        if is_wanted
    ]
    failures = []
    for outcome in await asyncio.gather(*(work(checkpoint, settings) for work in targets), return_exceptions=True):
        if isinstance(outcome, PublishFailed):
            failures.append(str(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
    return failures


async def _append_to_file(checkpoint: Checkpoint, settings: ServerSettings) -> None:
    path = settings.audit_file
    assert path is not None

    def append() -> None:
        published = last_published(path)
        if published is not None and published.size >= checkpoint.size:
            return  # by another process
        with open(path, "a", encoding="utf-8") as file:
            file.write(("\n" if published else "") + checkpoint.text)
            file.flush()
            os.fsync(file.fileno())

    try:
        await asyncio.to_thread(append)
    except (OSError, CheckpointInvalid) as error:
        raise PublishFailed(f"EVENTSTORE_AUDIT_FILE: {printable(str(error))}") from None


async def _put(checkpoint: Checkpoint, settings: ServerSettings) -> None:
    import httpx

    try:
        async with _client() as client:
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            response = await client.put(settings.audit_url, content=checkpoint.text.encode(), headers=headers)
    except httpx.HTTPError as error:
        raise PublishFailed(f"EVENTSTORE_AUDIT_URL: {type(error).__name__}: {printable(str(error))}") from None
    if not response.is_success:
        raise PublishFailed(f"EVENTSTORE_AUDIT_URL: PUT returned {response.status_code}")


async def _run(checkpoint: Checkpoint, settings: ServerSettings) -> None:
    process = await asyncio.create_subprocess_shell(
        settings.audit_command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            _, output = await process.communicate(checkpoint.text.encode())
    except TimeoutError:
        raise PublishFailed(f"EVENTSTORE_AUDIT_COMMAND: took longer than {COMMAND_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode:
        reason = printable(output.decode(errors="replace").strip())
        raise PublishFailed(f"EVENTSTORE_AUDIT_COMMAND: ended with {process.returncode}: {reason}")


# Witnesses


class Witnesses:
    """The witnesses of a policy that have a URL (c2sp.org/tlog-witness).

    Args:
        prove: returns consistency proofs.
    """

    def __init__(self, policy: Policy, prove: Prove) -> None:
        self.policy = policy
        self._prove = prove
        self._sizes: dict[str, int] = {}

    async def cosign(self, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
        """Return the lines by which witnesses cosign a checkpoint, and what failed."""
        lines, failures = [], []
        async with _client() as client:
            asked = [self._ask(client, name, url, checkpoint) for name, url in self.policy.urls.items()]
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(outcome, str):
                    lines.append(outcome)
                elif isinstance(outcome, EventStoreError):
                    failures.append(str(outcome))
                else:
                    raise outcome
        return lines, failures

    async def _ask(self, client: httpx.AsyncClient, name: str, url: str, checkpoint: Checkpoint) -> str:
        from httpx import HTTPError

        key = self.policy.witnesses[name]
        for is_last in (False, True):
            old = self._sizes.get(name, 0)
            if old > checkpoint.size:
                raise PublishFailed(
                    f"the witness {name} has seen this log with {old} events, and it has {checkpoint.size} now: the "
                    "database is older than it was; eventstore audit verify shows what is missing"
                )
            hashes = await self._prove(old, checkpoint.size)
            proof = "".join(f"{encode(each)}\n" for each in hashes)
            try:
                response = await client.post(
                    f"{url}/add-checkpoint", content=f"old {old}\n{proof}\n{checkpoint.text}".encode()
                )
            except HTTPError as error:
                raise PublishFailed(f"the witness {name}: {type(error).__name__}: {printable(str(error))}") from None
            text = response.text
            if response.status_code == 409 and text.strip().isdecimal() and not is_last:
                self._sizes[name] = int(text)
                continue
            break
        if response.status_code != 200:
            raise PublishFailed(f"the witness {name} answered {response.status_code}: {printable(text.strip(), 200)}")
        line = _line_of(key, checkpoint, text)
        if line is None:
            raise PublishFailed(f"the witness {name} sent no cosignature under the key {key.name} {key.id}")
        self._sizes[name] = checkpoint.size
        return line


def _line_of(key: PublicKey, checkpoint: Checkpoint, text: str) -> str | None:
    """Return the line of a witness's answer that has its cosignature."""
    for line in text.splitlines(keepends=True):
        with suppress(CheckpointInvalid):
            if key in Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root).with_lines(line).cosigners([key]):
                return line
    return None
