"""The same INSERT as in :mod:`agent_manager.bench.bare`, sent by pgbench: what the server manages without Python."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from agent_manager.bench.messages import Message, streams
from agent_manager.bench.place import Place
from agent_manager.bench.work import Bench, Side
from eventstore.database.binaries import wheel_bin_dir
from eventstore.database.queries import query
from eventstore.errors import EmbeddedServerError, ServerError

_SCRIPTS = 100
"""Different messages; pgbench draws one for each INSERT."""
_THREADS = 2


def program() -> str | None:
    """Where pgbench is, if it is anywhere."""
    with suppress(EmbeddedServerError):
        beside_the_server = wheel_bin_dir() / "pgbench"
        if beside_the_server.exists():
            return str(beside_the_server)
    return shutil.which("pgbench")


def pgbench(bench: Bench, path: str, clients: int) -> Side:
    """INSERTs a second with so many clients."""

    async def measure(seed: str) -> float:
        (stream,) = streams(f"pgbench/{seed}", 1)
        with TemporaryDirectory() as folder:
            files = _write_scripts(Path(folder), list(islice(stream, _SCRIPTS)))
            return await _run(path, bench.place, clients, files, bench.scale.seconds / bench.scale.slices)

    return measure


def _write_scripts(folder: Path, messages: list[Message]) -> list[str]:
    template = query("agent_manager.bench", "pgbench_insert")
    files = []
    for number, message in enumerate(messages):
        content = json.dumps(message.content(), ensure_ascii=False).replace("'", "''")
        file = folder / f"{number}.sql"
        text = template.replace("{actor}", message.actor).replace("{content}", content)
        file.write_text(
            text.replace("{salt}", message.salt.hex()).replace("{digest}", message.digest.hex()), encoding="utf-8"
        )
        files.append(str(file))
    return files


async def _run(path: str, place: Place, clients: int, files: list[str], seconds: float) -> float:
    given: dict[str, Any] = conninfo_to_dict(place.url)
    password = given.pop("password", None)
    environment = os.environ | {"PGOPTIONS": f"-c search_path={place.schema}", "PGCLIENTENCODING": "UTF8"}
    if password is not None:
        environment["PGPASSWORD"] = str(password)
    length = ["-T", str(max(1, round(seconds)))]  # it knows whole seconds only
    process = await asyncio.create_subprocess_exec(
        path, "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(_THREADS, clients)), *length,
        *(word for file in files for word in ("-f", file)), make_conninfo(**given),
        env=environment, stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    found = re.search(r"^tps = ([0-9.]+)", out.decode(), re.MULTILINE)
    if process.returncode or not found:
        raise ServerError(f"pgbench failed: {err.decode(errors='replace').strip().rpartition(chr(10))[2]}")
    return float(found[1])
