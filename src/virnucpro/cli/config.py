"""virnucpro config, and what --config reads: the options of predict as TOML.

A key is an option's name without dashes in front, or `inputs`; options added to predict are keys
by themselves.
"""

import tomllib
from copy import copy
from pathlib import Path
from typing import Any

import rich_click as click

from virnucpro.errors import InputError, meant

HELP = """Print the options of {name} as TOML, with the values that they would have.

Takes whatever {name} takes, classifies nothing, and needs neither input nor run directory. Keep
what it prints: `virnucpro {name} --config FILE` takes it, and what stands on the command line wins
over the file. Paths are taken from where the command is given, as on the command line.

\b
    virnucpro config --threshold 0.6 --tables gz > strict.toml
    virnucpro {name} --config strict.toml reads.fasta -o run
"""


def key_of(parameter: click.Parameter) -> str:
    """The key of an option: its long name."""
    return max(parameter.opts, key=len).lstrip("-")


def settable(command: click.Command) -> dict[str, click.Parameter]:
    """Everything of a command that a file may set, by key."""
    return {key_of(found): found for found in command.params if found.expose_value}


def read_config(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    """Takes the values of a file where the command line gives none.

    Raises UsageError, as for a wrong command line, and InputError for a file that cannot be read.
    """
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check --config", path) from error
    except (ValueError, RecursionError) as error:  # neither TOML nor UTF-8, or too deep
        raise click.UsageError(
            f"{path}: not TOML: {error}; `virnucpro config > FILE.toml` writes a file of "
            "options, and inputs are named without --config."
        ) from error
    known = settable(context.command)
    context.default_map = {}
    for key, value in values.items():
        if key not in known:
            raise click.UsageError(
                f"{path}: unknown option {key!r}{meant(key, known)}; `virnucpro config` writes "
                "a file with all options of this command."
            )
        _check(context, path, key, value, known[key])
        inverted = value if not _takes_away(known[key]) else not value
        context.default_map[str(known[key].name)] = inverted


def _check(
    context: click.Context,
    path: Path,
    key: str,
    value: Any,  # noqa: ANN401
    parameter: click.Parameter,
) -> None:
    """Raises UsageError where an option does not take such a value."""
    several = parameter.multiple or parameter.nargs != 1
    if several != isinstance(value, list):
        raise click.UsageError(f"{path}: {key} must be {'a list' if several else 'one value'}.")
    if _is_switch(parameter) != isinstance(value, bool):
        what = "true or false" if _is_switch(parameter) else "a value, not true or false"
        raise click.UsageError(f"{path}: {key} must be {what}.")
    for one in value if isinstance(value, list) else [value]:
        if isinstance(parameter.type, click.Path) and not isinstance(one, str):
            raise click.UsageError(f"{path}: {key} must be a path in quotes, got {one!r}.")
        if isinstance(parameter.type, type(click.INT)) and isinstance(one, float):
            raise click.UsageError(f"{path}: {key} must be a whole number, got {one!r}.")
    try:
        parameter.type_cast_value(context, value)
    except click.BadParameter as error:
        raise click.UsageError(f"{path}: {key}: {error.message}") from error


def _is_switch(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.is_flag


def _takes_away(parameter: click.Parameter) -> bool:
    """Return whether this is a lone switch as --no-compat-tables: it makes its parameter false."""
    return isinstance(parameter, click.Option) and parameter.is_flag and not parameter.flag_value


def as_toml(command: click.Command, values: dict[str, Any]) -> str:
    """Options as a file for --config: options without a value stand there as comments."""
    import tomli_w

    parts = []
    for key, parameter in settable(command).items():
        value = _plain(values[str(parameter.name)])
        if _takes_away(parameter):
            value = not value
        about = getattr(parameter, "help", None) or "The files to classify."
        line = f"# {key} =\n" if value in (None, []) else tomli_w.dumps({key: value})
        parts.append(f"# {' '.join(about.split())}\n{line}")
    return "\n".join(parts)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def config_of(command: click.RichCommand) -> click.Command:
    """The command that writes such a file for another one, of which it takes every option."""

    def write(**values: Any) -> None:  # noqa: ANN401
        click.echo(as_toml(command, values), nl=False)

    parameters = [copy(parameter) for parameter in command.params]
    for parameter in parameters:
        parameter.required = False
    return click.RichCommand(
        name="config",
        params=parameters,
        callback=write,
        help=HELP.format(name=command.name),
        panels=command.panels,
    )
