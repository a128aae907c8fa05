"""The real PgBouncer before a server, if it is installed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from support.waiting import until_async
from tools.checker.proxy import Proxy

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def keeps_statements() -> bool:
    """Return whether it is a version that can keep prepared statements: 1.21 or later."""
    assert PROGRAM is not None
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 21)


@asynccontextmanager
async def pgbouncer_to(url: str, *, pool_mode: str, sessions: int, **settings: object) -> AsyncIterator[str]:
    """Start one, and give the URL of the same database through it; skips the test if it is not installed.

    It does not run as root, and the server may know this account only: it reaches the server through a proxy.
    """
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed")
    to = conninfo_to_dict(url)
    login, password = str(to["user"]), str(to.get("password") or "")
    proxy = Proxy(str(to["host"]), int(to.get("port") or 5432))
    await proxy.open()
    with tempfile.TemporaryDirectory(prefix="pgbouncer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "users").write_text(f'"{login}" "{password}"\n')
        lines = {
            "pool_mode": pool_mode, "default_pool_size": sessions, "auth_type": "trust",
            "auth_file": folder / "users", "unix_socket_dir": folder, "listen_addr": "", "listen_port": 5432,
            "logfile": folder / "log", **settings,
        }  # fmt: skip
        text = f"[databases]\n* = host={proxy.host} port={proxy.port}\n[pgbouncer]\n"
        (folder / "ini").write_text(text + "".join(f"{name} = {value}\n" for name, value in lines.items()))
        _open_to_all(folder, Path(proxy.host))
        identity: dict[str, Any] = {"user": "nobody", "extra_groups": []} if not os.geteuid() else {}
        running = await asyncio.create_subprocess_exec(PROGRAM, "-q", str(folder / "ini"), stderr=DEVNULL, **identity)

        async def listens() -> bool:
            return (folder / ".s.PGSQL.5432").exists() or running.returncode is not None

        try:
            await until_async(listens, "PgBouncer listens")
            yield f"postgresql://{quote(login)}@/{to['dbname']}?host={quote(name, safe='')}&port=5432"
        finally:
            running.terminate()
            await running.wait()
            await proxy.close()


def _open_to_all(*folders: Path) -> None:
    for folder in folders:
        if folder.is_absolute():  # the other may be an address
            for path in (folder, *folder.iterdir()):
                path.chmod(0o777)
