"""The two published encoders behind one face: sequences in, float32 embeddings out.

Importing this loads torch; nothing above imports it before it is needed.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from virnucpro.encoders.dnabert_s import DnabertS, dnabert_s_config
from virnucpro.encoders.encoder import Encoder
from virnucpro.encoders.esm2 import Esm2, check_length, esm2_config
from virnucpro.encoders.layouts import DNABERT_S, ESM2_FAIR, ESM2_HUGGING_FACE
from virnucpro.encoders.precision import device_of, dtype_of
from virnucpro.encoders.weights import find_published, load
from virnucpro.errors import BundleError
from virnucpro.tokens import Ids, NucleotideTokenizer, protein_ids

__all__ = ["Encoder", "load_dnabert_s", "load_esm2"]


def load_esm2(
    path: Path | str, device: str | torch.device = "cpu", precision: str = "fp32"
) -> Encoder:
    """ESM-2 from a published directory, or from one safetensors file with its config inside.

    precision: fp32, bf16 or fp16. Its embed takes proteins of 1 to 1024 letters; a row is the mean
    over the residues. Raises BundleError for files that are not an ESM-2, SettingsError for an
    unknown precision, DeviceError for a device that is not there.
    """
    dtype, place = dtype_of(precision), device_of(device)
    published = find_published(path)
    config = esm2_config(published.config)
    model = load(lambda: Esm2(config), published, (ESM2_FAIR, ESM2_HUGGING_FACE), dtype, place)
    return Encoder(model, _protein_ids, name=str(path), precision=precision, device=place)


def load_dnabert_s(
    path: Path | str,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    tokenizer: Path | str | None = None,
) -> Encoder:
    """DNABERT-S from a published directory, or from one safetensors file with its config inside.

    precision: fp32, bf16 or fp16. tokenizer: a tokenizer.json, where path has none beside it. Its
    embed takes nucleotides; a row is the mean over all tokens. Raises as load_esm2 does.
    """
    dtype, place = dtype_of(precision), device_of(device)
    published = find_published(path)
    config = dnabert_s_config(published.config)
    found = tokenizer or published.tokenizer
    words = None if found is None else NucleotideTokenizer(found)
    if words is not None and words.vocabulary > config.vocabulary:
        raise BundleError(
            f"{words.path}: has {words.vocabulary} tokens, the weights {config.vocabulary}; "
            "tokenizer and weights are not of one model"
        )
    model = load(lambda: DnabertS(config), published, (DNABERT_S,), dtype, place)
    tokenize = None if words is None else words.batch
    return Encoder(model, tokenize, name=str(path), precision=precision, device=place)


def _protein_ids(proteins: Sequence[str]) -> list[Ids]:
    """Ids of proteins; ValueError for one that ESM-2 cannot take, before anything is computed."""
    if "" in proteins:
        raise ValueError("an empty protein has no embedding; leave it out.")
    check_length(max(map(len, proteins), default=0) + 2)
    return [protein_ids(protein) for protein in proteins]
