"""``anomaly-ov``: finds the verb's file, runs it, and turns every outcome into one line and an exit code.

0 done, 1 anomaly found (only with --fail-on-anomaly; 3 comes before 1) or 'data check' found problems, 2 usage,
3 some inputs unreadable, 4 weights or extra missing, 5 device or memory, 6 no answer from an endpoint, 70 internal,
130 interrupted.

A verb's file is imported only when its verb is used (or listed by ``--help``), and none imports torch at its top.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from anomaly_ov.cli.console import prepare_streams, print_error
from anomaly_ov.cli.extras import missing_extra, require_extra
from anomaly_ov.cli.verbs import other_verbs, own_verbs, target_of
from anomaly_ov.errors import AnomalyOVError

INTERNAL, INTERRUPTED = 70, 130
UNWRITTEN = (errno.ENOSPC, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What a write fails with where the place that stdout leads to is full or broken."""

REPORT_HINT = "this is a bug: run again with --debug and report the traceback together with 'anomaly-ov doctor'"


class LazyGroup(TyperGroup):
    """A command group whose members are modules, imported when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*own_verbs(), *other_verbs()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        target = target_of(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = typer.main.get_command(getattr(import_module(module), attribute))
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = dict.fromkeys(own_verbs())  # type: ignore[assignment]  # names only, for "did you mean"
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            _drop_stdout()  # the reader (head, less) has what it wanted
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            print_error("interrupted", "")
            raise typer.Exit(INTERRUPTED) from None


def _drop_stdout() -> None:
    """Python's own flush at exit must not complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=LazyGroup,
    name="anomaly-ov",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from anomaly_ov import __version__

        print(f"anomaly-ov {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of any error."),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
) -> None:
    """How anomalous a picture is, where, and why; zero-shot, offline."""
    if debug:
        os.environ["ANOMALY_OV_DEBUG"] = "1"


def run(args: Sequence[str]) -> int:
    """Runs one command line and returns the exit code; prints nothing but that command's output and one-line errors."""
    _silence_libraries()
    prepare_streams()
    try:
        require_extra(args)
        result = typer.main.get_command(app)(args=list(args), prog_name="anomaly-ov", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except AnomalyOVError as error:
        return _failed(error)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's complaint about the arguments
            return _usage(error)
        if isinstance(error, OSError) and error.filename is not None:  # disk full, no permission: the user's to solve
            print_error(f"{error.strerror}: {error.filename}", "check the path, its permissions and the free space")
            return 2
        if isinstance(error, OSError) and error.errno in UNWRITTEN:
            _drop_stdout()
            print_error(f"cannot write the output: {error.strerror}", "free some space there, or write it elsewhere")
            return 2
        missing = missing_extra(error, args)
        if missing is not None:
            return _failed(missing)
        _print_traceback_if_debugging()
        print_error(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", REPORT_HINT)
        return INTERNAL


def _failed(error: AnomalyOVError) -> int:
    _print_traceback_if_debugging()
    print_error(error.message, error.hint)
    return error.exit_code


def _silence_libraries() -> None:
    """Keeps what libraries warn about off stderr, where it says nothing to a user; our own warnings stay.

    Whoever asks for warnings (``python -W``, ``PYTHONWARNINGS``, ``TRANSFORMERS_VERBOSITY``) gets them.
    """
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(PIL|torch|transformers)\b")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "anomaly-ov"
    message = " ".join(error.format_message().split())
    if type(error).__name__ == "NoArgsIsHelpError":  # the help page itself is the message
        print(error.format_message(), file=sys.stderr)
    else:
        print_error(message.rstrip("."), f"see '{path} --help'")
    return int(error.exit_code)


def _print_traceback_if_debugging() -> None:
    if os.environ.get("ANOMALY_OV_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()


def main() -> None:
    """The console script."""
    leave(run(sys.argv[1:]))


def leave(code: int) -> NoReturn:
    """Ends this process with ``code``; one that ``torchrun`` started skips the interpreter's shutdown.

    Threads in which torch's processes talk to each other may ask for the interpreter while it shuts down. That aborts
    the process, about once in forty runs on a busy machine, after all its work is done and saved.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun sets it; WORLD_SIZE may come from anywhere
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
