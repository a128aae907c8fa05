"""The commands of the deployment guide that start engines: programs, services, files, units and options that exist.

Those of ``eventstore`` alone are run by ``test_blocks.py``, those of ``pg_upgrade`` by ``test_major_upgrade.py``.
"""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from support.environment import TREE
from support.pages import Block, blocks, shell_lines

from agent_manager.cli.main import app

pytestmark = pytest.mark.any_server

PAGE = "docs/guides/deployment.md"
CONSOLE = [block for block in blocks(PAGE) if block.language == "console"]
COMPOSE: dict[str, Any] = yaml.safe_load((TREE / "docker-compose.yml").read_text(encoding="utf-8"))
LINES = [line for block in CONSOLE for line in shell_lines(block)]
COMPOSE_LINES = [line for line in LINES if line.startswith("docker compose ")]
PROGRAMS = {
    "mkdir", "for", "chmod", "docker", "python3", "/opt/eventstore/bin/pip", "install", "printf", "systemctl", "psql",
    "/opt/eventstore/bin/eventstore", "kubectl", "export", "$OLD_BIN/pg_checksums", "$NEW_BIN/initdb",
    "$NEW_BIN/pg_upgrade", "$NEW_BIN/vacuumdb",
}  # fmt: skip


def accepts(*arguments: str) -> None:
    """Fail unless the command ``eventstore`` accepts the arguments."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    command.make_context("eventstore", rest)


def program_of(line: str) -> str:
    """The program of a line, after the variables that are set for it."""
    return next(word for word in line.split() if not re.match(r"[A-Z_]+=", word))


def test_every_program_is_known_to_these_tests() -> None:
    assert {program_of(line) for line in LINES} == PROGRAMS


@pytest.mark.parametrize("line", COMPOSE_LINES)
def test_a_command_of_docker_compose_names_services_profiles_and_commands_that_exist(line: str) -> None:
    words = shlex.split(line)[2:]
    profiles = {profile for service in COMPOSE["services"].values() for profile in service.get("profiles", [])}
    if words[0] == "--profile":
        assert words[1] in profiles
        words = words[2:]
    command, *rest = words
    services = set(COMPOSE["services"])
    match command:
        case "up":
            named = [word.removeprefix("worker=") for word in rest if not word.startswith("--") and "=" not in word]
            assert set(named) <= services
            assert all(word.partition("=")[0] in services for word in rest if "=" in word)
            assert "--detach" in rest
        case "stop":
            assert set(rest) <= services
        case "down":
            assert rest == []
        case "exec":
            service, program, *arguments = rest
            assert (service in services, program) == (True, "eventstore")
            accepts(*arguments)
        case "run":
            remove, service, *arguments = rest
            assert (remove, service in services) == ("--rm", True)
            accepts(*arguments)
            if "/backups" in arguments:
                assert "backups:/backups" in COMPOSE["services"][service]["volumes"]
        case _:
            pytest.fail(f"docker compose {command}: add it to this test")


def test_the_volume_that_is_removed_is_that_of_the_data() -> None:
    [line] = [line for line in LINES if line.startswith("docker volume ")]
    [data] = [volume.split(":")[0] for volume in COMPOSE["services"]["postgres"]["volumes"] if "/var/lib" in volume]
    assert line == f"docker volume rm {COMPOSE['name']}_{data}"


def recipe(first: str) -> Block:
    """The block that begins with a word."""
    [found] = [block for block in CONSOLE if block.text.startswith(first)]
    return found


def test_the_secrets_are_made_as_the_compose_file_needs_them(tmp_path: Path) -> None:
    lines = [line for line in shell_lines(recipe("mkdir")) if not line.startswith("docker ")]
    assert all(line in (TREE / "docker-compose.yml").read_text(encoding="utf-8") for line in lines)
    subprocess.run(["sh", "-ec", "umask 077\n" + "\n".join(lines)], cwd=tmp_path, check=True)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    files = {f"./{path.relative_to(tmp_path)}": path for path in (tmp_path / "secrets").iterdir()}
    assert set(files) == {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o644}
    assert len({path.read_text() for path in files.values()}) == len(files)


def test_the_files_and_units_that_are_installed_exist(tmp_path: Path) -> None:
    lines = shell_lines(recipe("python3 -m venv"))
    units = {path.name for path in (TREE / "deploy/systemd").iterdir()}
    [copied] = [line.split() for line in lines if line.startswith("install -D")]
    assert {Path(word).name for word in copied if word.startswith("deploy/")} == units
    [enabled] = [line.split()[3:] for line in lines if line.startswith("systemctl enable --now")]
    assert {re.sub(r"@\d+\.", "@.", unit) for unit in enabled} == units
    written = [line.replace("/etc/eventstore", str(tmp_path)) for line in lines if "/etc/eventstore" in line]
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/service").write_text("secret\n")
    subprocess.run(["sh", "-ec", "\n".join(written)], cwd=tmp_path, check=True)
    for unit in units:
        text = (TREE / "deploy/systemd" / unit).read_text(encoding="utf-8")
        for name in re.findall(r"/etc/eventstore/([\w-]+)", text):
            assert (tmp_path / name).is_file(), f"{unit} needs /etc/eventstore/{name}, which the guide does not write"
    assert stat.S_IMODE((tmp_path / "postgres-password").stat().st_mode) == 0o600


@pytest.mark.parametrize("line", [line for line in LINES if "bin/eventstore " in line])
def test_commands_with_the_whole_path_exist(line: str) -> None:
    accepts(*line.partition("bin/eventstore ")[2].split())


def test_the_names_of_the_kubernetes_recipe_exist() -> None:
    lines = shell_lines(recipe("docker build"))
    objects = list(yaml.safe_load_all((TREE / "deploy/kubernetes/eventstore.yaml").read_text(encoding="utf-8")))
    text = yaml.safe_dump_all(objects)
    [created] = [shlex.split(line) for line in lines if "create secret" in line]
    assert f"secretName: {created[4]}" in text
    for key in (word.split("=")[1] for word in created if word.startswith("--from-file=")):
        assert f"key: {key}" in text
    assert "kubectl rollout status deployment/eventstore" in lines
    assert "eventstore" in [each["metadata"]["name"] for each in objects if each["kind"] == "Deployment"]


def test_login_sql_is_run_with_the_variables_that_it_reads() -> None:
    [line] = [line for line in LINES if "deploy/login.sql" in line]
    read = set(re.findall(r'"\$(\w+)"', (TREE / "deploy/login.sql").read_text(encoding="utf-8")))
    assert set(re.findall(r"(\w+)=secrets/", line)) == read
