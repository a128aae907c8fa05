"""A search reads a bounded number of rows, whatever the words and however many documents there are.

The plans are those of the role that owns the search, on a table with statistics and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from support.plans import Plan, explain_inside
from support.scoped_queries import open_scoped
from support.servers import DatabaseServer

DOCUMENTS = 60_000
SAMPLE = 2000

_FILL = """
INSERT INTO search_documents (tenant_id, conversation_id, version, position, kind, id, role, actor, created_at,
                              language, words)
SELECT t.tenant, ('00000000-0000-0000-0000-' || lpad((p / 50)::text, 12, '0'))::uuid, p % 50 + 1, p,
       'message', gen_random_uuid(), t.role, t.actor, '2026-01-01'::timestamptz + p * interval '1 s', 'en',
       search_stems(CASE WHEN p % 10 < 7 THEN 'common ' ELSE '' END || CASE WHEN p % 50 = 0 THEN 'usual ' ELSE '' END
                    || CASE WHEN p % 20000 = 7 THEN 'rare ' ELSE '' END
                    || CASE WHEN p / 50 %% 4 <> 0 AND p % 20 = 1 THEN 'foreign ' ELSE '' END
                    || 'word' || p || ' filler', 'en')
       || array_to_tsvector(search_labels(t.tenant, t.role, t.actor))
  FROM generate_series(1, %(size)s) AS p,
       LATERAL (SELECT CASE WHEN p %% 1000 = 3 THEN 'small' ELSE 'default' END AS tenant,
                       CASE WHEN p %% 2 = 0 THEN 'user' ELSE 'assistant' END AS role,
                       'user ' || p %% 100 AS actor) AS t
"""
_MEMBERS = """
INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
SELECT 'default', ('00000000-0000-0000-0000-' || lpad(g::text, 12, '0'))::uuid, 'ana', 'own'
  FROM generate_series(0, %(size)s / 50 - 1, 4) AS g
"""
_EVENTS = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, content,
                    digest)
SELECT d.position, d.created_at, d.version, 1, d.conversation_id, d.id, d.tenant_id, 'message.added',
       '{"content": "common usual rare"}', sha256('')
  FROM search_documents d
"""


@pytest.fixture(scope="module", params=[False, True], ids=["no statistics", "analyzed"])
def url(server: DatabaseServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = server.create_database()
    with psycopg.connect(server.superuser_url_of(name), autocommit=True) as connection:
        connection.execute("ALTER TABLE search_documents SET (autovacuum_enabled = false)")
        connection.execute(_FILL.replace("p % ", "p %% "), {"size": DOCUMENTS})
        connection.execute(_MEMBERS, {"size": DOCUMENTS})
        connection.execute("SELECT setval('events_position', %s)", [DOCUMENTS])
        connection.execute("SELECT gin_clean_pending_list('idx_search_documents_words')")
        connection.execute(_EVENTS)
        if request.param:
            connection.execute("ANALYZE search_documents, search_conversations, conversation_members, events")
        # What the search says while it works would be hidden otherwise.
        [[search]] = connection.execute("SELECT 'search_for'::regproc::regprocedure::text").fetchall()
        connection.execute(f"ALTER FUNCTION {search} RESET client_min_messages".encode())
    yield server.superuser_url_of(name)
    server.drop_database(name)


def looks(url: str, query: str, filters: str = "", tenant: str = "default", user: str = "") -> list[Plan]:
    """The plans of the statements that look into the documents for one page; no other reads a table as a whole."""
    values: Mapping[str, Any] = {"query": query, "tenant": tenant}
    with open_scoped(url, tenant, user) as connection:
        text = f"SELECT count(*) FROM search_for(%(query)s, %(tenant)s{filters and ', '}{filters})"
        plans = explain_inside(connection, text, values)
    for plan in plans:
        tables = {node.get("Relation Name") for node in plan.nodes if node["Node Type"] == "Seq Scan"}
        assert not tables & {"search_documents", "events"}, plan.text
    return [plan for plan in plans if plan.statement.startswith("SELECT f.conversation_id, f.version")]


EVERYTHING = {
    "common": ("common", ""),
    "usual": ("usual", ""),
    "rare": ("rare", ""),
    "two": ("common usual", ""),
    "a rare and a common": ("rare common", ""),
    "without": ("common -usual", ""),
    "only without": ("-common", ""),
    "a phrase": ('"common usual"', ""),
    "a prefix": ("comm*", ""),
    "of an actor": ("common", "only_actor => 'user 8'"),
    "of a role": ("common", "only_role => 'user'"),
    "of no role": ("common", "only_role => 'system'"),
    "nothing": ("absent", ""),
}


WAYS = ({"idx_search_documents_created_at"}, {"idx_search_documents_words"})


@pytest.mark.parametrize(("query", "filters"), EVERYTHING.values(), ids=list(EVERYTHING))
@pytest.mark.parametrize("tenant", ["default", "small", "nobody"])
@pytest.mark.parametrize("by", ["relevance", "time"])
def test_few_documents_are_read_by_time_or_by_the_index_of_words(
    url: str, query: str, filters: str, tenant: str, by: str
) -> None:
    plans = looks(url, query, f"by => '{by}'{filters and ', '}{filters}", tenant)
    assert plans
    for plan in plans:
        assert plan.indexes - {"search_conversations_pkey"} in WAYS, plan.text
        assert "Seq Scan" not in plan.kinds, plan.text
    assert sum(map(_read, plans)) <= SAMPLE + 20_000


@pytest.mark.parametrize(("query", "most"), [("common", SAMPLE), ("rare", SAMPLE + 3), ("absent", 2 * SAMPLE)])
def test_frequent_words_are_found_early_and_rare_words_read_no_other_document(url: str, query: str, most: int) -> None:
    assert sum(map(_read, looks(url, query))) <= most


@pytest.mark.parametrize("query", ["common", "rare", "absent"])
@pytest.mark.parametrize("by", ["relevance", "time"])
def test_a_range_of_time_is_read_by_its_index(url: str, query: str, by: str) -> None:
    [plan, *correcting] = looks(url, query, f"by => '{by}', since => '2026-01-01 01:00Z', until => '2026-01-01 02:00Z'")
    assert plan.indexes - {"search_conversations_pkey"} == {"idx_search_documents_created_at"}
    assert _read(plan) <= 3600
    assert bool(correcting) == (query != "common")  # which looks whether the word is anywhere


@pytest.mark.parametrize("query", ["absent", " ".join(["antidisestablishmentary"] * 40), "rar comon usul absent"])
@pytest.mark.parametrize("tenant", ["default", "small"])
def test_corrections_read_the_latest_documents_and_those_that_the_index_finds(
    url: str, query: str, tenant: str
) -> None:
    with open_scoped(url, tenant) as connection:
        text = """SELECT * FROM search_corrections(%(query)s, search_languages(%(tenant)s), %(tenant)s, NULL, NULL,
                                                   NULL, NULL, '-infinity', 'infinity')"""
        plans = explain_inside(connection, text, {"query": query, "tenant": tenant})
    plans = [plan for plan in plans if "search_documents" in plan.text]
    [latest, *others] = [plan for plan in plans if plan.statement.startswith("SELECT array_agg(ROW(")]
    assert latest.indexes - {"search_conversations_pkey"} == {"idx_search_documents_created_at"}
    for plan in others:
        assert plan.indexes - {"search_conversations_pkey"} == {"idx_search_documents_words"}, plan.text
    assert sum(map(_read, plans)) <= 2 * SAMPLE


@pytest.mark.parametrize("query", ["common", "rare", "absent"])
def test_a_search_in_a_conversation_reads_only_its_documents(url: str, query: str) -> None:
    plans = looks(url, query, "only_conversation => '00000000-0000-0000-0000-000000000007'")
    plan = plans[0]
    assert "Seq Scan" not in plan.kinds
    assert "search_documents_pkey" in plan.indexes or "idx_search_documents_words" in plan.indexes, plan.text
    assert _read(plan) <= 50


OWN_DOCUMENTS = DOCUMENTS // 4


def test_a_search_of_a_user_reads_the_same_whether_or_not_a_word_occurs_in_foreign_conversations(url: str) -> None:
    looks(url, "foreign", user="ana")  # so that what is cached later is cached
    foreign, absent = (looks(url, query, user="ana") for query in ("foreign", "missing"))
    assert foreign[0].statement == absent[0].statement
    assert [plan.buffers for plan in foreign] == [plan.buffers for plan in absent]
    assert [_counts(plan) for plan in foreign] == [_counts(plan) for plan in absent]


@pytest.mark.parametrize("query", ["common", "usual", "rare", "foreign", "absent"])
@pytest.mark.parametrize("by", ["relevance", "time"])
def test_of_a_user_with_many_conversations_no_foreign_document_is_compared_with_the_query(
    url: str, query: str, by: str
) -> None:
    plans = looks(url, query, f"by => '{by}'", user="ana")
    for plan in plans:
        assert "idx_search_documents_words" not in plan.indexes, plan.text
        [compared] = [node for node in plan.nodes if "ts_match_vq" in node.get("Filter", "")]
        assert compared["Actual Rows"] + compared.get("Rows Removed by Filter", 0) <= OWN_DOCUMENTS, plan.text
    assert sum(map(_read, plans)) <= 3 * SAMPLE + OWN_DOCUMENTS


def test_a_foreign_conversation_is_not_read_for_a_user(url: str) -> None:
    own, foreign = (
        looks(url, "common", f"only_conversation => '00000000-0000-0000-0000-{number:012}'", user="ana")[0]
        for number in (8, 9)
    )
    assert _read(own) == 50
    assert _read(foreign) == 0


def _counts(plan: Plan) -> list[tuple[str, float, float]]:
    return [(node["Node Type"], node["Actual Rows"], node["Actual Loops"]) for node in plan.nodes]


def _read(plan: Plan) -> int:
    """Rows of the documents that were fetched."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in plan.nodes
        if node["Node Type"] in ("Bitmap Heap Scan", "Index Scan", "Index Scan Backward")
        and node.get("Relation Name", "search_documents") == "search_documents"
    )
