"""Names of prepared statements that can be mistaken for no other statement's.

A pooler may lend one server session to several clients. If it does not keep prepared statements apart, a client that
asks for the statement ``x`` gets what another client has prepared there under that name. With names such as ``s_1``
that is another query, whose rows look like an answer. So a name here contains a hash of the statement's text and of the
types of its parameters: the worst that can happen is an error. A store refuses such a pooler when it opens
(:mod:`eventstore.database.pooler`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256

from psycopg._preparing import Prepare, PrepareManager
from psycopg._queries import PostgresQuery


def statement_name(text: bytes, types: Sequence[int], label: bytes = b"eventstore") -> bytes:
    """Return the name of a statement: a label for people, and a hash."""
    digest = sha256(struct.pack(f">{len(types)}I", *types) + text)
    return label + b"_" + digest.hexdigest()[:24].encode()


class HashedNames(PrepareManager):
    """The statements that psycopg prepares on a connection, under such names.

    psycopg forgets them by ``DEALLOCATE ALL``, which would also take away those that are not its own; here each is
    closed by its name.
    """

    def get(self, query: PostgresQuery, prepare: bool | None = None) -> tuple[Prepare, bytes]:
        """Return whether to prepare a query, and its name."""
        decision, name = super().get(query, prepare)
        if decision is Prepare.SHOULD:
            name = statement_name(query.query, query.types, b"eventstore_cursor")
        return decision, name

    def clear(self) -> bool:
        """Forget all statements. Return whether there are any to close on the server."""
        names = list(self._names.values())
        self._counts.clear()
        self._names.clear()
        self._to_flush.extend(names)
        return bool(names)
