"""The settings in the guide for reads from a standby are those of a primary and a standby that really run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from uuid import uuid4

import pytest
from support.commandline import Eventstore
from support.pages import blocks
from support.replica import replica_of

from eventstore import MessageAdded, Settings, SyncEventStore
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from projections import catch_up

pytestmark = pytest.mark.slow


def test_the_settings_in_the_guide_read_from_the_standby(
    own_server: EmbeddedServer, eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    [settings] = [each.text for each in blocks("docs/guides/operations.md") if "EVENTSTORE_READ_URL" in each.text]
    Migrator(own_server.url(), Settings(database_url=own_server.url())).up()
    with replica_of(own_server) as replica:
        folders = {"first": str(own_server.socket_dir), "second": str(replica.folder)}

        def with_folders(url: re.Match[str]) -> str:
            hosts = [folders[host] for host in re.findall(r"(first|second):5432", url[1])]
            return f"postgresql://eventstore@/flowagents?host={','.join(hosts)}&port=5432,5432&"

        given, number = re.subn(r"postgresql://agents:password@(\S+?)/flowagents\?", with_folders, settings)
        assert number == 2
        Path(".env").write_text(given)
        monkeypatch.delenv("DATABASE_URL")
        monkeypatch.setenv("EVENTSTORE_CONNECT_TIMEOUT", "2")
        with SyncEventStore(Settings()) as store:
            store.append(uuid4(), [MessageAdded(role="user", content="early")])
            store.portal.call(catch_up(store.asynchronous))
            replica.pause()
            store.append(uuid4(), [MessageAdded(role="user", content="late")])
            store.portal.call(catch_up(store.asynchronous))
        assert "late" not in eventstore("messages").out
        shown = eventstore("status")
        assert re.search(r"^reads +a standby, 1 events and [\d.]+ s behind", shown.out, re.MULTILINE), shown.out
        standby = json.loads(eventstore("status", "--json").out)["standby"]
        assert (standby["in_recovery"], standby["lag_events"], standby["error"]) == (True, 1, "")
        assert "password" not in standby["url"]
        replica.resume()
        replica.wait_for_replay()
        assert "late" in eventstore("messages").out
        replica.stop()
        try:
            gone = eventstore("status")
            assert gone.code == 0
            assert re.search(r"^reads +the standby cannot be read: .*EVENTSTORE_READ_URL", gone.out, re.MULTILINE)
            failed = eventstore("messages")
            assert failed.code == 1
            assert "prefer-standby" in failed.err
        finally:
            replica.start()
