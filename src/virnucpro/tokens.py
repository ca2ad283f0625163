"""Nucleotides and proteins -> token ids. This module imports no torch and knows no encoder.

Shapes: T tokens of one sequence, B sequences.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from virnucpro.errors import BundleError

Ids = NDArray[np.int64]

# The alphabet of ESM-2; an id is a place in it.
PROTEIN_ALPHABET = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)
PROTEIN_CLS, PROTEIN_PAD, PROTEIN_EOS, PROTEIN_UNK = range(4)
PROTEIN_MASK = PROTEIN_ALPHABET.index("<mask>")

NUCLEOTIDE_SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
NUCLEOTIDE_UNK, NUCLEOTIDE_CLS, NUCLEOTIDE_SEP, NUCLEOTIDE_PAD, NUCLEOTIDE_MASK = range(5)


def _id_of_byte() -> Ids:
    """The id of each byte, (256,): what the alphabet lacks, also lower case, is <unk>."""
    table = np.full(256, PROTEIN_UNK, np.int64)
    for place, token in enumerate(PROTEIN_ALPHABET):
        if len(token) == 1:
            table[ord(token)] = place
    return table


_ID_OF_BYTE = _id_of_byte()


def protein_ids(protein: str) -> Ids:
    """ESM-2's ids of a protein, (len(protein) + 2,): <cls>, one id a letter, <eos>."""
    ids = np.empty(len(protein) + 2, np.int64)
    ids[0] = PROTEIN_CLS
    ids[1:-1] = _ID_OF_BYTE[np.frombuffer(protein.encode("ascii", "replace"), np.uint8)]
    ids[-1] = PROTEIN_EOS
    return ids


def padded(ids: Sequence[Ids], pad: int) -> Ids:
    """Sequences of ids as one array (B, T), T the longest, pads behind the shorter ones."""
    ids_BT = np.full((len(ids), max(map(len, ids), default=0)), pad, np.int64)
    for row, sequence in enumerate(ids):
        ids_BT[row, : len(sequence)] = sequence
    return ids_BT


class NucleotideTokenizer:
    """DNABERT-S's byte-pair encoding, from the tokenizer.json published with it.

    Case-sensitive; each letter other than ACGT becomes [UNK]. Raises BundleError where the file is
    missing, damaged, or another tokenizer.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._tokenizer = Tokenizer.from_str(_checked_json(self.path))
        # The published file pads to 2000 and truncates at 2000.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        specials = [self._tokenizer.token_to_id(token) for token in NUCLEOTIDE_SPECIALS]
        if specials != list(range(len(NUCLEOTIDE_SPECIALS))):
            raise BundleError(
                f"{self.path}: not the tokenizer of DNABERT-S, which numbers "
                f"{', '.join(NUCLEOTIDE_SPECIALS)} from 0 to 4; take the file published with it"
            )

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def ids(self, nucleotides: str) -> Ids:
        """The ids of one sequence, (T,), with [CLS] first and [SEP] last."""
        return np.array(self._tokenizer.encode(nucleotides).ids, np.int64)

    def batch(self, nucleotides: Sequence[str]) -> list[Ids]:
        """The ids of each sequence, as ids() gives them."""
        encodings = self._tokenizer.encode_batch_fast(list(nucleotides))
        return [np.array(encoding.ids, np.int64) for encoding in encodings]


def _checked_json(path: Path) -> str:
    """The text of a tokenizer.json; BundleError unless it is JSON and a byte-pair encoding."""
    try:
        text = path.read_text("utf-8")
        model = json.loads(text)["model"]
        vocabulary, merges = model["vocab"], model["merges"]
    except OSError as error:
        raise BundleError(f"{path}: the tokenizer cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{path}: not a tokenizer.json, or damaged; fetch it again from where it was published"
        ) from error
    if model.get("type") != "BPE" or not isinstance(vocabulary, dict) or not merges:
        raise BundleError(f"{path}: holds no byte-pair encoding, which DNABERT-S needs")
    return text
