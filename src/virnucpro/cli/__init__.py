"""The command line: argv -> frozen settings, exceptions -> exit codes. Imports no torch."""

import os
import shlex
import sys
from io import TextIOWrapper
from typing import NoReturn

import rich_click as click
import rich_click.rich_click as appearance

from virnucpro import __version__
from virnucpro.cli.bench import bench
from virnucpro.cli.bundles import bundles
from virnucpro.cli.calibrate import calibrate
from virnucpro.cli.cite import cite
from virnucpro.cli.config import config_of
from virnucpro.cli.doctor import doctor
from virnucpro.cli.evaluate import evaluate
from virnucpro.cli.merge import merge
from virnucpro.cli.predict import predict
from virnucpro.cli.prescreen import prescreen
from virnucpro.cli.report import report
from virnucpro.cli.signals import INTERRUPTED, stop
from virnucpro.cli.terminal import complain, unbroken, unfailing_stderr
from virnucpro.cli.train import train
from virnucpro.cli.unknown_option import suggesting
from virnucpro.cli.validate import validate
from virnucpro.cli.values import EMPTY
from virnucpro.errors import OutOfMemory, Terminated, VirnucproError

FAILED = 1
if os.environ.get("NO_COLOR"):
    appearance.COLOR_SYSTEM = None  # help and usage would still be in bold
if os.environ.get("COLUMNS") == "0":
    del os.environ["COLUMNS"]  # tables and help would have no width, and so be empty


class _Program(click.RichGroup):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises UsageError; for a file in the place of a command with what reads it."""
        name = args[0]
        if not name:
            raise click.UsageError(f"The command: {EMPTY}", ctx)
        # Path.exists raises where a name is too long to be one.
        if name not in self.commands and os.path.exists(name):  # noqa: PTH110
            raise click.UsageError(
                f"No such command {name!r}; to classify what is in it, give "
                f"`virnucpro predict {shlex.quote(name)} -o run`.",
                ctx,
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.rich_config({"text_paragraph_linebreaks": "\n\n"})
@click.command_panel("Classify", commands=["predict", "merge", "validate", "config"])
@click.command_panel("Results", commands=["report", "cite"])
@click.command_panel("Bundles", commands=["bundles", "evaluate", "calibrate", "prescreen", "train"])
@click.command_panel("This machine", commands=["doctor", "bench"])
@click.version_option(__version__, "-V", "--version", message="virnucpro %(version)s")
def program() -> None:
    """Tell which DNA fragments of a sequencing run are viral.

    Start with `virnucpro predict contigs.fasta -o run`; the embedded bundle needs no download.
    Each command explains itself with --help.
    """


config = config_of(predict)
for command in (
    predict,
    merge,
    validate,
    config,
    report,
    cite,
    bundles,
    evaluate,
    prescreen,
    calibrate,
    train,
    bench,
    doctor,
):
    program.add_command(command)


def main(command: click.Command = program) -> NoReturn:
    """Run the program, or another with its exit codes, and exit."""
    try:
        # A path need not be UTF-8; stderr escapes by itself.
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
            sys.stdout = unbroken(sys.stdout)
        sys.stderr = unfailing_stderr()
        code = _run(command)
    except (KeyboardInterrupt, Terminated) as error:  # between two lines of this module
        code = _stopped(error)
    stop.end()
    sys.exit(code)


def _run(command: click.Command = program) -> int:
    try:
        code = int(command.main(standalone_mode=False) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            error = suggesting(error)
        elif isinstance(error, click.MissingParameter):
            text = error.message or getattr(error.param, "help", None) or ""
            error = click.MissingParameter(text, error.ctx, error.param)
        error.show()
        return error.exit_code
    except (click.Abort, Terminated) as error:
        return _stopped(error)
    except VirnucproError as error:
        complain(str(error))
        return error.exit_code
    except OSError as error:
        if not _stdout_failed():
            raise
        complain(
            f"standard output cannot be written ({error.strerror}); send it to where there is room"
        )
        return FAILED
    except MemoryError:
        complain("out of memory; give the program more")
        return OutOfMemory.exit_code


def _stdout_failed() -> bool:
    """Return True if standard output fails; what it did not take is given up."""
    try:
        click.echo()  # an empty write is taken by a full disk, too
    except OSError:
        # Python would try again at its end, and complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


def _stopped(error: BaseException) -> int:
    complain("stopped before the end")
    return Terminated.exit_code if isinstance(error, Terminated) else INTERRUPTED
