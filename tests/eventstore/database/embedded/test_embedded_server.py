"""The embedded server runs exactly as long as a process uses it, whichever process is killed, and keeps its data."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from support.environment import TREE
from support.waiting import until

from eventstore.database.embedded import keeper, postmaster
from eventstore.database.embedded.embedded_server import EmbeddedServer, free_space
from eventstore.database.embedded.locks import FileLock, is_free
from eventstore.errors import EmbeddedServerError

pytestmark = pytest.mark.any_server

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")

# A process that uses the server: it prints when it has a handle, and exits at the end of its input.
USER = """
import sys
from pathlib import Path
from eventstore.database.embedded.embedded_server import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1])) as server:
    print(server.pid, server.joined, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    if folder.is_dir() and (folder / "server.lock").exists():
        wait_until_gone(folder)
        shutil.rmtree(EmbeddedServer(folder).socket_dir, ignore_errors=True)


def wait_until_gone(folder: Path) -> None:
    for name in ("server.lock", "keeper.lock"):
        with FileLock(folder / name) as lock:
            lock.exclusive()


def start_user(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TREE), *sys.path])},
    )


def report_of(user: subprocess.Popen[str]) -> tuple[int, bool]:
    assert user.stdout is not None
    pid, joined = user.stdout.readline().split()
    return int(pid), joined == "True"


def write(server: EmbeddedServer) -> None:
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def count(server: EmbeddedServer) -> int:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def keeper_of(folder: Path) -> psutil.Process:
    (found,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        # A child may run the keeper of the source tree while this process runs the installed one.
        if any(word.endswith("/keeper.py") for word in process.info["cmdline"] or [])
        and holds(process, folder / "keeper.lock")
    )
    return found


def holds(process: psutil.Process, path: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return any(
            os.path.samefile(f"/proc/{process.pid}/fd/{fd}", path) for fd in os.listdir(f"/proc/{process.pid}/fd")
        )
    return False


def kill_and_wait(process: psutil.Process) -> None:
    process.kill()
    process.wait(20)


@pytest.mark.slow
def test_a_restart_keeps_the_data(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    with server:
        assert not server.joined
        write(server)
    assert is_free(data_dir / "server.lock")
    with server:
        assert count(server) == 1


@pytest.mark.slow
def test_the_login_owns_its_database_and_is_not_a_superuser(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server, psycopg.connect(server.url()) as connection:
        row = connection.execute(
            "SELECT current_user, current_database(), rolsuper, rolcreaterole, rolname = 'eventstore',"
            " pg_encoding_to_char(encoding), current_setting('TimeZone'), current_setting('fsync'),"
            " current_setting('listen_addresses')"
            " FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE datname = current_database()"
        ).fetchone()
        assert row == ("eventstore", "flowagents", False, True, True, "UTF8", "UTC", "on", "")
        assert server.version.startswith("18.")
        assert server.tcp_url is None


def test_operators_can_connect_as_the_superuser_and_as_later_roles(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        with psycopg.connect(server.superuser_url, autocommit=True) as connection:
            connection.execute("CREATE ROLE auditor LOGIN")
        with psycopg.connect(server.url("auditor", "postgres")) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("auditor",)


@pytest.mark.slow
def test_the_last_handle_stops_the_server(data_dir: Path) -> None:
    first, second = EmbeddedServer(data_dir), EmbeddedServer(data_dir)
    first.acquire()
    first.acquire()
    second.acquire()
    assert second.joined
    assert first.pid == second.pid
    first.release()
    first.release()
    write(second)
    second.release()
    assert is_free(data_dir / "server.lock")
    assert is_free(data_dir / "keeper.lock")


@pytest.mark.slow
def test_handles_released_concurrently_leave_nothing_behind(data_dir: Path) -> None:
    handles = [EmbeddedServer(data_dir) for _ in range(6)]
    for handle in handles:
        handle.acquire()
    threads = [threading.Thread(target=handle.release) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_free(data_dir / "server.lock")
    assert is_free(data_dir / "keeper.lock")


@pytest.mark.slow
def test_processes_that_start_concurrently_share_one_server(data_dir: Path) -> None:
    users = [start_user(data_dir) for _ in range(3)]
    reports = [report_of(user) for user in users]
    assert len({pid for pid, _ in reports}) == 1
    assert sorted(joined for _, joined in reports) == [False, True, True]
    for user in users:
        user.communicate()
    assert is_free(data_dir / "server.lock")


@pytest.mark.slow
def test_the_server_stops_when_its_only_user_is_killed(data_dir: Path) -> None:
    with start_user(data_dir) as user:
        pid, _ = report_of(user)
        user.kill()
    wait_until_gone(data_dir)
    assert not psutil.pid_exists(pid)
    assert "database system is shut down" in (data_dir / "server.log").read_text()
    assert not EmbeddedServer(data_dir).socket_dir.exists()


@pytest.mark.slow
def test_ctrl_c_reaches_the_user_and_not_the_server(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        with start_user(data_dir) as user:
            report_of(user)
            user.send_signal(signal.SIGINT)
        write(server)


@pytest.mark.slow
def test_a_server_whose_keeper_was_killed_is_adopted_and_still_stops(data_dir: Path) -> None:
    with start_user(data_dir) as user:
        pid, _ = report_of(user)
        first_keeper = keeper_of(data_dir)
        kill_and_wait(first_keeper)
        server = EmbeddedServer(data_dir)
        server.acquire()
        assert server.joined
        assert server.pid == pid
        assert keeper_of(data_dir).pid != first_keeper.pid
        user.communicate()
    write(server)
    server.release()
    assert is_free(data_dir / "server.lock")
    assert is_free(data_dir / "keeper.lock")


@pytest.mark.slow
def test_an_adopted_server_stops_when_its_user_is_killed(data_dir: Path) -> None:
    with start_user(data_dir) as first:
        report_of(first)
        kill_and_wait(keeper_of(data_dir))
        with start_user(data_dir) as second:
            report_of(second)
            second.kill()
        first.kill()
    wait_until_gone(data_dir)
    assert not EmbeddedServer(data_dir).socket_dir.exists()


@pytest.mark.slow
def test_the_last_handle_stops_a_server_without_a_keeper(data_dir: Path) -> None:
    with EmbeddedServer(data_dir):
        kill_and_wait(keeper_of(data_dir))
    assert is_free(data_dir / "server.lock")


@pytest.mark.slow
def test_a_terminated_keeper_stops_the_server_first(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        keeper_of(data_dir).terminate()
        wait_until_gone(data_dir)
        server.ensure_running()
        write(server)


def test_a_killed_postmaster_is_restarted_with_its_data(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        write(server)
        before = server.pid
        assert before is not None
        server.ensure_running()
        assert server.pid == before
        os.kill(before, signal.SIGKILL)
        server.ensure_running()
        assert server.pid != before
        assert count(server) == 1
    assert is_free(data_dir / "keeper.lock")


@pytest.mark.slow
def test_a_busy_backend_of_a_killed_postmaster_does_not_prevent_a_start(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmaster, "SECONDS_FOR_ORPHANS", 0.2)
    with EmbeddedServer(data_dir) as server:
        write(server)
        assert server.pid is not None
        with psycopg.connect(server.url()) as busy:
            # Stopped, a backend notices its postmaster's death as little as one in a long computation.
            backend = psutil.Process(busy.info.backend_pid)
            backend.suspend()
            os.kill(server.pid, signal.SIGKILL)
            thread = threading.Timer(0.5, backend.resume)
            thread.start()
            server.ensure_running()
            thread.join()
        assert count(server) == 1


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.slow
def test_a_stale_pid_file_with_a_reused_pid_does_not_prevent_a_start(data_dir: Path, complete: bool) -> None:
    with EmbeddedServer(data_dir) as server:
        write(server)
        pid_file = data_dir / "pgdata" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        owner = pid_file.stat()
    with subprocess.Popen(["sleep", "1000"], user=owner.st_uid if os.geteuid() == 0 else None) as other:
        lines[0] = str(other.pid)
        pid_file.write_text("\n".join(lines if complete else lines[:5]) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        lock_file = server.socket_dir / ".s.PGSQL.5432.lock"
        lock_file.parent.mkdir(mode=0o700)
        os.chown(lock_file.parent, owner.st_uid, owner.st_gid)
        lock_file.write_text("\n".join(lines[:5]) + "\n")
        os.chown(lock_file, owner.st_uid, owner.st_gid)
        with server:
            assert not server.joined
            assert count(server) == 1
        assert other.poll() is None
        other.kill()


@pytest.mark.slow
def test_a_killed_postmaster_that_has_released_the_lock_is_not_foreign(data_dir: Path, tmp_path: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        write(server)
        lines = (data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()
    # What the kernel shows for some moments: the process, where it works, and no lock.
    program = Path(shutil.copy(shutil.which("sleep") or "", tmp_path / "postgres"))
    with subprocess.Popen([program, "0.3"], cwd=data_dir / "pgdata") as killed:
        lines[0] = str(killed.pid)
        (data_dir / "pgdata" / "postmaster.pid").write_text("\n".join(lines) + "\n")
        with server:
            assert killed.poll() == 0
            assert not server.joined
            assert count(server) == 1


@pytest.mark.slow
def test_the_socket_folder_is_private_and_recreated_at_each_start(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    for _ in range(2):
        with server:
            assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert not server.socket_dir.exists()


@pytest.mark.slow
def test_a_removed_socket_folder_is_reported(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        shutil.rmtree(server.socket_dir)
        with pytest.raises(EmbeddedServerError, match="was removed while the server was running"):
            server.ensure_running()


def test_a_socket_folder_that_others_can_write_to_is_refused(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    server.socket_dir.mkdir()
    server.socket_dir.chmod(0o777)
    with pytest.raises(EmbeddedServerError, match="alone: remove it"):
        server.acquire()


@pytest.mark.slow
def test_tcp_needs_the_password(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with EmbeddedServer(data_dir, pg_port=port) as server, EmbeddedServer(data_dir) as joined:
        assert server.tcp_url == joined.tcp_url
        assert server.tcp_url is not None
        assert stat.S_IMODE((data_dir / "password").stat().st_mode) == 0o600
        with psycopg.connect(server.tcp_url) as connection:
            assert connection.execute("SELECT inet_server_port()").fetchone() == (port,)
        for url in (
            f"postgresql://eventstore@127.0.0.1:{port}/flowagents",
            server.tcp_url.replace("eventstore", "postgres"),
        ):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(url)
        # The socket's URL does not depend on the port.
        assert server.url().endswith("&port=5432")
        write(joined)


@pytest.mark.slow
def test_a_port_in_use_is_reported_and_nothing_is_left_behind(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedServer(data_dir, pg_port=taken.getsockname()[1])
        with pytest.raises(EmbeddedServerError, match="TCP port is in use"):
            server.acquire()
    assert is_free(data_dir / "server.lock")
    assert is_free(data_dir / "keeper.lock")
    assert is_free(data_dir / "users.lock")
    with server:
        assert server.tcp_url is not None


@pytest.mark.slow
def test_a_failed_start_reports_its_reason(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    with server:
        pass
    with (data_dir / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.write("shared_buffers = 'much'\n")
    with pytest.raises(EmbeddedServerError, match="configuration file"):
        server.acquire()
    assert is_free(data_dir / "keeper.lock")


def test_a_folder_with_other_contents_is_refused(data_dir: Path) -> None:
    (data_dir / "pgdata").mkdir(parents=True)
    (data_dir / "pgdata" / "holiday.jpg").touch()
    with pytest.raises(EmbeddedServerError, match="is not a PostgreSQL data directory"):
        EmbeddedServer(data_dir).acquire()
    assert [path.name for path in (data_dir / "pgdata").iterdir()] == ["holiday.jpg"]


def test_a_foreign_cluster_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedServerError, match="is itself a PostgreSQL cluster"):
        EmbeddedServer(data_dir).acquire()


@pytest.mark.slow
def test_data_of_another_major_version_is_refused(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    with server:
        pass
    (data_dir / "pgdata" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedServerError, match="made by PostgreSQL 14"):
        server.acquire()


def test_a_data_dir_that_is_a_file_is_refused(data_dir: Path) -> None:
    data_dir.touch()
    with pytest.raises(EmbeddedServerError, match="choose another EVENTSTORE_DATA_DIR"):
        EmbeddedServer(data_dir).acquire()


@pytest.mark.slow
def test_a_killed_initdb_leaves_no_partial_cluster(data_dir: Path) -> None:
    partial = data_dir / "pgdata.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    with EmbeddedServer(data_dir) as server:
        write(server)
    assert not partial.exists()


def test_missing_programs_are_reported(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="no program postgres"):
        EmbeddedServer(data_dir, bin_dir=tmp_path).acquire()


@pytest.mark.slow
def test_the_environment_of_the_caller_has_no_effect(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"PGHOST": "nowhere.invalid", "PGPORT": "1", "PGDATA": "/nowhere", "PGUSER": "x", "PGOPTIONS": "-c x=y"}
    for name, value in {**variables, "LC_ALL": "xx_XX", "TZ": "Asia/Tokyo"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedServer(data_dir) as server:
        monkeypatch.delenv("PGOPTIONS")
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)


@pytest.mark.skipif(not DEBIAN_15.is_dir(), reason="no PostgreSQL 15 on this machine")
@pytest.mark.slow
def test_another_installation_can_be_used(data_dir: Path) -> None:
    with EmbeddedServer(data_dir, bin_dir=DEBIAN_15) as server:
        assert server.version.startswith("15.")
        assert server.bin_dir == DEBIAN_15
        write(server)
        with psycopg.connect(server.superuser_url) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("postgres",)


@pytest.mark.slow
def test_a_forked_child_does_not_hold_the_parents_server(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        reading, writing = os.pipe()
        begun, begins = os.pipe()
        # The child only waits for the pipe to close: it must not run the parent's clean-up.
        child = os.fork()
        if child == 0:
            os.write(begins, b"!")
            os.close(writing)
            os.read(reading, 1)
            os._exit(0 if server.pid is None else 1)
        os.read(begun, 1)
        for end in (reading, begun, begins):
            os.close(end)
    assert is_free(data_dir / "users.lock")
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_ensure_running_requires_an_acquired_handle(data_dir: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="acquire"):
        EmbeddedServer(data_dir).ensure_running()


def test_a_long_log_is_truncated_to_its_last_complete_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(1000)))
    fd = os.open(log, os.O_RDWR | os.O_APPEND)
    keeper.bound_log(fd, 10**6, 100)
    assert log.read_text().startswith("line 0\n")
    keeper.bound_log(fd, 1000, 100)
    os.write(fd, b"line 1000\n")
    os.close(fd)
    lines = log.read_text().splitlines()
    assert lines == [f"line {n}" for n in range(1001 - len(lines), 1001)]
    assert 5 < len(lines) < 20


def test_free_space_is_known_before_the_folder_exists(data_dir: Path) -> None:
    assert free_space(data_dir / "below") > 0


def test_a_handle_acquired_during_recovery_waits(own_server: EmbeddedServer) -> None:
    """A process of the server was killed: it begins anew, refuses connections meanwhile, and is held there."""
    with psycopg.connect(own_server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE much AS SELECT n, repeat('x', 100) AS x FROM generate_series(1, 300000) AS n")
        assert own_server.pid is not None
        recovers = threading.Event()
        threading.Thread(target=hold_recovery, args=(own_server.pid, recovers), daemon=True).start()
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        assert recovers.wait(30)
    with (
        EmbeddedServer(own_server.data_dir, bin_dir=own_server.bin_dir) as other,
        psycopg.connect(other.url()) as again,
    ):
        assert again.execute("SELECT count(*) FROM much").fetchone() == (300000,)


def hold_recovery(postmaster_pid: int, recovers: threading.Event) -> None:
    """Stop the process that recovers as soon as there is one, until some connections were refused."""
    until(lambda: (startup := startup_of(postmaster_pid)) is not None and stop(startup), "the server recovers")
    startup = startup_of(postmaster_pid)
    assert startup is not None
    log = Path(f"/proc/{postmaster_pid}/fd/2").resolve()
    begin = log.stat().st_size
    recovers.set()
    try:
        until(lambda: log.read_bytes()[begin:].count(b"FATAL") >= 6, "connections are refused")
    finally:
        startup.send_signal(signal.SIGCONT)


def startup_of(postmaster_pid: int) -> psutil.Process | None:
    for child in psutil.Process(postmaster_pid).children():
        with contextlib.suppress(psutil.Error):
            if any("startup" in word for word in child.cmdline()):
                return child
    return None


def stop(process: psutil.Process) -> bool:
    process.send_signal(signal.SIGSTOP)
    return True
