"""Tells which DNA fragments of a sequencing run are viral. Importing this loads no torch."""

__version__ = "0.1.0"

# As of typing, whose import is long enough for a Ctrl-C that nobody takes yet.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from virnucpro.run.predict import predict

__all__ = ["__version__", "predict"]


def __getattr__(name: str) -> object:
    if name == "predict":
        from virnucpro.run.predict import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
