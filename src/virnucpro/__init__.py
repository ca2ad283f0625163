"""Tells which DNA fragments of a sequencing run are viral. Importing this loads no torch."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from virnucpro.run import predict

__all__ = ["__version__", "predict"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "predict":
        from virnucpro.run import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
