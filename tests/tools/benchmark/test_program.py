"""The program ``python -m tools.benchmark``: a trial of everything that needs no peer, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.commandline import Program
from support.environment import clear_settings
from support.processes import Commands
from support.servers import DatabaseServer
from support.waiting import until

from eventstore import Settings
from tools.benchmark import COMPARISONS, __main__
from tools.benchmark.__main__ import main
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


@dataclass
class Trial:
    """What a trial said, and what was on the server before and after."""

    said: dict[str, Any]
    warned: str
    before: set[str]
    after: set[str]

    def figures(self, comparison: str) -> list[dict[str, Any]]:
        """Those of one comparison."""
        return [figure for figure in self.said["figures"] if figure["comparison"] == comparison]


@pytest.fixture(scope="module")
def trial(server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Run ``python -m tools.benchmark --quick`` once for all tests."""
    name = server.create_database()
    url = server.url(name)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        clear_settings(patch)
        patch.chdir(tmp_path_factory.mktemp("bench"))
        patch.setenv("DATABASE_URL", url)
        patch.setattr(sys, "argv", ["benchmark", "--quick", "--json"])
        before = there(url)
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit, match=r"^0$"):
            main()
        yield Trial(json.loads(out.getvalue()), err.getvalue(), before, there(url))
    server.drop_database(name)


@pytest.mark.parametrize("name", [name for name in COMPARISONS if name not in OF_PEERS + OF_SUPERUSERS])
def test_a_comparison_gives_ratios_of_what_it_measured(trial: Trial, name: str) -> None:
    assert trial.figures(name), trial.said["skipped"]
    for figure in trial.figures(name):
        assert len(figure["ours"]) == len(figure["other"]) == 1
        assert figure["ratio"] == figure["ours"][0] / figure["other"][0]
        assert math.isfinite(figure["ratio"])
        assert figure["lowest"] <= figure["ratio"] <= figure["highest"]
        # An event may be heard of before the call that appended it has returned.
        assert figure["ours"][0] > 0 or name == "notification"


def test_the_figures_that_count_have_their_targets(trial: Trial) -> None:
    targets = {(figure["comparison"], figure["target"]) for figure in trial.said["figures"] if figure["target"]}
    assert targets >= {
        ("one-caller", "≥ 0.85"), ("many-callers", "≥ 3"), ("bulk", "≥ 0.5"), ("attached", "≥ 0.9"), ("gate", "≥ 0.9"),
        ("notification", "≤ 1.5"), ("reading", "≤ 1.5"), ("tables", "≤ 1.5"), ("size", "≤ 1.25"), ("growing", "≤ 1.1"),
    }  # fmt: skip


@pytest.mark.skipif(find_spec("eventsourcing") is not None, reason="the peers are installed")
def test_peers_that_are_missing_are_named_with_what_to_install(trial: Trial) -> None:
    assert not [figure for figure in trial.figures("peers") if "eventsourcing" in figure["what"]]
    assert any("eventsourcing" in words and "[bench]" in words for words in trial.said["skipped"])
    assert "skipped eventsourcing" in trial.warned


def test_what_only_a_superuser_can_measure_is_skipped_for_others(trial: Trial) -> None:
    assert not trial.figures("slow-flush")
    assert any("only a superuser may set commit_delay" in words for words in trial.said["skipped"])


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


def test_the_report_names_server_and_versions(trial: Trial) -> None:
    assert trial.said["quick"] is True
    assert set(trial.said["server"]) >= {"server_version", "fsync", "synchronous_commit", "wal_sync_method"}
    assert set(trial.said["versions"]) >= {"python", "psycopg", "libpq", "eventsourcing", "google-adk"}


def test_a_trial_leaves_no_database_or_schema(trial: Trial) -> None:
    assert trial.after == trial.before


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
    ("arguments", "said"),
    [
        (("--only", "nothing"), "choose among one-caller, many-callers"),
        (("--callers", "1,many"), "--callers 1,many"),
        (("--callers", "0"), "--callers 0"),
        (("--callers", ""), "--callers"),
        (("--plot", "picture.gif"), ".svg or .png"),
    ],
)
def test_invalid_arguments_of_the_benchmark_are_refused_at_once(
    program: Program, arguments: tuple[str, ...], said: str
) -> None:
    result = program("--quick", *arguments)
    assert result.code == 1
    assert result.err.startswith("python -m tools.benchmark: error: ")
    assert said in result.err


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
