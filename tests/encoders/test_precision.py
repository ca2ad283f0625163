"""In half precision only the products of weights are half: what is wider, as torch ran it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from encoder_examples import tiny_esm2
from published_encoders import golden_parts, publish
from virnucpro.encoders import load_dnabert_s, load_esm2

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
LAYERS = 2


class Inputs(TorchDispatchMode):
    """Remembers the dtype of the first floating input of every operation."""

    def __init__(self):
        super().__init__()
        self.dtypes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        floating = [a for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()]
        if floating:
            name = func.overloadpacket.__name__
            self.dtypes.setdefault(name, []).append(floating[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=["esm2", "dnabert_s"])
def load(request, tmp_path):
    """Loads a small encoder in a precision; its ids come along."""
    if request.param == "esm2":
        tiny_esm2(tmp_path / "esm2.safetensors", LAYERS)
        ids = torch.tensor([[0, 20, 15, 7, 5, 2], [0, 4, 4, 9, 9, 2]])  # no pads, so no mask
        return lambda precision: load_esm2(
            tmp_path / "esm2.safetensors", "cpu", precision, plain=True
        ), ids
    golden = request.getfixturevalue("golden")
    publish(tmp_path / "dnabert", *golden_parts(golden / "dnabert_h8.weights.safetensors"))
    ids = torch.tensor([[1, 5, 194, 32, 757, 2, 3], [1, 6, 7, 8, 9, 10, 2]])
    return lambda precision: load_dnabert_s(tmp_path / "dnabert", "cpu", precision, plain=True), ids


@pytest.mark.parametrize("precision", HALF)
def test_what_is_wide(load, precision):
    """TRAP N10."""
    loader, ids_BT = load
    model = loader(precision).model
    streams = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, given, out: streams.append(out.dtype))
    with Inputs() as seen, torch.no_grad():
        hidden_BTC = model(ids_BT, backend="math")
        before = dict(seen.dtypes)
        pooled_BC = model.pool(hidden_BTC, ids_BT)
    assert set(before["native_layer_norm"]) == {torch.float32}
    assert len(before["native_layer_norm"]) == 2 * LAYERS + 1
    assert set(before["_softmax"]) == {torch.float32}
    assert set(before["addmm"]) == {HALF[precision]}
    assert set(streams) == {torch.float32}
    assert len(streams) == LAYERS
    assert hidden_BTC.dtype == pooled_BC.dtype == torch.float32
    assert seen.dtypes["sum"][-1] == torch.float32
    stored = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert stored.pop("rotary.inv_freq", torch.float32) == torch.float32
    assert set(stored.values()) == {HALF[precision]}
