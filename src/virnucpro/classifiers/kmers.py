"""The k-mer linear model of a bundle of kind kmer."""

from virnucpro.bundle import Bundle
from virnucpro.errors import BundleError
from virnucpro.kmer import KmerClassifier

WEIGHTS = "kmer.safetensors"


def kmer_classifier(bundle: Bundle) -> KmerClassifier:
    """Raises BundleError where the arrays do not fit."""
    arrays = bundle.arrays(WEIGHTS)
    try:
        return KmerClassifier(
            weight=arrays["weight"],
            mean=arrays["mean"],
            scale=arrays["scale"],
            bias=float(arrays["bias"][0]),
            k=int(bundle.part("kmer")["k"]),
            min_nt=bundle.min_nt,
            validated_nt=bundle.validated_nt,
            name=bundle.name,
        )
    except (KeyError, IndexError, ValueError) as error:
        raise BundleError(
            f"{bundle.path / WEIGHTS}: not the arrays of a k-mer model ({error})"
        ) from error
