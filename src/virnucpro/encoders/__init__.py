"""The two published encoders behind one face: sequences in, float32 embeddings out.

Importing this loads torch; nothing above imports it before it is needed.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from virnucpro.devices.choice import check_fp8
from virnucpro.devices.compute import DEFAULTS, Compute
from virnucpro.encoders.attention import FLASH_CAPABILITY, HALF, backend_for
from virnucpro.encoders.cpu import PackedDnabertS, PackedEsm2, can_pack
from virnucpro.encoders.dnabert_s import DnabertS, dnabert_s_config
from virnucpro.encoders.encoder import BATCH_TOKENS, Encoder, Network, Tokenize
from virnucpro.encoders.esm2 import Esm2, check_length, esm2_config
from virnucpro.encoders.gpu import FusedDnabertS, FusedEsm2
from virnucpro.encoders.precision import device_of, dtype_of, products
from virnucpro.encoders.weights.layouts import DNABERT_S, ESM2_FAIR, ESM2_HUGGING_FACE
from virnucpro.encoders.weights.load import find_published, load_published
from virnucpro.errors import BundleError
from virnucpro.tokens import Ids, NucleotideTokenizer, protein_ids

__all__ = ["Encoder", "dnabert_s_encoder", "esm2_encoder", "load_dnabert_s", "load_esm2"]

# Tokens of a batch on a GPU: 132 rows of tiles of 128, so that the products of an H100's or H200's
# 132 multiprocessors come out even; for the small encoder, four times that.
CUDA_TOKENS = {"esm2": 16_896, "dnabert_s": 67_584}


def load_esm2(
    path: Path | str,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    *,
    compute: Compute = DEFAULTS,
    plain: bool = False,
) -> Encoder:
    """ESM-2 of any size from a published directory, or from one file with its config inside.

    A directory is Hugging Face's, in safetensors or `.bin`, whole or in shards; a file is
    fair-esm's `.pt`, or safetensors with the config in its metadata. precision: fp32, bf16, fp16,
    or on Hopper GPUs fp8. compute: see devices.compute. plain: by the module of esm2.py as it
    is written, also where there are faster layers. Its embed takes proteins of 1 to 1024 letters; a
    row is the mean over the residues. Raises BundleError for files that are not an ESM-2,
    SettingsError for an unknown precision or an attention that cannot run there, DeviceError for a
    device that is not there or has no fp8.
    """
    dtype, place = dtype_of(products(precision)), device_of(device)
    if precision == "fp8":
        check_fp8(str(place))

    def build(config: Mapping[str, Any]) -> Esm2:
        return Esm2(esm2_config(config))

    layouts = (ESM2_FAIR, ESM2_HUGGING_FACE)
    model = load_published(build, find_published(path), layouts, dtype, place)
    return esm2_encoder(model, name=str(path), precision=precision, compute=compute, plain=plain)


def load_dnabert_s(
    path: Path | str,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    tokenizer: Path | str | None = None,
    *,
    compute: Compute = DEFAULTS,
    plain: bool = False,
) -> Encoder:
    """DNABERT-S from a published directory, or from one safetensors file with its config inside.

    A directory holds `pytorch_model.bin`, or safetensors. precision, compute and plain: as
    in load_esm2; fp8 is bf16 here, whose products are small. tokenizer: a tokenizer.json, where
    path has none beside it. Its embed takes nucleotides; a row is the mean over all tokens. Raises
    as load_esm2 does.
    """
    dtype, place = dtype_of(products(precision)), device_of(device)
    published = find_published(path)
    found = tokenizer or published.tokenizer
    words = None if found is None else NucleotideTokenizer(found)

    def build(config: Mapping[str, Any]) -> DnabertS:
        sizes = dnabert_s_config(config)
        if words is not None and words.vocabulary > sizes.vocabulary:
            raise BundleError(
                f"the tokenizer {words.path} has {words.vocabulary} tokens, the weights "
                f"{sizes.vocabulary}; tokenizer and weights are not of one model"
            )
        return DnabertS(sizes)

    model = load_published(build, published, (DNABERT_S,), dtype, place)
    tokenize = None if words is None else words.batch
    return dnabert_s_encoder(
        model,
        tokenize,
        name=str(path),
        precision=products(precision),
        compute=compute,
        plain=plain,
    )


def esm2_encoder(
    model: Esm2, *, name: str, precision: str, compute: Compute = DEFAULTS, plain: bool = False
) -> Encoder:
    """An Esm2 where its weights lie, by the layers of fused.py or packed.py where those run.

    These are then the only ones to use it: packed.py takes its weights, and so does fused.py in
    fp8. plain: as in load_esm2. Raises ValueError for a model whose weights were taken before.
    """
    device = _device_of(model)
    chosen: Network = model
    if not plain and _can_fuse(device, model.dtype):
        chosen = FusedEsm2(model, range(len(model.layers) if precision == "fp8" else 0))
    elif not plain and can_pack(device, model.dtype):
        chosen = PackedEsm2(model)
    words = {"name": name, "precision": precision}
    return _encoder(chosen, _protein_ids, "esm2", device, compute, **words)


def dnabert_s_encoder(
    model: DnabertS,
    tokenize: Tokenize | None,
    *,
    name: str,
    precision: str,
    compute: Compute = DEFAULTS,
    plain: bool = False,
) -> Encoder:
    """A DnabertS where its weights lie, as esm2_encoder."""
    device = _device_of(model)
    chosen: Network = model
    if not plain and _can_fuse(device, model.dtype):
        chosen = FusedDnabertS(model)
    elif not plain and can_pack(device, model.dtype):
        chosen = PackedDnabertS(model)
    words = {"name": name, "precision": precision}
    return _encoder(chosen, tokenize, "dnabert_s", device, compute, **words)


def _device_of(model: nn.Module) -> torch.device:
    """Return the device of its weights. Raises ValueError if they were taken before."""
    weights = list(model.parameters())
    if not all(weight.numel() for weight in weights):
        raise ValueError("the weights of this model were taken by another encoder; load it again")
    return weights[0].device


def _encoder(
    model: Network,
    tokenize: Tokenize | None,
    kind: str,
    device: torch.device,
    compute: Compute,
    **words: Any,  # noqa: ANN401
) -> Encoder:
    """An encoder as wished, its budget of tokens halved until a batch fits its device."""
    constant = CUDA_TOKENS[kind] if device.type == "cuda" else BATCH_TOKENS
    chosen = compute.on(str(device))
    encoder = Encoder(
        model,
        tokenize,
        device=device,
        batch_tokens=compute.tokens(kind) or constant,
        attention=backend_for(compute.attention, model.biased),
        pinned=bool(chosen.pin_memory),
        streams=bool(chosen.cuda_streams),
        cache_clear_interval=compute.cache_clear_interval,
        **words,
    )
    if device.type == "cuda":
        encoder.fit_memory()
    return encoder


def _can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if the layers of fused.py can run: 16 bit, a recent GPU, and torch's Triton."""
    return (
        device.type == "cuda"
        and dtype in HALF
        and torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY
        and find_spec("triton") is not None
    )


def _protein_ids(proteins: Sequence[str]) -> list[Ids]:
    """Ids of proteins; ValueError for one that ESM-2 cannot take, before anything is computed."""
    if "" in proteins:
        raise ValueError("an empty protein has no embedding; leave it out.")
    check_length(max(map(len, proteins), default=0) + 2)
    return [protein_ids(protein) for protein in proteins]
