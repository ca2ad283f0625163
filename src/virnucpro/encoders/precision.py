"""Names of precisions, and what is computed wider than the weights.

In half precision (bf16, fp16) only matrix products run in it: LayerNorm, softmax, rotary angles,
the residual stream and pooling are fp32. This module knows no encoder.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from virnucpro.devices.choice import check_present, known_device
from virnucpro.errors import SettingsError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of the weights; SettingsError for an unknown name."""
    if precision not in DTYPES:
        raise SettingsError(
            f"precision {precision!r} is not known to an encoder; choose {', '.join(DTYPES)}"
        )
    return DTYPES[precision]


def products(precision: str) -> str:
    """Return the precision of all that is not computed in fp8."""
    return "bf16" if precision == "fp8" else precision


def device_of(device: str | torch.device) -> torch.device:
    """The device of that name; DeviceError for one that is unknown, or missing here."""
    name = known_device(device)
    check_present(name)
    found = torch.device(name)
    if found.type == "cuda":
        _plain_fp32()
    return found


def _plain_fp32() -> None:
    """Lets fp32 be fp32: by itself torch gives convolutions on a GPU 10 bits of mantissa (TF32)."""
    torch.backends.cudnn.allow_tf32 = False


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums and exponentials: fp32, or fp64 for a model in fp64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class WideLayerNorm(nn.LayerNorm):
    """LayerNorm in the dtype of its input, whatever its weights are stored in.

    Its input is the wide residual stream: an eps of 1e-12 underflows in fp16.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
