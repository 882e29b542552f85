"""What becomes of an error: one line, or one JSON object, and an exit code."""

import sys
import traceback

from atto.protocol.errors import AttoError
from atto_workers.cli.exits import Unusable, cause, exit_code
from atto_workers.cli.options import Output
from atto_workers.terminal import say, say_json, shown


def report(error: BaseException, output: Output) -> int:
    """Tells of an error that ended a command, and returns the exit code for it."""
    if output.debug:
        say("".join(traceback.format_exception(error)).rstrip("\n"), file=sys.stderr)
    reason = cause(error)
    if isinstance(reason, (AttoError, OSError, ValueError)):
        tell(output, _code(reason), _message(reason))
    else:
        tell(output, "internal", f"{type(reason).__name__}: {reason} (--debug shows the traceback)")
    return exit_code(reason)


def _message(reason: Exception) -> str:
    """As the system tells it, without its number: `kept: File exists`."""
    if isinstance(reason, OSError) and reason.strerror and reason.filename is not None:
        return f"{reason.filename}: {reason.strerror}"
    return str(reason)


def _code(reason: Exception) -> str:
    if isinstance(reason, Unusable):
        return "usage"
    return reason.code if isinstance(reason, AttoError) else "error"


def tell(output: Output, code: str, message: str) -> None:
    """An error on stderr; `code` is for programs."""
    message = message.encode(errors="backslashreplace").decode()  # it may quote an argument that is no UTF-8
    if output.as_json:
        say_json({"error": {"code": code, "message": message}}, file=sys.stderr)
    else:
        say(shown(f"atto: {' '.join(message.split())}"), file=sys.stderr)
