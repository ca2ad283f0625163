"""The face of a model on disk that a classifier is loaded from. A bundle satisfies it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from virnucpro.calls import Kind

# The part of a bundle of kind chunks that remembers its training data; see protein_kmers.py.
PROTEIN_KMERS = "protein_kmers"
# The part with a second network; see second_opinion.py.
SECOND_OPINION = "second_opinion"


class Model(Protocol):
    """A model whose files are checked when they are read; see bundle.manifest.Bundle."""

    @property
    def path(self) -> Path:
        """The directory, for messages."""

    @property
    def name(self) -> str:
        """The name by which users know it."""

    @property
    def kind(self) -> Kind:
        """The way of scoring chunks."""

    @property
    def chunk_nt(self) -> int:
        """Length of a chunk."""

    @property
    def block_nt(self) -> int:
        """Size of a block."""

    @property
    def min_nt(self) -> int:
        """Letters A, C, G or T that a chunk needs to be called."""

    @property
    def validated_nt(self) -> int:
        """Length of the shortest chunk that the model was measured on."""

    @property
    def parts(self) -> Mapping[str, Any]:
        """Settings of what the kind is made of, by name."""

    def part(self, name: str) -> Mapping[str, Any]:
        """Settings of one part. Raises BundleError if it is missing."""

    def file(self, name: str) -> Path:
        """A file of the model, checked against its sha256. Raises BundleError."""

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of a safetensors file of the model. Raises BundleError."""

    def encoder(self, name: str) -> Path:
        """The checked directory or file of a published encoder. Raises BundleError."""
