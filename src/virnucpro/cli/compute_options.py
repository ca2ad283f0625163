"""The options of predict that say what computes, in which numbers, and with how much memory."""

from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from virnucpro.cli.values import NAME

Command = TypeVar("Command", bound=Callable[..., Any])
_PARTS: tuple[Callable[[Any], Any], ...] = (
    click.option_panel("Several workers", options=["--workers", "--scheduler", "--part"]),
    click.option_panel("Numerics", options=["--precision", "--attention", "--genetic-code"]),
    click.option_panel(
        "Memory and speed",
        options=[
            "--batch-tokens",
            "--esm-batch-size",
            "--dnabert-batch-size",
            "--dataloader-workers",
            "--pin-memory",
            "--expandable-segments",
            "--cache-clear-interval",
            "--cuda-streams",
        ],
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16", "fp8"]),
        default="auto",
        show_default=True,
        help="auto: on a GPU, fp16 for published encoders (overflows are computed "
        "again in fp32) and bf16 for embedded bundles (capability 8.0); on a "
        "processor, bf16 if it has hardware support and the bundle states its "
        "agreement with fp32; otherwise fp32. fp8 needs a Hopper GPU and "
        "published encoders, and agrees less (docs/performance.md).",
    ),
    click.option(
        "--gpus",
        type=NAME,
        metavar="all|none|N,...",
        help="all, none, or numbers of GPUs such as 0,1. Default: the first, if "
        "there is one. Several GPUs need the extra cluster (docs/install.md).",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Compute in this many processes on the CPU. Needs the extra cluster "
        "(docs/install.md).",
    ),
    click.option(
        "--scheduler",
        type=NAME,
        metavar="ADDRESS|FILE.json",
        help="Compute on the workers of a running Dask scheduler. Anyone who can "
        "reach an open scheduler can run code on its workers: see "
        "docs/scale.md.",
    ),
    click.option(
        "--attention",
        type=click.Choice(["auto", "triton", "flash", "cudnn", "efficient", "math"]),
        default="auto",
        show_default=True,
        help="Attention kernel. triton: our own, with ALiBi and rotary positions; "
        "flash: PyTorch's FlashAttention-2; cudnn: cuDNN's; efficient: the "
        "memory-efficient one; math: softmax written out. A named kernel runs, "
        "or the program says why it cannot; auto chooses by device. The log "
        "names the kernel that ran.",
    ),
    click.option(
        "--genetic-code",
        type=click.Choice(["1", "4", "11", "15", "25", "auto"]),
        default="1",
        show_default=True,
        help="NCBI's number of the genetic code that decides which frames are open, "
        "for bundles of kind frames: 4 and 25 read through TGA, 15 reads "
        "through TAG. auto: for each record, the one of 1, 4 and 15 that makes "
        "its open frames much longer. The published method uses 1.",
    ),
    click.option(
        "--batch-tokens",
        type=click.IntRange(min=1),
        help="Maximum tokens of a batch, including padding. Default: fixed by "
        "encoder and kind of device (4,096 on a processor; on a GPU 16,896 for "
        "ESM-2 and 67,584 for DNABERT-S), halved if memory is short.",
    ),
    click.option(
        "--esm-batch-size",
        type=click.IntRange(min=1),
        help="Maximum tokens of a batch of ESM-2.",
    ),
    click.option(
        "--dnabert-batch-size",
        type=click.IntRange(min=1),
        help="Maximum tokens of a batch of DNABERT-S.",
    ),
    click.option(
        "--dataloader-workers",
        type=click.IntRange(min=0),
        help="Threads that translate and tokenize ahead of the encoders. Default: "
        "with a GPU, one per available processor, at most 8; otherwise 0.",
    ),
    click.option(
        "--pin-memory/--no-pin-memory",
        default=None,
        help="Use page-locked buffers for copies to the GPU: about 10 MB of RAM, "
        "with --save-embeddings 200 MB. Default: on with a GPU and 1 GiB of "
        "free RAM.",
    ),
    click.option(
        "--expandable-segments/--no-expandable-segments",
        default=False,
        show_default=True,
        help="Let the CUDA allocator grow its segments, in addition to "
        "PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF. For runs that end out "
        "of memory while much memory is reserved but not allocated "
        "(fragmentation in the log).",
    ),
    click.option(
        "--cache-clear-interval",
        type=click.IntRange(min=0),
        default=100,
        show_default=True,
        help="Empty the CUDA cache after this many batches, for other programs on "
        "the same GPU; 0: never.",
    ),
    click.option(
        "--cuda-streams/--no-cuda-streams",
        default=None,
        help="Copy to the GPU on a separate stream while it computes; results are "
        "the same. Default: on with a GPU.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="CPU threads. Default: OMP_NUM_THREADS, or the number of available processors.",
    ),
)


def compute_options(command: Command) -> Command:
    """Add the options and their panels."""
    for part in reversed(_PARTS):
        command = part(command)
    return command
