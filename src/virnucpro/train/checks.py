"""The conditions that settings and fitted weights must satisfy, whatever is trained."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.errors import BundleError, SettingsError


def check_least(settings: object, **least: float) -> None:
    """Raises SettingsError for a field below its least value, or not finite; a tuple counts by
    each of its values, and must have one."""
    for name, lowest in least.items():
        value = getattr(settings, name)
        values = value if isinstance(value, tuple) else (value,)
        if not values or not all(lowest <= v < math.inf for v in values):
            raise SettingsError(f"{name} is {value}, but must be {lowest} or more")


def check_finite(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise BundleError if a weight is not a number, so that such a bundle is never written."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise BundleError(
                f"the training went wrong: the weights {name} are not finite, and no bundle was "
                "written; train with other settings or sequences"
            )
