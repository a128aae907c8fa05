"""The Kubernetes manifest: what its pods may do, how they are checked and replaced, and that its names exist."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import pytest
import typer.main
import yaml
from support.deployment import COMPOSE, dockerfile
from support.environment import TREE

from agent_manager.cli.main import app
from agent_manager.settings import ServerSettings
from eventstore import __version__

pytestmark = pytest.mark.any_server

OBJECTS: list[dict[str, Any]] = [
    each
    for path in sorted((TREE / "deploy/kubernetes").glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
]
DEPLOYMENTS = {each["metadata"]["name"]: each["spec"] for each in OBJECTS if each["kind"] == "Deployment"}
PODS = {name: spec["template"]["spec"] for name, spec in DEPLOYMENTS.items()}
CONTAINERS = {
    container["name"]: (pod, container)
    for pod in PODS.values()
    for container in chain(pod.get("initContainers", []), pod["containers"])
}
each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
each_container = pytest.mark.parametrize(("pod", "container"), CONTAINERS.values(), ids=CONTAINERS)


def named(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


def test_it_conforms_to_the_schemas_of_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is too large for the extra test")
    for each in OBJECTS:
        validate.validate(each, "1.32", strict=True)


def test_the_manifest_has_servers_workers_and_what_keeps_them_available() -> None:
    assert list(DEPLOYMENTS) == ["eventstore", "eventstore-worker"]
    assert list(CONTAINERS) == ["migrate", "server", "worker"]
    for name, spec in DEPLOYMENTS.items():
        assert spec["replicas"] >= 2
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        budget = named("PodDisruptionBudget")[name]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert budget["minAvailable"] < spec["replicas"]
        assert budget["selector"]["matchLabels"] == spec["selector"]["matchLabels"] == labels
    service = named("Service")["eventstore"]["spec"]
    assert service["selector"] == DEPLOYMENTS["eventstore"]["selector"]["matchLabels"]
    assert [port["targetPort"] for port in service["ports"]] == ["http"]


@each_pod
def test_a_pod_runs_as_the_account_of_the_image_and_without_a_token_of_the_cluster(pod: dict[str, Any]) -> None:
    user, group = map(int, dict(dockerfile()[-1])["USER"].split(":"))
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": user, "runAsGroup": group, "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["terminationGracePeriodSeconds"] >= 30


@each_container
def test_a_container_has_no_rights_bounded_resources_and_a_pinned_image(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert container["image"] == f"flowagents-eventstore:{__version__}"
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted["tmp"] == "/tmp"
    assert set(mounted) <= {volume["name"] for volume in pod["volumes"]}


def test_the_responses_of_a_server_fit_into_its_folder_and_no_pod_is_evicted_for_them() -> None:
    [folder] = [volume["emptyDir"] for volume in PODS["eventstore"]["volumes"] if volume["name"] == "tmp"]
    responses = int(named("ConfigMap")["eventstore"]["data"]["EVENTSTORE_RESPONSE_BYTES"])
    assert int(folder["sizeLimit"].removesuffix("Mi")) * 2**20 > responses


@each_container
def test_a_container_reads_its_own_secret_from_a_file(pod: dict[str, Any], container: dict[str, Any]) -> None:
    variables = {each["name"]: each["value"] for each in container["env"]}
    login = "migrator" if container["name"] == "migrate" else "service"
    assert variables == {
        "POSTGRES_USER": "agents_migrator" if login == "migrator" else "agents",
        "POSTGRES_PASSWORD_FILE": f"/run/secrets/eventstore/{login}",
    }
    [secret] = [mount for mount in container["volumeMounts"] if mount["name"] != "tmp"]
    assert (secret["name"], secret["readOnly"]) == (login, True)
    [volume] = [each["secret"] for each in pod["volumes"] if each["name"] == login]
    assert (volume["secretName"], volume["defaultMode"]) == ("eventstore", 0o440)
    assert volume["items"] == [{"key": login, "path": login}]


@each_container
def test_a_container_runs_a_command_that_exists_with_settings_that_exist(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    command: Any = typer.main.get_command(app)
    name, *rest = container["args"]
    if hasattr(command.commands[name], "commands"):
        command, (name, *rest) = command.commands[name], rest
    command.commands[name].make_context(name, rest)
    assert container["envFrom"] == [{"configMapRef": {"name": "eventstore"}}]


def test_the_settings_are_those_of_the_program_and_no_secret() -> None:
    given = set(named("ConfigMap")["eventstore"]["data"])
    known = {ServerSettings.variable_of(name) for name in ServerSettings.model_fields}
    assert given - known <= {"EVENTSTORE_METRICS_HOST", "EVENTSTORE_METRICS_PORT"}
    assert not any(re.search("PASSWORD|SECRET|KEY|DATABASE_URL", name) for name in given)


def test_the_server_is_checked_where_it_answers_and_drained_before_it_stops() -> None:
    pod, server = CONTAINERS["server"]
    paths = {probe: server[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    assert paths == {
        "startup": {"path": "/health", "port": "http"},
        "liveness": {"path": "/health", "port": "http"},
        "readiness": {"path": "/ready", "port": "http"},
    }
    assert {port["name"]: port["containerPort"] for port in server["ports"]}["http"] == int(server["args"][-1])
    pause = int(server["lifecycle"]["preStop"]["exec"]["command"][-1])
    allowed = int(COMPOSE["services"]["eventstore"]["stop_grace_period"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] >= pause + allowed


def test_a_worker_is_checked_as_in_the_compose_file() -> None:
    _, worker = CONTAINERS["worker"]
    assert ["CMD", *worker["readinessProbe"]["exec"]["command"]] == COMPOSE["services"]["worker"]["healthcheck"]["test"]
    assert "livenessProbe" not in worker, "a worker waits for a server that is away"
