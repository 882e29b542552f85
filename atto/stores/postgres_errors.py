"""What Postgres and asyncpg raise, in the words of a store."""

from asyncpg import exceptions as pg

from atto.protocol.errors import (
    AttoError,
    NotStorable,
    PostgresRefused,
    StoreError,
    StoreUnavailable,
    TopologyMissing,
)

FAILURES = (pg.PostgresError, pg.InterfaceError, pg.InternalClientError, OSError, ValueError)
"""All that a call may raise; `OSError` has time-outs in it, and `ValueError` is what becomes of a bad DSN."""


class RolledBack(StoreUnavailable):
    """The server undid the call because of what ran beside it: certainly nothing happened, so try again."""


_UNDONE = (pg.SerializationError, pg.DeadlockDetectedError)

_MISSING = (pg.UndefinedTableError, pg.UndefinedColumnError)

_REFUSED = (
    pg.InvalidAuthorizationSpecificationError,  # wrong password, unknown role, pg_hba.conf
    pg.InvalidCatalogNameError,  # no such database
    pg.InsufficientPrivilegeError,
    pg.InvalidSchemaNameError,
)

# Statements that were prepared on one connection and are looked for on another.
_POOLED = (pg.InvalidSQLStatementNameError, pg.DuplicatePreparedStatementError)

_TOO_MUCH = (pg.DataError, pg.ProgramLimitExceededError)

# Lost, restarting, failing over, overloaded, out of disk: better later.
_PASSING = (
    OSError,
    pg.InterfaceError,
    pg.InternalClientError,
    pg.PostgresConnectionError,
    pg.OperatorInterventionError,
    pg.InsufficientResourcesError,
    pg.PostgresSystemError,
    pg.ObjectNotInPrerequisiteStateError,
    pg.ReadOnlySQLTransactionError,
    pg.UnknownPostgresError,
)


def translated(error: Exception, place: str) -> AttoError:
    """`error`, one of `FAILURES`, in the store's words. `place` says where; neither tells a password.

    What asyncpg says of a DSN that it cannot read may quote it, so it is not repeated.
    """
    text = f"{place}: {_said(error)}"
    match error:
        case pg.ClientConfigurationError():
            return _unreadable(place)
        case pg.InterfaceError() if isinstance(error, ValueError):
            return NotStorable(text)
        case _ if isinstance(error, _UNDONE):
            return RolledBack(text)
        case _ if isinstance(error, _MISSING):
            return TopologyMissing(f"{text}: enter the store with `create_tables`, or call `ensure_schema`")
        case _ if isinstance(error, _REFUSED):
            return PostgresRefused(text)
        case _ if isinstance(error, _POOLED):
            return PostgresRefused(
                f"{text}. Is there a pooler in transaction mode? Then pass `statement_cache_size=0`, "
                "to the store or to the pool that it is given"
            )
        case _ if isinstance(error, _TOO_MUCH):
            return NotStorable(text)
        case _ if isinstance(error, _PASSING):
            return StoreUnavailable(text)
        case ValueError():
            return _unreadable(place)
        case _:
            return StoreError(text)


def _unreadable(place: str) -> PostgresRefused:
    return PostgresRefused(
        f"{place}: the DSN cannot be read. It is postgresql://user:password@host:port/database, "
        "each part percent-encoded"
    )


def _said(error: Exception) -> str:
    """The first line: in the others Postgres may quote the values of rows."""
    name = type(error).__name__
    said = str(error).partition("\n")[0]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, pg.PostgresError):
        return f"{said} ({name}, SQLSTATE {getattr(error, 'sqlstate', None)})"
    return f"{said} ({name})" if said else name
