"""The sealed log: appends while it is sealed, sealing against appending, verifying it, and proofs from a long one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from agent_manager.audit.notes import KeyFile, Policy, PrivateKey
from agent_manager.audit.proofs import prove
from agent_manager.audit.sealer import Sealer
from agent_manager.audit.verify import verify
from agent_manager.settings import ServerSettings
from eventstore import EventStore, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database.queries import query
from tools.benchmark.measurement import Benchmark, Figure, Target, no_collection
from tools.benchmark.messages import fill

_CALLERS = (16, 64)
_PROOFS = 20


async def audit(bench: Benchmark) -> list[Figure]:
    """Compare appends with and without a sealer that follows, and reading a log with verifying and proving it."""
    with TemporaryDirectory() as folder:
        keys = KeyFile(Path(folder) / "key", (PrivateKey.create("benchmark"),))
        keys.write(is_new=True)
        return [*await _appends(bench, keys), *await _long_log(bench, keys)]


def _sealed(settings: Settings, keys: KeyFile) -> ServerSettings:
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    return ServerSettings(**values | {"audit_key": keys.path, "audit_seconds": 1.0})


async def _appends(bench: Benchmark, keys: KeyFile) -> list[Figure]:
    """Return appends while the log is sealed every second, by a task of the same process, and without."""
    sealed: dict[int, list[float]] = {number: [] for number in _CALLERS}
    alone: dict[int, list[float]] = {number: [] for number in _CALLERS}
    with bench.workspace.migrated("sealing") as settings:
        async with EventStore(_sealed(settings, keys)) as store:
            sides = {number: bench.appends(number, store) for number in _CALLERS}
            for number, side in sides.items():
                await side(f"warm-up/{number}")
            for run in range(bench.scale.runs):
                bench.report(f"appends while the log is sealed, run {run + 1} of {bench.scale.runs}")
                for number, side in sides.items():
                    sealer = Sealer(store)
                    await sealer.seal(at_once=True)
                    sealing = asyncio.create_task(sealer.run())
                    try:
                        sealed[number].append(await bench.mean_of_slices(side, f"{run}/{number}/sealed"))
                    finally:
                        await cancel_and_wait([sealing])
                    alone[number].append(await bench.mean_of_slices(side, f"{run}/{number}/alone"))
    return [
        Figure(
            "audit", f"{number} callers append while the log is sealed / without", "events/s", sealed[number],
            alone[number], Target(0.95),
        )
        for number in _CALLERS
    ]  # fmt: skip


async def _long_log(bench: Benchmark, keys: KeyFile) -> list[Figure]:
    """Return sealing, verifying and proving a long log, each against what it is made of."""
    rows = bench.scale.events
    with bench.workspace.migrated("sealed") as settings:
        async with EventStore(_sealed(settings, keys)) as store:
            began = perf_counter()
            await fill(store, "audit", rows)
            appended = rows / (perf_counter() - began)
            async with await store.connect(role=None) as connection:
                await connection.execute("VACUUM ANALYZE events")
            with no_collection():
                began = perf_counter()
                await Sealer(store).seal(at_once=True)
                sealed = rows / (perf_counter() - began)
            verifying, reading, proving, point = [], [], [], []
            policy = Policy(keys.keys)
            async with await store.connect(role=None) as connection:
                await connection.execute("SET ROLE eventstore_owner")
                for run in range(bench.scale.runs):
                    bench.report(f"verifying the sealed log, run {run + 1} of {bench.scale.runs}")
                    found = await verify(store, policy)
                    if found.faults or found.sealed != rows:
                        raise AssertionError(f"the log is not intact: {found.faults}: the figure is void")
                    verifying.append(rows / found.seconds)
                    began = perf_counter()
                    await connection.execute(query("tools.benchmark", "digests").encode())
                    reading.append(rows / (perf_counter() - began))
                    positions = [1 + rows * each // _PROOFS for each in range(_PROOFS)]
                    began = perf_counter()
                    for position in positions:
                        await prove(store, position)
                    proving.append((perf_counter() - began) / _PROOFS * 1000)
                    began = perf_counter()
                    for position in positions:
                        await store.connections.projector.fetch(query("agent_manager.audit", "named_event"), {
                            "position": position,
                        })  # fmt: skip
                    point.append((perf_counter() - began) / _PROOFS * 1000)
    return [
        Figure("audit", f"sealing {rows:,} events / appending them", "events/s", [sealed], [appended], Target(1)),
        Figure("audit", f"verify of {rows:,} events / their digests by one SELECT", "events/s", verifying, reading),
        Figure("audit", f"a proof from a log of {rows:,} events / a look-up by position", "ms", proving, point),
    ]
