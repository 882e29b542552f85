"""How sessions lie in Postgres, and the statements on them.

    <prefix>sessions   one row a session: what it has one of
    <prefix>commits    one row a turn: the run, and the messages that it added
    <prefix>records    one row a commit that has journal records of a run that has not ended
    <prefix>schema     one row a version of these tables: migrations that were applied

A commit updates the one row and inserts the other, in one statement, so it happens at once or not at all and
writes what the turn added. `generation` is a UUID made when the session is created, so that no writer from
before a delete, a crash or a fail-over takes a successor for the session that it knew. Rows of commits go
with their session's row, be it deleted by the store or by hand.

JSON is kept as `json`, which a person can read and query, and which keeps the text as it came: `jsonb`
reorders keys, rewrites numbers and refuses U+0000, and what a provider signed must come back verbatim.
(Within JSON, U+0000 is written as an escape.) Session ids are the UTF-8 in a `bytea`: it takes U+0000 as
well, and sorts by code point whatever the collation of the database; `encode(id, 'escape')` shows it. There
is no index on `committed_at`, so that a commit touches no index of the sessions.

All statements cast from and to `text` where JSON is meant, so it does not matter which codecs for `json` a
pool that was handed in has.
"""

import re
import zlib
from typing import NamedTuple

_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,39}")

_MIGRATIONS = (
    """
    CREATE TABLE {p}sessions (
        id bytea PRIMARY KEY,
        generation uuid NOT NULL UNIQUE,
        version bigint NOT NULL,
        fences bigint NOT NULL DEFAULT 0,
        messages bigint NOT NULL,
        state json NOT NULL,
        committed_at timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 70);

    CREATE TABLE {p}commits (
        generation uuid NOT NULL REFERENCES {p}sessions (generation) ON DELETE CASCADE,
        version bigint NOT NULL,
        run json,
        messages json NOT NULL,
        committed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (generation, version)
    );

    COMMENT ON COLUMN {p}sessions.id IS 'UTF-8 of the session id; encode(id, ''escape'') shows it';
    COMMENT ON COLUMN {p}sessions.generation IS 'one life of the session, from creation to deletion';
    COMMENT ON COLUMN {p}sessions.fences IS 'how often writers of the same version were shut out';
    COMMENT ON COLUMN {p}sessions.messages IS 'how many messages its commits have, together';
    COMMENT ON COLUMN {p}commits.run IS 'its id, and how many messages the session had after it';
    COMMENT ON COLUMN {p}commits.version IS '0: what a session had when it was imported';
    """,
    """
    ALTER TABLE {p}sessions ADD COLUMN continuation json NOT NULL DEFAULT '{}';

    CREATE TABLE {p}records (
        generation uuid NOT NULL REFERENCES {p}sessions (generation) ON DELETE CASCADE,
        version bigint NOT NULL,
        records json NOT NULL,
        PRIMARY KEY (generation, version)
    );

    COMMENT ON COLUMN {p}sessions.continuation IS 'active agent, what is waited for, compaction';
    COMMENT ON TABLE {p}records IS 'journals of runs that have not ended';
    """,
)

_LOAD = """
    SELECT generation, version, fences, messages, state::text AS state,
        continuation::text AS continuation,
        ARRAY(
            SELECT records.records::text FROM {p}records AS records
            WHERE records.generation = sessions.generation ORDER BY records.version
        ) AS records,
        ARRAY(
            SELECT commits.messages::text FROM {p}commits AS commits
            WHERE commits.generation = sessions.generation ORDER BY commits.version
        ) AS turns,
        ARRAY(
            SELECT commits.run::text FROM {p}commits AS commits
            WHERE commits.generation = sessions.generation AND commits.run IS NOT NULL
            ORDER BY commits.version DESC LIMIT $2
        ) AS newest_runs
    FROM {p}sessions AS sessions WHERE id = $1
"""

_CREATE = """
    WITH session AS (
        INSERT INTO {p}sessions (id, generation, version, messages, state, continuation)
        VALUES ($1, $2, $3, $4, $5::text::json, $9::text::json) ON CONFLICT (id) DO NOTHING
        RETURNING generation, version
    ), records AS (
        INSERT INTO {p}records (generation, version, records)
        SELECT generation, version, $10::text::json FROM session WHERE $10::text IS NOT NULL
    )
    INSERT INTO {p}commits (generation, version, run, messages)
    SELECT session.generation, turn.version, turn.run::json, turn.messages::json
    FROM session, unnest($6::bigint[], $7::text[], $8::text[]) AS turn (version, run, messages)
    RETURNING version
"""

# A state that does not change is not sent, and not written again if it is large.
_UPDATE = """
    WITH session AS (
        UPDATE {p}sessions
        SET version = version + 1, messages = $4, committed_at = now(),
            state = coalesce($5::text::json, state), continuation = coalesce($9::text::json, continuation)
        WHERE id = $1 AND generation = $2 AND version = $3 AND fences = $8
        RETURNING generation, version
    )
"""

_INSERT = """
    INSERT INTO {p}commits (generation, version, run, messages)
    SELECT generation, version, $6::text::json, $7::text::json FROM session
    RETURNING version
"""

# Nearly no commit has to do with journal records, so what it does to them is part of another statement.
_JOURNAL = """
    , dropped AS (
        DELETE FROM {p}records AS records USING session
        WHERE $11 AND records.generation = session.generation AND records.version < session.version
    ), records AS (
        INSERT INTO {p}records (generation, version, records)
        SELECT generation, version, $10::text::json FROM session WHERE $10::text IS NOT NULL
    )
"""

_FENCE = """
    UPDATE {p}sessions SET fences = fences + 1, committed_at = now()
    WHERE id = $1 AND generation = $2 AND version = $3 AND fences = $4
    RETURNING fences
"""

_FENCE_NEW = """
    INSERT INTO {p}sessions (id, generation, version, messages, state)
    VALUES ($1, $2, 0, 0, '{}') ON CONFLICT (id) DO NOTHING
    RETURNING fences
"""

_DELETE = """
    DELETE FROM {p}sessions WHERE id = $1 AND ($2::timestamptz IS NULL OR committed_at < $2)
    RETURNING version
"""

_LIST = """
    SELECT id FROM {p}sessions
    WHERE id > $1 AND ($2::timestamptz IS NULL OR committed_at < $2) ORDER BY id LIMIT $3
"""

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS {p}schema (
        version int PRIMARY KEY,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


class Statements(NamedTuple):
    """The SQL of a store.

    `schema` creates the table of versions, `schema_version` reads the newest of them (0: none), and
    `migrations[n]` makes version n + 1 of version n. `lock` is the advisory lock under which to do so.
    """

    load: str
    create: str
    append: str
    append_records: str
    generation: str
    fence: str
    fence_new: str
    delete: str
    list: str
    schema: str
    schema_version: str
    add_version: str
    migrations: tuple[str, ...]
    lock: int


def statements(table_prefix: str) -> Statements:
    """Raises ValueError for a prefix that is not safe to stand in SQL as it is."""
    if not _PREFIX.fullmatch(table_prefix):
        raise ValueError(f"table prefix {table_prefix!r} is not 1 to 40 of a-z, 0-9 and _, no digit first")

    def of(template: str) -> str:
        return template.replace("{p}", table_prefix)

    return Statements(
        load=of(_LOAD),
        create=of(_CREATE),
        append=of(_UPDATE + _INSERT),
        append_records=of(_UPDATE + _JOURNAL + _INSERT),
        generation=of("SELECT generation FROM {p}sessions WHERE id = $1"),
        fence=of(_FENCE),
        fence_new=of(_FENCE_NEW),
        delete=of(_DELETE),
        list=of(_LIST),
        schema=of(_SCHEMA),
        schema_version=of("SELECT coalesce(max(version), 0) AS version FROM {p}schema"),
        add_version=of("INSERT INTO {p}schema (version) VALUES ($1)"),
        migrations=tuple(map(of, _MIGRATIONS)),
        lock=zlib.crc32(of("atto: {p}").encode()),
    )
