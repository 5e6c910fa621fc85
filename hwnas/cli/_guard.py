"""Stands around every verb: gives it a session, and turns what it raises into a message."""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

import hwnas
from hwnas.cli._session import Session
from hwnas.errors import HwnasError

INTERRUPTED = 130
BUG = 1

_Json = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object instead of text.")
]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a verb's function for typer.

    The function's first parameter, `session`, is filled here; the flags ``--json`` and ``--debug``
    are added, so that every verb has them with the same meaning.
    """

    @functools.wraps(command)
    def run(*, use_json: bool, debug: bool, **arguments: Any) -> None:
        session = Session(is_json=use_json)
        try:
            command(session, **arguments)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            _interrupted(session)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader, such as `head`, has gone: nothing is wrong, and nobody is listening.
            sys.stderr.close()
            raise typer.Exit(0) from None
        except HwnasError as error:
            if debug:
                traceback.print_exc()
            _failed(session, error)
            raise typer.Exit(error.exit_code) from None
        except Exception as error:
            _bug(session, error, debug)
            raise typer.Exit(BUG) from None

    hints = get_type_hints(command, include_extras=True)
    own = [
        each.replace(annotation=hints[name])
        for name, each in inspect.signature(command).parameters.items()
        if name != "session"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("use_json", keyword, default=False, annotation=_Json),
        inspect.Parameter("debug", keyword, default=False, annotation=_Debug),
    ]
    # Typer reads the signature, and looks the annotations up once more by name.
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    del run.__wrapped__
    return run


def _failed(session: Session, error: HwnasError) -> None:
    """Say what happened, what was expected and what to type next."""
    session.stop_progress()
    if error.exit_code == INTERRUPTED:
        _interrupted(session, error)
        return
    session.complain(f"{type(error).__name__}: {error.message}", error.hint)
    if session.is_json:
        session.emit(
            {
                "error": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
        )


def _interrupted(session: Session, error: HwnasError | None = None) -> None:
    session.stop_progress()
    resume = session.resume_command
    # The verb knows best which command goes on; the engine knows of searches only.
    hint = resume or (error.hint if error is not None else None)
    session.complain(
        "Interrupted; what is finished is saved." if hint else "Interrupted.", hint, label="Resume"
    )
    if session.is_json:
        session.emit({"error": "Interrupted", "resume": resume, "exit_code": INTERRUPTED})


def _bug(session: Session, error: Exception, debug: bool) -> None:
    session.stop_progress()
    if debug:
        traceback.print_exc()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    session.complain(
        f"Bug: {type(error).__name__}: {error}{where}",
        f"this is a mistake in hwnas {hwnas.__version__}, not yours. Please report it to the "
        "project (CONTRIBUTING.md says how) with the output of the same command and --debug",
    )
    if session.is_json:
        session.emit(
            {"error": "Bug", "message": f"{type(error).__name__}: {error}", "exit_code": BUG}
        )
