"""The program ``python -m tools.benchmark``: a trial of everything that needs no peer, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.commandline import Program
from support.processes import Commands
from support.servers import DatabaseServer
from support.waiting import until

from eventstore import Settings
from tools.benchmark import COMPARISONS, __main__
from tools.benchmark.measurement import TRIAL, Benchmark, Figure
from tools.benchmark.workspace import prepared_workspace

PROGRAM = "tools.benchmark"
OF_PEERS = (
    "peers", "a2a-sdk", "log-reading", "sessions", "adk-sessions", "openai-sessions", "graph-steps", "projecting",
)  # fmt: skip
OF_SUPERUSERS = ("slow-flush",)
_THERE = "SELECT n.nspname FROM pg_namespace n WHERE n.nspname ~ 'bench' UNION ALL SELECT d.datname FROM pg_database d"


def there(url: str) -> set[str]:
    """The databases of the server, and the benchmark's schemas."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute(_THERE)}


def test_a_trial_measures_everything_and_leaves_no_database_or_schema(program: Program, database_url: str) -> None:
    """One test, because the trial takes long and several processes may share the tests."""
    before = there(database_url)
    result = program("--quick", "--json")
    assert result.code == 0, result.err
    assert there(database_url) == before
    report = json.loads(result.out)
    assert report["quick"] is True
    assert set(report["server"]) >= {"server_version", "fsync", "synchronous_commit", "wal_sync_method"}
    assert set(report["versions"]) >= {"python", "psycopg", "libpq", "eventsourcing", "google-adk"}
    for figure in report["figures"]:
        assert len(figure["ours"]) == len(figure["other"]) == 1, figure
        assert figure["ratio"] == figure["ours"][0] / figure["other"][0]
        assert math.isfinite(figure["ratio"]), figure
        assert figure["lowest"] <= figure["ratio"] <= figure["highest"]
        # A consumer may receive an event before the call that appended it has returned.
        assert figure["ours"][0] > 0 or figure["comparison"] == "notification", figure
    measured = {figure["comparison"] for figure in report["figures"]}
    assert measured >= set(COMPARISONS).difference(OF_PEERS, OF_SUPERUSERS), report["skipped"]
    targets = {(figure["comparison"], figure["target"]) for figure in report["figures"] if figure["target"]}
    assert targets >= {
        ("one-caller", "≥ 0.85"), ("many-callers", "≥ 3"), ("bulk", "≥ 0.5"), ("attached", "≥ 0.9"), ("gate", "≥ 0.9"),
        ("notification", "≤ 1.5"), ("reading", "≤ 1.5"), ("tables", "≤ 1.5"), ("size", "≤ 1.25"), ("growing", "≤ 1.1"),
    }  # fmt: skip
    assert measured.isdisjoint(OF_SUPERUSERS)
    assert any("only a superuser may set commit_delay" in reason for reason in report["skipped"])
    if find_spec("eventsourcing") is None:  # what is missing is named with what to install
        assert any("eventsourcing" in reason and "[bench]" in reason for reason in report["skipped"])
        assert "skipped eventsourcing" in result.err
        assert not [figure for figure in report["figures"] if "eventsourcing" in figure["what"]]


async def test_a_slow_flush_is_simulated_in_new_sessions_and_ended_afterwards(
    clean_environment: None, superuser_url: str
) -> None:
    with prepared_workspace(Settings(database_url=superuser_url, allow_superuser=True)) as workspace:
        async with Benchmark(workspace, replace(TRIAL, callers=(2,))) as bench:
            delays: list[Any] = []

            async def look() -> None:
                async with bench.connection() as connection:
                    delays.append(await (await connection.execute("SHOW commit_delay")).fetchone())

            bench.report = lambda _: delays.append(asyncio.create_task(look()))
            (figure,) = await COMPARISONS["slow-flush"](bench)
            assert figure.remark == "bare over 2 connections"
            await delays.pop(0)
            await look()
            assert delays == [("1000",), ("0",)]


def test_a_server_that_is_not_durable_is_refused_and_only_tried_with_a_warning(
    program: Program, server: DatabaseServer
) -> None:
    with psycopg.connect(server.url("postgres")) as connection:
        if connection.execute("SHOW fsync").fetchone() == ("on",):
            pytest.skip("the server of these tests is durable")
    refused = program("--only", "reading")
    assert refused.code == 1
    assert "fsync off" in refused.err
    tried = program("--quick", "--only", "reading")
    assert tried.code == 0
    assert "WARNING" in tried.err
    assert tried.lines[0].split()[:3] == ["comparison", "what", "ratio"]
    assert len(tried.lines) == 3


def test_a_comparison_that_fails_takes_no_other_with_it(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(bench: Benchmark) -> list[Figure]:
        await bench.store.append("no uuid", [])
        return []

    monkeypatch.setattr(__main__, "COMPARISONS", {"broken": fail, "reading": COMPARISONS["reading"]})
    result = program("--quick")
    assert result.code == 1
    assert "failed broken: " in result.err
    assert len([line for line in result.lines if line.startswith("reading")]) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--only", "nothing"), "choose among one-caller, many-callers"),
        (("--callers", "1,many"), "--callers 1,many"),
        (("--callers", "0"), "--callers 0"),
        (("--callers", ""), "--callers"),
        (("--plot", "picture.gif"), ".svg or .png"),
    ],
)
def test_invalid_arguments_of_the_benchmark_are_refused_at_once(
    program: Program, arguments: tuple[str, ...], expected: str
) -> None:
    result = program("--quick", *arguments)
    assert result.code == 1
    assert result.err.startswith("python -m tools.benchmark: error: ")
    assert expected in result.err


def test_the_plot_is_drawn_or_the_missing_package_is_named(program: Program, tmp_path: Path) -> None:
    target = tmp_path / "curves.svg"
    result = program("--quick", "--only", "reading", "--plot", str(target))
    if find_spec("matplotlib") is None:
        assert result.code == 1
        assert "matplotlib" in result.err
        assert "[bench]" in result.err
    else:
        assert result.code == 0
        assert "<svg" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_trial_leaves_no_database_or_schema(programs: Commands, database_url: str, number: int) -> None:
    before = there(database_url)
    running = programs.start("--quick", DATABASE_URL=database_url)
    until(lambda: "Workspace" in running.err or running.ended, "it has created its workspace")
    assert there(database_url) > before
    assert running.interrupt(number) == 130
    assert there(database_url) == before
    assert "Traceback" not in running.err
