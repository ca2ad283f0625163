"""Nucleotides and proteins -> token ids. This module imports no torch and knows no encoder.

Shapes: T tokens of one sequence, B sequences.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from virnucpro.errors import BundleError

Ids = NDArray[np.int64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt16 = NDArray[np.uint16]

# Of ids that 16 bits hold.
MOST_IDS = 1 << 16
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


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The ids of m sequences, of which d are distinct: equal ones are held, and computed, once.

    ids: (tokens,) those of the distinct sequences, one after the other, in the order in which each
    came first; begin: (d + 1,) where each begins, and where the last ends; place: (m,) which of
    them each sequence is.
    """

    ids: UInt16 = field(repr=False)
    begin: Int64
    place: Int32

    def __len__(self) -> int:
        return len(self.place)

    @classmethod
    def of(cls, sequences: Sequence[NDArray[np.integer[Any]]]) -> Self:
        """Sequences of ids one by one. Raises ValueError for an id that 16 bits do not hold."""
        ids = np.concatenate([np.empty(0, np.int64), *sequences])
        if len(ids) and not 0 <= ids.min() <= ids.max() < MOST_IDS:
            raise ValueError("an id does not fit in 16 bits")
        return cls._of_flat(ids.astype(np.uint16), _begins(list(map(len, sequences))))

    @classmethod
    def _of_flat(cls, ids: UInt16, begin: Int64) -> Self:
        """Sequences that lie one after the other in ids."""
        data, edges = ids.tobytes(), (begin * ids.itemsize).tolist()
        unique: dict[bytes, int] = {}
        parts = map(data.__getitem__, map(slice, edges[:-1], edges[1:]))
        place = [unique.setdefault(part, len(unique)) for part in parts]
        lengths = [len(part) // ids.itemsize for part in unique]
        return cls(
            np.frombuffer(b"".join(unique), np.uint16), _begins(lengths), np.array(place, np.int32)
        )

    @classmethod
    def joined(cls, parts: Sequence["TokenRows"]) -> Self:
        """The sequences of one or more, one after the other: as if they had been made at once."""
        lengths = chain.from_iterable(part.lengths.tolist() for part in parts)
        before = np.cumsum([0] + [len(part.lengths) for part in parts])
        place = np.concatenate([p.place + n for p, n in zip(parts, before[:-1], strict=True)])
        found = cls._of_flat(np.concatenate([part.ids for part in parts]), _begins([*lengths]))
        return cls(found.ids, found.begin, found.place[place])

    def of_rows(self, rows: NDArray[np.integer[Any]]) -> list[UInt16]:
        """Return the ids of some of the sequences, by their places."""
        return [self.ids[self.begin[i] : self.begin[i + 1]] for i in self.place[rows].tolist()]

    @property
    def lengths(self) -> Int64:
        """Tokens of each distinct sequence, (d,)."""
        return np.diff(self.begin)

    def distinct(self) -> list[UInt16]:
        """The ids of each distinct sequence."""
        return np.split(self.ids, self.begin[1:-1]) if len(self.begin) > 1 else []


def _begins(lengths: Sequence[int]) -> Int64:
    return np.cumsum([0, *lengths], dtype=np.int64)


def _id_of_byte() -> UInt16:
    """The id of each byte, (256,): what the alphabet lacks, also lower case, is <unk>."""
    table = np.full(256, PROTEIN_UNK, np.uint16)
    for place, token in enumerate(PROTEIN_ALPHABET):
        if len(token) == 1:
            table[ord(token)] = place
    return table


_ID_OF_BYTE = _id_of_byte()


def protein_ids(protein: str) -> Ids:
    """ESM-2's ids of a protein, (len(protein) + 2,): <cls>, one id a letter, <eos>."""
    return _flat_protein_ids([protein])[0].astype(np.int64)


def protein_rows(proteins: Sequence[str]) -> TokenRows:
    """ESM-2's ids of proteins, each as protein_ids gives them."""
    return TokenRows._of_flat(*_flat_protein_ids(proteins))


def _flat_protein_ids(proteins: Sequence[str]) -> tuple[UInt16, Int64]:
    """The ids of all proteins, one after the other, and where each begins."""
    begin = _begins([len(protein) + 2 for protein in proteins])
    # <cls> and <eos> have no letter; two of no meaning keep their places.
    text = "".join([f" {protein} " for protein in proteins]).encode("ascii", "replace")
    ids = _ID_OF_BYTE[np.frombuffer(text, np.uint8)]
    ids[begin[:-1]] = PROTEIN_CLS
    ids[begin[1:] - 1] = PROTEIN_EOS
    return ids, begin


def padded(ids: Sequence[NDArray[np.integer[Any]]], pad: int) -> Ids:
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
        from tokenizers import Tokenizer  # bundles of other kinds do not wait for it

        self.path = Path(path)
        self._tokenizer = Tokenizer.from_str(_checked_json(self.path))
        # The published file pads to 2000 and truncates at 2000.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        specials = [self._tokenizer.token_to_id(token) for token in NUCLEOTIDE_SPECIALS]
        if self.vocabulary > MOST_IDS or specials != list(range(len(NUCLEOTIDE_SPECIALS))):
            raise BundleError(
                f"{self.path}: not the tokenizer of DNABERT-S, which numbers "
                f"{', '.join(NUCLEOTIDE_SPECIALS)} from 0 to 4 and has at most {MOST_IDS:,} "
                "tokens; take the file published with it"
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

    def rows(self, nucleotides: Sequence[str]) -> TokenRows:
        """The ids of each sequence, as ids() gives them."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(nucleotides))]
        flat = np.array(list(chain.from_iterable(ids)), np.uint16)
        return TokenRows._of_flat(flat, _begins(list(map(len, ids))))


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
