"""docker-compose.yml: what each service may do, and its logins, commands and health checks on a real server.

Nothing here starts a container: the tests need no container engine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo
from support.deployment import (
    COMPOSE,
    DEBIAN_15,
    PASSWORDS,
    PYTHON,
    compose_server,
    confined,
    dockerfile,
    run_login_sql,
    secret_files,
    skip_if_nothing_can_be_confined,
)
from support.environment import TREE
from support.ports import free_port
from support.processes import EVENTSTORE, Commands, Running, commands
from support.waiting import until

from eventstore import Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service.get("build")]
MONITORING = ["prometheus", "grafana"]
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
BACKUPS = "/mnt/backups"
"""The path at which the volume of the backups is mounted."""
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$|_URL$")


def seconds(text: str) -> int:
    """The seconds of a duration such as ``1m``."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


# The file


def test_it_conforms_to_the_specification_of_compose_files() -> None:
    check = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, TREE / "docker-compose.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_services_are_the_database_its_schema_the_service_workers_and_monitoring() -> None:
    assert list(SERVICES) == ["postgres", "migrate", "eventstore", "worker", *MONITORING]
    assert [name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]] == MONITORING
    assert all("profiles" not in service for name, service in SERVICES.items() if name not in MONITORING)


@each_service
def test_a_service_has_no_rights_and_no_file_system_to_change(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert all(network not in service for network in ("network_mode", "pid", "ipc"))


@each_service
def test_a_service_runs_as_an_account_that_is_not_root(service: dict[str, Any]) -> None:
    user = service.get("user") or dict(dockerfile()[-1])["USER"]
    assert re.fullmatch(r"[1-9]\d*:\d+", user)


@each_service
def test_a_service_is_checked_restarted_stopped_in_time_and_logs_a_bounded_amount(service: dict[str, Any]) -> None:
    is_one_shot = service["restart"] == "on-failure:3"
    assert is_one_shot or service["restart"] == "unless-stopped"
    if is_one_shot:
        assert service["healthcheck"] == {"disable": True}
    else:
        check = service["healthcheck"]
        assert check["test"][0] == "CMD"
        assert seconds(check["timeout"]) <= seconds(check["interval"])
        assert check["retries"] > 1
        assert seconds(check["start_period"]) >= 60
        assert seconds(service["stop_grace_period"]) >= 30
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}


@each_service
def test_a_service_has_its_secrets_in_files(service: dict[str, Any]) -> None:
    for name, value in service.get("environment", {}).items():
        if SECRET.search(name):
            assert name.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in service["secrets"]
        assert "$" not in str(value), "substituted from the environment, or from .env"


@each_service
def test_a_service_is_of_a_pinned_image_and_published_on_loopback_only(service: dict[str, Any]) -> None:
    if "build" not in service:
        assert re.fullmatch(r"[a-z/]+:v?\d+[\w.-]*", service["image"])
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (volume.endswith(":ro") and (TREE / source).exists())


def test_all_secrets_and_volumes_are_used() -> None:
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {f"./secrets/{name}" for name in used}
    assert "secrets/" in (TREE / ".gitignore").read_text()
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= mounted


def test_responses_in_a_folder_in_memory_are_few() -> None:
    service = SERVICES["eventstore"]
    assert any(each.startswith("/tmp:") for each in service["tmpfs"])
    assert int(service["environment"]["EVENTSTORE_RESPONSE_BYTES"]) <= 256 * 2**20


def test_nothing_logs_in_as_the_superuser() -> None:
    users = {name: SERVICES[name]["environment"]["POSTGRES_USER"] for name in OURS}
    assert users == {"migrate": "agents_migrator", "eventstore": "agents", "worker": "agents"}
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/superuser"
    assert [name for name, service in SERVICES.items() if "superuser" in service.get("secrets", [])] == ["postgres"]


def test_the_schema_is_migrated_before_anything_uses_it() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("eventstore", "worker"):
        assert SERVICES[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_only_the_programs_reach_the_database() -> None:
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "database" in service.get("networks", [])} == {
        "postgres", *OURS,
    }  # fmt: skip


def test_only_monitoring_reaches_the_metrics() -> None:
    assert COMPOSE["networks"]["monitoring"] == {"internal": True}
    assert SERVICES["prometheus"]["networks"] == ["monitoring"]
    for name in ("eventstore", "worker"):
        assert "monitoring" in SERVICES[name]["networks"]
        port = SERVICES[name]["environment"]["EVENTSTORE_METRICS_PORT"]
        assert not any(published.endswith(f":{port}") for published in SERVICES[name].get("ports", []))


def test_grafana_is_provisioned_with_the_server_and_the_dashboards() -> None:
    mounts = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    provisioning = TREE / mounts["/etc/grafana/provisioning"]
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    [provider] = yaml.safe_load((provisioning / "dashboards/eventstore.yml").read_text())["providers"]
    assert mounts[provider["options"]["path"]] == "./deploy/grafana"
    for name in ("prometheus", "grafana"):
        assert set(SERVICES[name]["networks"]) & {"monitoring"}


def test_workers_can_be_scaled() -> None:
    worker = SERVICES["worker"]
    assert worker["command"] == ["project"]
    assert all(name not in worker for name in ("ports", "container_name", "hostname", "volumes"))


def test_the_health_check_of_the_service_is_that_of_the_image() -> None:
    flags, command = dict(dockerfile()[-1])["HEALTHCHECK"].split(" CMD ", 1)
    check = SERVICES["eventstore"]["healthcheck"]
    assert ["CMD", *json.loads(command)] == check["test"]
    given = dict(re.findall(r"--([\w-]+)=(\w+)", flags))
    assert given == {
        name.replace("_", "-"): str(check[name]) for name in ("interval", "timeout", "start_period", "retries")
    }


# Its programs on a real server


@dataclass
class Deployment:
    """The services of the compose file that are ours, as processes without rights."""

    server: EmbeddedServer
    folder: Path
    started: Commands
    backups: Path
    http_port: int = field(default_factory=free_port)

    @property
    def secrets(self) -> Path:
        """The folder of the secrets."""
        return secret_files(self.folder)

    def environment(self, service: str) -> dict[str, str]:
        """The variables of a service, with other ports, and the volume at another place."""
        given = {name: str(value) for name, value in SERVICES[service]["environment"].items()}
        port = (self.server.tcp_url or "").rpartition(":")[2].partition("/")[0]
        others = {"POSTGRES_PORT": port} | (
            {"EVENTSTORE_METRICS_PORT": "0"} if "EVENTSTORE_METRICS_PORT" in given else {}
        )
        return {name: value.replace("/backups", BACKUPS) for name, value in given.items()} | others

    def command(self, service: str, *arguments: str) -> list[str]:
        """The command that runs a command of ours as a service."""
        return self._confined([PYTHON, *EVENTSTORE[1:], *arguments], service)

    def start(self, service: str) -> Running:
        """Start a service with the command of the compose file, on another port."""
        arguments = [str(self.http_port) if word == "8080" else word for word in SERVICES[service]["command"]]
        return self.started.start(*self.command(service, *arguments))

    def run(self, service: str, *arguments: str) -> str:
        """Run a command of ours to its end, as ``docker compose run`` and ``exec`` do."""
        done = subprocess.run(self.command(service, *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def is_healthy(self, service: str) -> bool:
        """Return whether the health check of a service succeeds."""
        _, program, *arguments = SERVICES[service]["healthcheck"]["test"]
        assert program == "python"
        arguments = [word.replace("8080", str(self.http_port)) for word in arguments]
        checked = subprocess.run(
            self._confined([PYTHON, *arguments], service), capture_output=True, text=True, check=False
        )
        assert checked.returncode in (0, 1)
        return checked.returncode == 0

    def _confined(self, command: list[str], service: str) -> list[str]:
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost postgres\n")
        mounts = {str(self.secrets): "/run/secrets", str(hosts): "/etc/hosts"}
        if "backups:/backups" in SERVICES[service].get("volumes", []):
            mounts[str(self.backups)] = BACKUPS
        return confined(command, self.environment(service), mounts)


@pytest.fixture
def deployment(request: pytest.FixtureRequest, clean_environment: None, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment on the newest PostgreSQL, or on that of the test's parameter."""
    skip_if_nothing_can_be_confined()
    with compose_server(getattr(request, "param", None)) as server, commands(tmp_path / "output", []) as started:
        yield Deployment(server, tmp_path, started, volume(tmp_path))


def volume(folder: Path) -> Path:
    """A volume for backups, which belongs to the account of the image."""
    backups = folder / "backups"
    backups.mkdir()
    os.chown(backups, 10001, 10001)
    return backups


@pytest.mark.slow
def test_migration_service_and_workers_run_without_rights_and_stop_in_time(deployment: Deployment) -> None:
    assert "applied " in deployment.run("migrate", *SERVICES["migrate"]["command"])
    assert "nothing to apply" in deployment.run("migrate", *SERVICES["migrate"]["command"])
    assert not deployment.is_healthy("eventstore")
    assert not deployment.is_healthy("worker")
    service, *workers = [deployment.start("eventstore"), deployment.start("worker"), deployment.start("worker")]
    service.until_printed("Stop ")
    for worker in workers:
        worker.until_printed("follow the log")
    until(lambda: deployment.is_healthy("eventstore"), "the service is healthy")
    until(lambda: deployment.is_healthy("worker"), "a worker is healthy")
    assert "Warning" not in service.err
    assert "migrations are up to date" in service.out

    token = json.loads(deployment.run("eventstore", "keys", "add", "first", "--json"))["token"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{deployment.http_port}/v1/conversations", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200
    status = deployment.run("eventstore", "status")
    assert status.count("eventstore worker ") == 3
    assert "warning" not in status.lower()
    deployment.run("migrate", "rebuild")

    for name, running in zip(("eventstore", "worker", "worker"), (service, *workers), strict=True):
        assert running.interrupt(signal.SIGTERM, seconds(SERVICES[name]["stop_grace_period"])) == 0


@pytest.mark.slow
def test_a_backup_by_the_service_is_restored_by_the_migrator_on_another_version(
    clean_environment: None, tmp_path: Path
) -> None:
    skip_if_nothing_can_be_confined()
    backups = volume(tmp_path)
    with commands(tmp_path / "output", []) as started:
        with compose_server(DEBIAN_15) as old:
            deployment = Deployment(old, tmp_path, started, backups)
            deployment.run("migrate", "migrate", "up")
            deployment.run("eventstore", "seed")
            deployment.run("eventstore", "backup", "create", BACKUPS)
            deployment.run("eventstore", "backup", "verify", BACKUPS)
        with compose_server() as new:
            deployment = Deployment(new, tmp_path, started, backups)
            deployment.run("migrate", "backup", "restore", BACKUPS)
            assert "sample-trip" in deployment.run("eventstore", "conversations")
            assert "Warning" not in deployment.run("eventstore", "status")
            deployment.run("migrate", "verify")


@pytest.mark.slow
@pytest.mark.parametrize("deployment", [None, DEBIAN_15], ids=["18", "15"], indirect=True)
def test_the_logins_are_no_superusers_and_may_only_do_their_work(deployment: Deployment) -> None:
    port = (deployment.server.tcp_url or "").rpartition(":")[2].partition("/")[0]
    urls = {
        login: Settings(
            postgres_host="127.0.0.1", postgres_port=int(port), postgres_user=login, postgres_password=PASSWORDS[secret]
        ).server_url()
        or ""
        for login, secret in (("agents", "service"), ("agents_migrator", "migrator"))
    }
    deployment.run("migrate", "migrate", "up")
    for url in urls.values():
        with psycopg.connect(url) as connection:
            attributes = "rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication"
            row = connection.execute(f"SELECT {attributes} FROM pg_roles WHERE rolname = current_user").fetchone()
            assert row == (False,) * 5
    with psycopg.connect(urls["agents"]) as connection:
        member = "SELECT r.rolname FROM pg_roles r WHERE pg_has_role(r.oid, 'MEMBER') AND r.rolname <> current_user"
        assert {name for (name,) in connection.execute(member)} == {
            f"eventstore_{role}" for role in ("app", "projector", "writer", "reader", "auditor", "eraser")
        }
    for statement in (
        "CREATE TABLE t ()",
        "DROP TABLE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "CREATE ROLE r",
    ):
        with psycopg.connect(urls["agents"]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    with psycopg.connect(make_conninfo(deployment.server.superuser_url, dbname="flowagents")) as superuser:
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'flowagents'"
        assert superuser.execute(owner).fetchone() == ("agents_migrator",)
        stored = "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$%') FROM pg_authid WHERE rolname LIKE 'agents%'"
        assert superuser.execute(stored).fetchone() == (True,)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["service", "migrator"])
def test_without_a_password_no_login_is_created(own_server: EmbeddedServer, tmp_path: Path, missing: str) -> None:
    secrets = secret_files(tmp_path)
    (secrets / missing).unlink()
    postgres = make_conninfo(own_server.superuser_url, dbname="postgres")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run_login_sql(postgres, secrets)
    assert "must name readable files with a password" in raised.value.stderr
    with psycopg.connect(postgres) as superuser:
        assert superuser.execute("SELECT FROM pg_roles WHERE rolname LIKE 'agents%'").fetchall() == []


@pytest.mark.slow
def test_the_cluster_has_an_order_of_texts_that_no_library_changes(own_server: EmbeddedServer) -> None:
    arguments = SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
    if int(own_server.version.split(".")[0]) < 17:
        pytest.skip("the builtin provider of locales came with PostgreSQL 17")
    owner = (own_server.data_dir / "pgdata").stat()
    account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, owner.st_uid, owner.st_gid)
        command = [own_server.bin_dir / "initdb", "--no-sync", *arguments, name]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True, **account)
    assert "default text search configuration" in done.stdout
    assert re.search(r"locale provider: +builtin\n +default collation: +C.UTF-8", done.stdout)
