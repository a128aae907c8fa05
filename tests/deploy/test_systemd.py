"""The systemd units: correct to systemd itself, without rights, and with commands and variables that exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
from support.environment import TREE

from agent_manager.cli.main import app
from agent_manager.settings import ServerSettings

pytestmark = pytest.mark.any_server

UNITS = {path.name: path for path in sorted((TREE / "deploy/systemd").iterdir())}
EXPOSURE = 2.0
"""The highest exposure, of 10, that systemd-analyze may find; a service that needs a network has at least about 1."""
each_unit = pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)


def directives(unit: Path) -> dict[str, str]:
    """The directives of a unit; of one that is repeated, all values in one text."""
    found: dict[str, str] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the units, with a program that exists, and the template with a name."""
    for name, unit in UNITS.items():
        text = unit.read_text(encoding="utf-8").replace("/opt/eventstore/bin/eventstore", "/bin/true")
        (tmp_path / name.replace("@.", "@1.")).write_text(text, encoding="utf-8")
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_there_is_a_unit_for_the_service_and_one_for_each_worker() -> None:
    assert list(UNITS) == ["eventstore-worker@.service", "eventstore.service"]


@each_unit
def test_systemd_accepts_a_unit(unit: Path, installed: Path) -> None:
    verified = analyze("verify", "--man=no", str(installed / unit.name.replace("@.", "@1.")))
    assert (verified.returncode, verified.stderr) == (0, "")


@each_unit
def test_systemd_finds_little_that_a_unit_exposes(unit: Path, installed: Path) -> None:
    threshold = f"--threshold={EXPOSURE * 10:.0f}"
    rated = analyze("security", "--offline=yes", threshold, str(installed / unit.name.replace("@.", "@1.")))
    assert rated.returncode == 0, rated.stdout + rated.stderr


@each_unit
def test_a_unit_gives_no_rights_restarts_and_stops_in_time(unit: Path) -> None:
    given = directives(unit)
    expected = {
        "Type": "exec", "Restart": "always", "TimeoutStopSec": "30", "KillSignal": "SIGTERM", "DynamicUser": "yes",
        "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
        "CapabilityBoundingSet": "", "StartLimitIntervalSec": "0",
    }  # fmt: skip
    assert {name: given.get(name) for name in expected} == expected


@each_unit
def test_a_unit_reads_secrets_from_credentials(unit: Path) -> None:
    given = directives(unit)
    credentials = dict(pair.split(":") for pair in given["LoadCredential"].split())
    variables = dict(pair.split("=", 1) for pair in given["Environment"].split())
    files = {name: value for name, value in variables.items() if name.endswith("_FILE")}
    assert files == {"POSTGRES_PASSWORD_FILE": "%d/postgres-password"}
    assert set(files) <= set(ServerSettings.secret_files().values())
    assert credentials == {"postgres-password": "/etc/eventstore/postgres-password"}
    if "EVENTSTORE_BACKUP_DIR" in variables:
        assert Path(variables["EVENTSTORE_BACKUP_DIR"]).is_relative_to(f"/var/lib/{given['StateDirectory']}")


@each_unit
def test_the_command_of_a_unit_exists(unit: Path) -> None:
    program, name, *options = shlex.split(directives(unit)["ExecStart"])
    assert program == "/opt/eventstore/bin/eventstore"
    command: Any = typer.main.get_command(app)
    command.commands[name].make_context(name, options)


def test_both_units_are_confined_in_the_same_way() -> None:
    service, worker = (directives(UNITS[name]) for name in ("eventstore.service", "eventstore-worker@.service"))
    only = {"Description", "After", "ExecStart", "Environment", "StateDirectory", "StateDirectoryMode"}
    assert {name: value for name, value in service.items() if name not in only} == {
        name: value for name, value in worker.items() if name not in only
    }
    assert re.search(r"--require-tokens\b", service["ExecStart"])
