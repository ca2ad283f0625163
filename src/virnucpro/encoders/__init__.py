"""The two published encoders behind one face: sequences in, float32 embeddings out.

Importing this loads torch; nothing above imports it before it is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from virnucpro.encoders.converted import load_through
from virnucpro.encoders.dnabert_s import DnabertS, dnabert_s_config
from virnucpro.encoders.encoder import Encoder
from virnucpro.encoders.esm2 import Esm2, check_length, esm2_config
from virnucpro.encoders.layouts import DNABERT_S, ESM2_FAIR, ESM2_HUGGING_FACE
from virnucpro.encoders.precision import device_of, dtype_of
from virnucpro.encoders.weights import find_published
from virnucpro.errors import BundleError
from virnucpro.tokens import Ids, NucleotideTokenizer, protein_ids

__all__ = ["Encoder", "load_dnabert_s", "load_esm2"]


def load_esm2(
    path: Path | str,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    *,
    cache: Path | None = None,
) -> Encoder:
    """ESM-2 of any size from a published directory, or from one file with its config inside.

    A directory is Hugging Face's, in safetensors or `.bin`, whole or in shards; a file is
    fair-esm's `.pt`, or safetensors with the config in its metadata. precision: fp32, bf16 or fp16.
    cache: a folder that keeps a copy of the weights in that precision, which a later call reads
    instead. Its embed takes proteins of 1 to 1024 letters; a row is the mean over the residues.
    Raises BundleError for files that are not an ESM-2, SettingsError for an unknown precision,
    DeviceError for a device that is not there.
    """
    dtype, place = dtype_of(precision), device_of(device)

    def build(config: Mapping[str, Any]) -> Esm2:
        return Esm2(esm2_config(config))

    layouts = (ESM2_FAIR, ESM2_HUGGING_FACE)
    model = load_through(cache, build, find_published(path), layouts, dtype, place)
    return Encoder(model, _protein_ids, name=str(path), precision=precision, device=place)


def load_dnabert_s(
    path: Path | str,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    tokenizer: Path | str | None = None,
    *,
    cache: Path | None = None,
) -> Encoder:
    """DNABERT-S from a published directory, or from one safetensors file with its config inside.

    A directory holds `pytorch_model.bin`, or safetensors. precision and cache: as in load_esm2.
    tokenizer: a tokenizer.json, where path has none beside it. Its embed takes nucleotides; a row
    is the mean over all tokens. Raises as load_esm2 does.
    """
    dtype, place = dtype_of(precision), device_of(device)
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

    model = load_through(cache, build, published, (DNABERT_S,), dtype, place)
    tokenize = None if words is None else words.batch
    return Encoder(model, tokenize, name=str(path), precision=precision, device=place)


def _protein_ids(proteins: Sequence[str]) -> list[Ids]:
    """Ids of proteins; ValueError for one that ESM-2 cannot take, before anything is computed."""
    if "" in proteins:
        raise ValueError("an empty protein has no embedding; leave it out.")
    check_length(max(map(len, proteins), default=0) + 2)
    return [protein_ids(protein) for protein in proteins]
