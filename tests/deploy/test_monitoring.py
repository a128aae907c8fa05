"""The dashboard and the alerts name what is exported, and each alert fires when it should and only then."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.environment import TREE
from support.metrics_table import documented_metrics
from support.pages import anchors

pytestmark = pytest.mark.any_server

PROMETHEUS = TREE / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((TREE / "deploy" / "grafana" / "eventstore.json").read_text(encoding="utf-8"))
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
ADDED = {"job", "instance", "le"}
"""Labels that Prometheus adds, and that of the buckets."""

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is missing")


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for target in TARGETS)


def used_metrics(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The names of the metrics in an expression, with the labels that are selected of each."""
    for name, selectors in re.findall(r"\b((?:eventstore|process)_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors or ""))


def test_dashboard_and_alerts_name_only_what_is_exported() -> None:
    exported = documented_metrics()  # test_metrics.py compares it with a scrape
    used = [each for expression in expressions() for each in used_metrics(expression)]
    assert len(used) > 60
    for name, labels in used:
        assert name in exported, name
        assert labels <= exported[name] | ADDED, (name, labels)
    for expression in expressions():
        known = set[str]().union(ADDED, *(exported[name] for name, _ in used_metrics(expression)))
        for labels in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in labels.split(",")} <= known, expression
    for target in TARGETS:
        known = set[str]().union(ADDED, *(exported[name] for name, _ in used_metrics(target["expr"])))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, target
    for rule in RULES:
        known = set[str]().union(ADDED, *(exported[name] for name, _ in used_metrics(rule["expr"])))
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= known, rule


def test_the_dashboard_shows_every_metric_of_the_store() -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in documented_metrics()}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for one in TARGETS for name, _ in used_metrics(one["expr"])}
    assert {name for name in families if name.startswith("eventstore_")} <= shown


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert DASHBOARD["schemaVersion"] >= 38, "Grafana 10"
    assert "id" not in DASHBOARD
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    sources = {json.dumps(each.get("datasource")) for each in (*TARGETS, *DASHBOARD["panels"]) if "expr" in each}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert [each["type"] for each in DASHBOARD["templating"]["list"]] == ["datasource", "query"]


def test_every_alert_says_what_to_do_and_where_to_read_on() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert len(rule["annotations"]["description"].split()) > 8, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/guides/troubleshooting.md"
        assert not anchor or anchor in anchors(TREE / page), rule["alert"]


@needs_promtool
def test_prometheus_accepts_its_configuration_the_rules_and_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    queries = [each["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*") for each in TARGETS]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", str(file))


UP = 'up{job="eventstore", instance="a"}'
LAG = 'eventstore_projection_lag_seconds{projection="%s", instance="a"}'
RESPONSES = 'eventstore_http_responses_total{route="%s", status="%s", method="GET", instance="a"}'
SLOW = "0+0x60", "0+60x60"  # none within the bucket, all above it


def buckets(metric: str, bound: str, within: str, more: str = "") -> dict[str, str]:
    return {f'{metric}_bucket{{le="{bound}"{more}}}': within, f'{metric}_bucket{{le="+Inf"{more}}}': "0+60x60"}


CASES: dict[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "EventstoreDown": ({UP: "0x60"}, {UP: "1x60"}),
    "EventstoreDatabaseAway": ({"eventstore_database_up": "0x60"}, {"eventstore_database_up": "1x60"}),
    "EventstoreNoWorker": ({"eventstore_workers": "0x60"}, {"eventstore_workers": "1x60"}),
    "EventstoreLag": ({LAG % "messages": "31x60"}, {LAG % "messages": "29x60", LAG % "search": "800x60"}),
    "EventstoreLowPriorityLag": ({LAG % "search": "901x60"}, {LAG % "search": "899x60"}),
    "EventstoreParked": (
        {'eventstore_projection_parked_conversations{projection="tasks"}': "1x60"},
        {'eventstore_projection_parked_conversations{projection="tasks"}': "0x60"},
    ),
    "EventstoreHorizonHeldBack": (
        {"eventstore_log_horizon_distance": "5x60", "eventstore_log_horizon_position": "100x60"},
        {"eventstore_log_horizon_distance": "5x60", "eventstore_log_horizon_position": "100+1x60"},
    ),
    "EventstorePoolExhausted": (
        {'eventstore_pool_timeouts_total{pool="reader", instance="a"}': "0+1x60"},
        {'eventstore_pool_timeouts_total{pool="reader", instance="a"}': "7x60"},
    ),
    "EventstoreAppendsFail": (
        {'eventstore_append_failures_total{error="ConnectionLost"}': "0+1x60"},
        {
            'eventstore_append_failures_total{error="InvalidEvent"}': "0+1x60",
            'eventstore_append_failures_total{error="DiskFull"}': "0+1x60",
        },
    ),
    "EventstoreDiskFull": (
        {'eventstore_append_failures_total{error="DiskFull"}': "0+1x60"},
        {'eventstore_append_failures_total{error="DiskFull"}': "3x60"},
    ),
    "EventstoreAppendsSlow": (
        buckets("eventstore_append_seconds", "0.2", "0+50x60") | buckets("eventstore_append_seconds", "0.5", "0+60x60"),
        buckets("eventstore_append_seconds", "0.2", "0+60x60"),
    ),
    "EventstoreErrors": (
        {RESPONSES % ("/v1/conversations", 500): "0+2x60", RESPONSES % ("/v1/conversations", 200): "0+100x60"},
        {RESPONSES % ("/ready", 503): "0+60x60", RESPONSES % ("/v1/conversations", 200): "0+100x60"},
    ),
    "EventstoreSlow": (
        buckets("eventstore_http_request_seconds", "0.2", "0+50x60", ', route="/v1/tasks"')
        | buckets("eventstore_http_request_seconds", "0.5", "0+60x60", ', route="/v1/tasks"'),
        buckets("eventstore_http_request_seconds", "0.2", "0+60x60", ', route="/v1/tasks"')
        | buckets("eventstore_http_request_seconds", "0.2", "0x60", ', route="/v1/conversations/{conversation}/send"'),
    ),
    "EventstoreSearchSlow": (
        buckets("eventstore_search_seconds", "1.0", "0+50x60") | buckets("eventstore_search_seconds", "2.5", "0+60x60"),
        buckets("eventstore_search_seconds", "1.0", "0+60x60"),
    ),
    "EventstoreRejections": (
        {'eventstore_http_rejections_total{reason="events_per_second"}': "0+120x60"},
        {'eventstore_http_rejections_total{reason="bad_token"}': "0+120x60"},
    ),
    "EventstoreNotificationQueue": (
        {"eventstore_notification_queue_usage_ratio": "0.5x60"},
        {"eventstore_notification_queue_usage_ratio": "0.4x60"},
    ),
    "EventstoreBackupOld": (
        {"eventstore_backup_last_success_timestamp_seconds": "0x60", "eventstore_backup_interval_seconds": "900x60"},
        {"eventstore_backup_last_success_timestamp_seconds": "0+60x60", "eventstore_backup_interval_seconds": "900x60"},
    ),
    "EventstoreNotSealed": ({"eventstore_audit_lag_seconds": "301x60"}, {"eventstore_audit_lag_seconds": "299x60"}),
    "EventstoreErasuresNotApplied": (
        {"eventstore_erasures_not_applied": "1x60"},
        {"eventstore_erasures_not_applied": "0x60"},
    ),
    "EventstoreRebuildStopped": (
        {'eventstore_projection_rebuild_ratio{projection="tasks"}': "0.5x90"},
        {'eventstore_projection_rebuild_ratio{projection="tasks"}': "0+0.01x90"},
    ),
}
"""Series of an hour by alert, one sample a minute: some with which it fires, and some with which it does not."""


@pytest.mark.slow
@needs_promtool
def test_each_alert_fires_on_its_symptom_and_not_without_it(tmp_path: Path) -> None:
    assert CASES.keys() == {rule["alert"] for rule in RULES}
    tests: list[dict[str, Any]] = []
    for rule in RULES:
        firing, quiet = CASES[rule["alert"]]
        for is_firing, series in ((True, firing), (False, quiet)):
            given = [{"series": name, "values": values} for name, values in series.items()]
            # The alert as a series: its labels need not be repeated here.
            query = f'count(ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}})'
            samples = [{"labels": "{}", "value": 1}] if is_firing else []
            expected = {"expr": query, "eval_time": "60m", "exp_samples": samples}
            tests.append({"interval": "1m", "input_series": given, "promql_expr_test": [expected]})
    file = tmp_path / "tests.yml"
    document = {"rule_files": [str(PROMETHEUS / "rules.yml")], "evaluation_interval": "1m", "tests": tests}
    file.write_text(json.dumps(document), encoding="utf-8")
    promtool("test", "rules", str(file))


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
