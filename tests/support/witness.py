"""A witness of transparency logs (c2sp.org/tlog-witness), for tests: it remembers what it has cosigned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from agent_manager.audit.merkle import EMPTY_ROOT, ProofInvalid, verify_consistency
from agent_manager.audit.notes import COSIGNATURE, Checkpoint, CheckpointInvalid, Policy, PrivateKey, PublicKey, decode


class Witness:
    """The state of a witness.

    Attributes:
        seen: the size and root of each log that it has cosigned last.
        published: what was sent by PUT, last.
        is_away: whether it answers every request with 503.
    """

    def __init__(self, *logs: PublicKey) -> None:
        self.logs = logs
        self.key = PrivateKey.create("witness.example", COSIGNATURE)
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.published = ""
        self.is_away = False
        self.url = ""

    def add_checkpoint(self, body: str) -> tuple[int, str]:
        """Return the status and the text for a request."""
        head, _, note = body.partition("\n\n")
        old, *lines = head.split("\n")
        checkpoint = Checkpoint.parse(note)
        try:
            Policy(self.logs).check(checkpoint)
        except CheckpointInvalid:
            return 403, "unknown key"
        size, root = self.seen.get(checkpoint.origin, (0, EMPTY_ROOT))
        if old != f"old {size}":
            return 409, f"{size}\n"
        try:
            verify_consistency(size, root, checkpoint.size, checkpoint.root, [decode(line) for line in lines])
        except ProofInvalid:
            return 422, "not consistent"
        self.seen[checkpoint.origin] = checkpoint.size, checkpoint.root
        return 200, self.key.signature_line(checkpoint.body)

    def policy(self) -> str:
        """The text of a policy that requires it."""
        logs = "".join(f"log {key}\n" for key in self.logs)
        return f"# trusted\n{logs}witness w1 {self.key.public} {self.url}\nquorum w1\n"


@contextmanager
def witness(*logs: PublicKey) -> Iterator[Witness]:
    """Serve a witness of some logs, which also keeps what is sent to ``/checkpoint``."""
    state = Witness(*logs)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(503 if state.is_away else status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> str:
            return self.rfile.read(int(self.headers["Content-Length"])).decode()

        def do_POST(self) -> None:
            self._answer(*state.add_checkpoint(self._body()))

        def do_PUT(self) -> None:
            state.published = self._body()
            self._answer(204, "")

        def do_GET(self) -> None:
            self._answer(200 if state.published else 404, state.published)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
