"""The processes of a deployment file, run without its engine: under another account, with a read-only file system."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.embedded.installation import wheel_bin_dir
from support.environment import TREE
from support.ports import free_port
from support.servers import memory_folder, open_folder

COMPOSE: dict[str, Any] = yaml.safe_load((TREE / "docker-compose.yml").read_text(encoding="utf-8"))
PASSWORDS = {"superuser": "sup$r", "migrator": "it's \\ m1grator", "service": "it's a $ecret"}
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")

_CONFINE = """
set -e
mount --make-rprivate /
for folder in /mnt /opt /run; do mount -t tmpfs tmpfs $folder; done
for pair in $MOUNTS; do
    if [ -d "${pair%%:*}" ]; then mkdir -p "${pair#*:}"; fi
    mount --bind "${pair%%:*}" "${pair#*:}"
done
"""
_AS_ACCOUNT = """
mount -t tmpfs -o mode=1777 tmpfs /tmp
for folder in /mnt /opt /run /; do mount -o remount,bind,ro $folder; done
cd /
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all env -i "$@"
"""
_MOUNTS = {
    sys.base_prefix: "/mnt/python",
    str(Path(sys.executable).parent): "/mnt/bin",
    sysconfig.get_path("purelib"): "/mnt/packages",
    str(TREE): "/mnt/tree",
}
"""Folders that an account which cannot enter them sees at other places: the interpreter, its packages, the tree."""
PYTHON = "/mnt/python/bin/python3"
_PYTHON_VARIABLES = {"PYTHONPATH": "/mnt/tree:/mnt/packages", "LD_LIBRARY_PATH": "/mnt/python/lib"}


@contextmanager
def compose_server(bin_dir: Path | None = None) -> Iterator[EmbeddedServer]:
    """A server on a port of 127.0.0.1, after deploy/login.sql: what the service ``postgres`` of the compose file is."""
    if bin_dir is not None and not (bin_dir / "postgres").is_file():
        pytest.skip(f"there is no PostgreSQL in {bin_dir}")
    with (
        open_folder(memory_folder()) as folder,
        EmbeddedServer(folder / "server", pg_port=free_port(), bin_dir=bin_dir) as server,
    ):
        postgres = make_conninfo(server.superuser_url, dbname="postgres")
        with (server.data_dir / "pgdata" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 127.0.0.1/32 scram-sha-256\n")  # as the image's
        with psycopg.connect(postgres, autocommit=True) as superuser:
            superuser.execute("SELECT pg_reload_conf()")
            superuser.execute("DROP DATABASE IF EXISTS flowagents WITH (FORCE)")
        run_login_sql(postgres, secret_files(folder))
        yield server


def secret_files(folder: Path) -> Path:
    """A folder with a file for each secret."""
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    for name, password in PASSWORDS.items():
        (secrets / name).write_text(f"{password}\n", encoding="utf-8")
    return secrets


def run_login_sql(url: str, secrets: Path) -> None:
    """Run deploy/login.sql as the image of PostgreSQL does, with the variables of the compose file."""
    psql = wheel_bin_dir()
    assert psql is not None
    given = COMPOSE["services"]["postgres"]["environment"]
    environment = {name: value.replace("/run/secrets", str(secrets)) for name, value in given.items()}
    subprocess.run(
        [psql / "psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", TREE / "deploy/login.sql", url],
        env={"PATH": os.environ["PATH"], **environment}, check=True, capture_output=True, text=True,
    )  # fmt: skip


def in_namespace(command: list[str], mounts: Mapping[str, str]) -> list[str]:
    """Return a command that runs another one as root in its own mount namespace, with further mounts by source."""
    return _unshared([], 'exec "$@"', command, mounts)


def confined(command: list[str], environment: Mapping[str, str], mounts: Mapping[str, str]) -> list[str]:
    """Return a command that runs another one as the image does: without rights, on a read-only file system.

    It runs as account 10001 without capabilities, and can write to a ``/tmp`` of its own.

    Args:
        environment: all variables of the command, except for those of Python.
        mounts: further folders and files that it sees, by source.
    """
    given = _PYTHON_VARIABLES | {"PATH": "/mnt/bin:/usr/bin:/bin", "HOME": "/home/eventstore"}
    variables = [f"{name}={value}" for name, value in (given | dict(environment)).items()]
    return _unshared(variables, _AS_ACCOUNT, command, mounts)


def _unshared(variables: list[str], last: str, command: list[str], mounts: Mapping[str, str]) -> list[str]:
    pairs = " ".join(f"{source}:{target}" for source, target in (_MOUNTS | dict(mounts)).items())
    return ["env", f"MOUNTS={pairs}", "unshare", "--mount", "sh", "-c", _CONFINE + last, "sh", *variables, *command]


def skip_if_nothing_can_be_confined() -> None:
    """Skip the test if this account may not make mount namespaces."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this account may not make mount namespaces")


def dockerfile() -> list[list[tuple[str, str]]]:
    """The instructions of the Dockerfile, by stage."""
    text = (TREE / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: list[list[tuple[str, str]]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            stages.append([])
        stages[-1].append((instruction, " ".join(shlex.split(rest)) if instruction == "ENV" else rest.strip()))
    return stages
