"""The networks of the embedded bundles, in two families: a trunk, branches of it, their mean.

The mean of the first family scores every chunk, that of the second those that this is unsure of.
Weights go into a file for each network, with the record of its training in the metadata.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from sides import UNRESOLVED, fitting_side, train_side
from virnucpro.classifiers.codon import CodonConfig, codon_network
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.encoder_fit import FitProgress, FitResult, fit_encoder
from virnucpro.train.encoder_settings import EncoderSettings
from virnucpro.train.fragments import Augmentation
from virnucpro.train.judge import Judge
from virnucpro.train.slices import described, judging_slice, parted
from virnucpro.train.units import calibration_units

TRUNK, MEAN = "plain", "mean"
OTHER, SECOND = "other", "second"
GROUPS = (
    *("rna_virus", "dna_virus", "phage"),
    *("bacteria", "archaea", "fungi", "protozoa", "plant", "invertebrate", "vertebrate", "human"),
    *("organelle", "plasmid", "mobile_element"),
)
NETWORK = CodonConfig(
    channels=(64, 128),
    blocks=(1, 2),
    kernels=(5, 5),
    attention=("frame", "frame"),
    heads=2,
    rotary=16,
    dropout=0.15,
)
PLAIN = EncoderSettings(
    network=NETWORK,
    steps=30_000,
    patience=0,
    augmentation=Augmentation(nonsense=0.02),
    groups=GROUPS,
    unresolved=UNRESOLVED,
    by_level=True,
    slice_fraction=0.03,
    evaluate_every=1000,
)
# They begin with the weights of the trunk, share its slice, and see the units more evenly.
BRANCH = replace(
    PLAIN,
    steps=6500,
    learning_rate=1e-3,
    unit_power=0.25,
    evaluate_every=3250,
    slice_seed=PLAIN.seed,
)
BRANCHES = {f"branch-{seed}": replace(BRANCH, seed=seed) for seed in (1, 2, 3, 4)}
# Another beginning, loss and weights of units, so that it is wrong about other chunks.
OTHER_PLAIN = replace(
    PLAIN, steps=18_000, loss_power=0.5, unit_power=0.25, seed=7, slice_seed=PLAIN.seed
)
OTHER_BRANCH = replace(BRANCH, steps=4500, loss_power=0.5, evaluate_every=2250)
OTHER_BRANCHES = {f"other-{seed}": replace(OTHER_BRANCH, seed=seed) for seed in (11, 12, 13)}
NETWORKS = {TRUNK: PLAIN, **BRANCHES, OTHER: OTHER_PLAIN, **OTHER_BRANCHES}
# The mean of a family -> the network from random weights, and those that are averaged.
FAMILIES = {MEAN: (TRUNK, tuple(BRANCHES)), SECOND: (OTHER, tuple(OTHER_BRANCHES))}
# Of the training record of a network: what it shares with those that are averaged with it.
SHARED = ("contigs_sha256", "parameters", "device", "precision", "fitting", "slice", "data")
SLICE_AREA, SLICE_RECALL = "slice_auroc", "slice_recall_at_1pct_fpr"


def countdown(max_minutes: float | None) -> Callable[[], float | None]:
    """Returns what tells the minutes that are left from now on; None for no limit."""
    end = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    return lambda: None if end == math.inf else max(0.0, end - time.monotonic()) / 60


def teller(name: str) -> Callable[[FitProgress], None]:
    """Returns what prints how the training of a network goes, at each evaluation."""

    def tell(now: FitProgress) -> None:
        if now.evaluated:
            done = f"step {now.step}/{now.steps}, loss {now.loss:.4f}"
            left = f"{now.seconds_left / 60:.1f} min left"
            print(f"{name}: {done}, slice AUROC {now.auroc:.4f}, {left}", flush=True)

    return tell


def train(options: argparse.Namespace) -> None:
    """Fits the networks, each from where it was stopped, and averages the branches of a family."""
    labelled = train_side(options.data)
    contigs = fitting_side(labelled.contigs)
    minutes_left = countdown(options.max_minutes)
    trunk_of = {name: trunk for trunk, branches in FAMILIES.values() for name in branches}
    for name, settings in NETWORKS.items():
        if options.network not in (None, name):
            continue
        result = fit_encoder(
            contigs,
            replace(settings, steps=options.steps) if options.steps else settings,
            options.device,
            options.work / name,
            teller(name),
            data_sha256=labelled.sha256,
            max_minutes=minutes_left(),
            start=trained(options, trunk_of[name]).network if name in trunk_of else None,
        )
        keep(options, name, result)
        print(f"{name}: {json.dumps(result.record[SLICE_AREA])}, {result.record['seconds']} s")
        if not result.finished:
            raise SystemExit(f"{name}: time is up; the same command goes on from {result.state}")
    if options.network is None:
        for mean in FAMILIES:
            average(options, mean, labelled.contigs, contigs)


def average(
    options: argparse.Namespace,
    mean_name: str,
    everything: Sequence[LabelledContig],
    contigs: Sequence[LabelledContig],
) -> None:
    """Averages the weights of the branches, and judges that on the slice beside each network."""
    trunk_name, branch_names = FAMILIES[mean_name]
    networks = {name: trained(options, name) for name in (trunk_name, *branch_names)}
    apart = calibration_units(everything)
    trunk = networks[trunk_name]
    for name, fit in networks.items():
        if other := [k for k in SHARED if fit.record[k] != trunk.record[k]]:
            told = f"{name}: made with another {other[0]} than {trunk_name}; train it again"
            raise SystemExit(told)
    branches = [networks[name].network.state_dict() for name in branch_names]
    mean = codon_network(trunk.network.part())
    mean.load_state_dict(
        {k: torch.stack([b[k] for b in branches]).double().mean(0) for k in branches[0]}
    )
    settings = NETWORKS[trunk_name]
    held_out = judging_slice(contigs, settings.slice_fraction, settings.cut_by, "the network")
    judge = Judge(parted(contigs, held_out)[1], settings, torch.device(options.device))
    judged_too = {name: fit.network for name, fit in networks.items()}
    for name, network in {**judged_too, mean_name: mean}.items():
        judged = judge.judged(network.to(options.device), math.inf)
        print(f"{name} on the slice: {json.dumps(judged)}", flush=True)
    assert judged is not None
    record = {
        "method": f"mean of the weights of {len(branches)} networks that were trained further from "
        "one that was trained from random weights",
        **{name: trunk.record[name] for name in SHARED},
        "calibration": described([c for c in everything if c.unit in apart]),
        SLICE_AREA: judged["auroc"],
        SLICE_RECALL: judged["recall_at_1pct_fpr"],
        "seconds": round(sum(fit.record["seconds"] for fit in networks.values()), 1),
        "steps": sum(fit.record["steps"] for fit in networks.values()),
        "networks": {
            name: {k: v for k, v in fit.record.items() if k not in SHARED}
            for name, fit in networks.items()
        },
    }
    keep(options, mean_name, FitResult(mean.cpu().eval(), record, True, options.work))


def keep(options: argparse.Namespace, name: str, result: FitResult) -> None:
    """Writes the weights of a network, with the record in their metadata."""
    metadata = {
        "part": json.dumps(result.network.part()),
        "record": json.dumps(result.record),
        "finished": json.dumps(result.finished),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(result.network.arrays(), options.out / f"{name}.safetensors", metadata)


def is_finished(options: argparse.Namespace, name: str) -> bool:
    """Tells whether a network is there, and was trained to its end."""
    path = options.out / f"{name}.safetensors"
    if not path.is_file():
        return False
    with safe_open(path, framework="numpy") as file:
        finished: bool = json.loads(file.metadata()["finished"])
    return finished


def trained(options: argparse.Namespace, name: str) -> FitResult:
    """Reads what train wrote of a network."""
    path = options.out / f"{name}.safetensors"
    if not is_finished(options, name):
        alone = "" if name in FAMILIES else f" --network {name}"
        raise SystemExit(f"{path}: missing, or its training was stopped; run --only train{alone}")
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = codon_network(json.loads(metadata["part"]), path)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
    return FitResult(network.eval(), json.loads(metadata["record"]), True, options.work)
