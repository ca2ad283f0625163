"""The option that may be meant by one that no command has."""

from difflib import get_close_matches

import rich_click as click

# Names that programs of this field give to what is called otherwise here.
MEANT = {
    "--threads": ("-t", "-j", "-p", "-@", "--cpus", "--cpu", "--cores", "--num-threads", "--ncpus"),
    "--out": ("--output", "--outdir", "--out-dir", "--output-directory", "-d"),
    "--mates": ("-2", "--mate", "--paired", "--reads2", "--read2", "--in2"),
    "--bundle": ("-m", "--model", "--db", "--database"),
    "--gpus": ("--gpu", "--device", "--cuda"),
    "--min-length": ("--min-len", "--minlen", "--min-contig-length"),
    "--threshold": ("--cutoff", "--score", "--min-score"),
    "--rerun": ("--overwrite", "--restart"),
}
_INPUTS = ("-i", "-1", "--input", "--in", "--fasta", "--fastq", "--reads", "--contigs", "--in1")


def suggesting(error: click.NoSuchOption) -> click.NoSuchOption:
    """Return an error that suggests what is meant, and else what the command has and shows."""
    command = error.ctx.command if error.ctx else None
    options = [p for p in (command.params if command else ()) if isinstance(p, click.Option)]
    shown = {name for option in options if not option.hidden for name in option.opts}
    meant = [name for name, others in MEANT.items() if error.option_name in others]
    # Not by click's own choice: dashes are alike in all names.
    near = get_close_matches(error.option_name.strip("-"), [name.strip("-") for name in shown])
    possible = [f"--{name}" for name in near if f"--{name}" in shown]
    possible = [name for name in meant if name in shown] or possible
    message = error.message
    takes_inputs = any(isinstance(p, click.Argument) for p in (command.params if command else ()))
    if error.option_name in _INPUTS and takes_inputs:
        message, possible = f"{message} Inputs are named without an option.", []
    if possible:
        message = f"{message} Did you mean {' or '.join(map(repr, possible))}?"
    return click.NoSuchOption(error.option_name, message, ctx=error.ctx)
