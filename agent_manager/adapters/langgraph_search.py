"""Semantic search in LangGraph's store: embeddings of items, compared exactly.

An embedding is stored in the event of its item, so that the table of items is made again without the model. There is no
index for similarity, as PostgreSQL has none of its own: a search compares the query with the embeddings of all items
that its namespace and filter match, up to a limit.
"""

from __future__ import annotations

import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import mul
from typing import Any, TypeAlias, cast

from langgraph.store.base import (
    IndexConfig,
    Op,
    PutOp,
    SearchOp,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)

from eventstore.errors import InputError

Vectors: TypeAlias = Mapping[tuple[bool, str], Sequence[float]]
"""Embeddings by their texts, and whether these are queries: some models embed queries in another way."""

Score: TypeAlias = Callable[[Sequence[float]], float]
"""The similarity of an embedding to that of a query; the highest is the most similar."""

MAX_COMPARED = 10_000
"""Items that a search compares, which takes about a second for embeddings of 1,536 numbers."""


class TooManyVectors(InputError):
    """A search would compare more than :data:`MAX_COMPARED` embeddings."""

    def __init__(self, namespace: Sequence[str]) -> None:
        super().__init__(
            f"namespace {tuple(namespace)!r}: more than {MAX_COMPARED:,} items match, and a search by similarity "
            "compares all of them: give a longer namespace, or a filter"
        )


class Index:
    """LangGraph's configuration of semantic search.

    Args:
        config: the dimensions ``dims`` of an embedding, the model or function ``embed``, the ``fields`` with the texts
            of an item, and as in LangGraph's PostgresStore the ``distance_type`` (``cosine``, ``l2`` or
            ``inner_product``). Its ``ann_index_config`` has no effect: searches are exact.

    Raises:
        InputError: a member is missing or not valid.
    """

    def __init__(self, config: IndexConfig) -> None:
        members = cast("dict[str, Any]", config)
        for name in ("dims", "embed"):
            if not members.get(name):
                raise InputError(f"index: {name} is missing: give the dimensions dims of an embedding, and embed")
        self._dims: int = members["dims"]
        self._embeddings = ensure_embeddings(members["embed"])
        fields = members.get("fields") or ["$"]
        if not isinstance(fields, list):
            raise InputError(f"index: fields is a {type(fields).__name__}: give a list of paths, such as ['text']")
        self._fields = list(fields)
        distance = members.get("distance_type") or "cosine"
        if distance not in _SCORES:
            raise InputError(f"index: distance_type {distance!r} is not known: give one of {', '.join(_SCORES)}")
        self._score = _SCORES[distance]

    def embedded(self, ops: Iterable[Op]) -> Vectors:
        """Return the embeddings that operations need."""
        texts, queries = self._wanted(ops)
        vectors = self._embeddings.embed_documents(texts) if texts else []
        return self._vectors(texts, vectors, queries, list(map(self._embeddings.embed_query, queries)))

    async def aembedded(self, ops: Iterable[Op]) -> Vectors:
        """See :meth:`embedded`."""
        texts, queries = self._wanted(ops)
        vectors = await self._embeddings.aembed_documents(texts) if texts else []
        return self._vectors(texts, vectors, queries, [await self._embeddings.aembed_query(each) for each in queries])

    def stored(self, op: PutOp, vectors: Vectors) -> dict[str, str]:
        """Return the embeddings of an item as they are stored, by the paths of their texts."""
        return {path: _packed(vectors[False, text]) for path, text in self._texts(op).items()}

    def scores(
        self, query: Sequence[float], rows: Iterable[tuple[str, str, dict[str, str]]]
    ) -> list[tuple[tuple[str, str], float]]:
        """Return the places of items with the score of their most similar text, the most similar first.

        Args:
            rows: the path and the key of each item, and its stored embeddings.
        """
        found: list[tuple[tuple[str, str], float]] = []
        score = self._score(query)
        for path, key, vectors in rows:
            scores = [
                score(vector)
                for vector in map(_unpacked, vectors.values())
                if len(vector) == self._dims  # an earlier configuration had other dimensions
            ]
            if scores:
                found.append(((path, key), max(scores)))
        return sorted(found, key=lambda each: (-each[1], each[0]))

    def _wanted(self, ops: Iterable[Op]) -> tuple[list[str], list[str]]:
        """Return the texts of items and the queries to embed, each once."""
        texts: dict[str, None] = {}
        queries: dict[str, None] = {}
        for op in ops:
            if isinstance(op, PutOp):
                texts |= dict.fromkeys(self._texts(op).values())
            elif isinstance(op, SearchOp) and op.query:
                queries[op.query] = None
        return list(texts), list(queries)

    def _texts(self, op: PutOp) -> dict[str, str]:
        """Return the texts of an item to embed, by their paths."""
        if op.value is None or op.index is False:
            return {}
        found: dict[str, str] = {}
        for path in self._fields if op.index is None else op.index:
            texts = get_text_at_path(op.value, path if path == "$" else tokenize_path(path))
            found |= {path if len(texts) == 1 else f"{path}.{number}": text for number, text in enumerate(texts)}
        return found

    def _vectors(
        self, texts: list[str], vectors: list[list[float]], queries: list[str], of_queries: list[list[float]]
    ) -> Vectors:
        for each in (*vectors, *of_queries):
            if len(each) != self._dims:
                raise InputError(
                    f"index: embed returned {len(each)} numbers, and dims is {self._dims}: correct one of them"
                )
        return {(False, text): vector for text, vector in zip(texts, vectors, strict=True)} | {
            (True, text): vector for text, vector in zip(queries, of_queries, strict=True)
        }


def _packed(vector: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    data = b64decode(text)
    return struct.unpack(f"<{len(data) // 4}f", data)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return float(sum(map(mul, a, b)))


def _cosine(query: Sequence[float]) -> Score:
    length = math.hypot(*query)
    return lambda vector: _dot(query, vector) / (length * math.hypot(*vector) or 1.0)


def _l2(query: Sequence[float]) -> Score:
    return lambda vector: -math.dist(query, vector)


def _inner_product(query: Sequence[float]) -> Score:
    return lambda vector: _dot(query, vector)


_SCORES = {"cosine": _cosine, "l2": _l2, "inner_product": _inner_product}
"""The similarity of embeddings to that of a query, by LangGraph's name of their distance."""
