"""The one door to attention: kernels agree, a named one runs or raises; what ran is observed."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import tolerances
from virnucpro.encoders import attention as attention_module
from virnucpro.encoders.attention import (
    BACKENDS,
    KERNELS,
    Mask,
    attention,
    mask_of,
    observing,
)
from virnucpro.errors import SettingsError

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"
RAN = {"math": "aten::softmax", "sdpa": FUSED, "auto": FUSED}
ON_CPU = tuple(RAN)


@pytest.fixture
def qkv():
    torch.manual_seed(3)
    return [torch.randn(3, 4, 17, 20, dtype=torch.float64) for _ in range(3)]


def plain(q, k, v, keep_BT, slopes):
    """Attention of float64 tensors, one score at a time."""
    out = torch.zeros_like(v)
    for b, h, i in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        seen = [j for j in range(k.shape[2]) if keep_BT[b, j]]
        scores = [
            float(q[b, h, i] @ k[b, h, j]) / math.sqrt(q.shape[3]) - slopes[h] * abs(i - j)
            for j in seen
        ]
        powers = [math.exp(score - max(scores)) for score in scores]
        for j, power in zip(seen, powers, strict=True):
            out[b, h, i] += power / sum(powers) * v[b, h, j]
    return out


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("slopes", [None, [0.5, 0.25, 0.0, 2.0]])
def test_kernels_are_attention(qkv, padded, slopes):
    keep_BT = torch.ones(3, 17, dtype=torch.bool)
    if padded:
        keep_BT[1, 5:] = keep_BT[2, 1:] = False
    mask = mask_of(keep_BT, None if slopes is None else torch.tensor(slopes))
    assert (mask.keep is None) == (not padded)
    assert (mask.bias(torch.float64) is None) == (not padded and slopes is None)
    expected = plain(*qkv, keep_BT, slopes or [0.0] * 4)
    for name in ON_CPU:
        found = attention(*qkv, mask, backend=name)
        assert (found - expected).abs().max() <= tolerances.FLOAT64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ON_CPU)
def test_dtype_is_kept(qkv, name, dtype):
    mask = mask_of(torch.ones(3, 17, dtype=torch.bool), torch.ones(4))
    out = attention(*(x.to(dtype) for x in qkv), mask, backend=name)
    assert out.dtype == dtype


@pytest.mark.parametrize("name", ON_CPU)
def test_distances_are_not_rounded_to_the_dtype_of_queries(name):
    """In bf16 0.3 * 63 would be 18.875, and what is seen from so far 2.5 % more."""
    q, v = torch.zeros(2, 1, 1, 64, 8, dtype=torch.bfloat16)
    v[..., 0, :] = 1
    mask = mask_of(torch.ones(1, 64, dtype=torch.bool), torch.tensor([0.3]))
    found = attention(q, q, v, mask, backend=name)[0, 0, 63, 0].double()
    expected = (-0.3 * torch.arange(64.0, dtype=torch.float64)).softmax(0)[63]
    assert abs(found / expected - 1) <= tolerances.ONE_BF16


@pytest.mark.parametrize("name", ON_CPU)
def test_the_named_kernel_is_what_runs(qkv, name):
    """TRAP N1."""
    mask = mask_of(torch.ones(3, 17, dtype=torch.bool), torch.ones(4))
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        attention(*qkv, mask, backend=name)
    ran = {event.key for event in trace.key_averages()}
    assert RAN[name] in ran
    assert (FUSED in ran) == (name != "math")


def test_a_kernel_that_cannot_run_raises(qkv):
    """TRAP N2."""
    mask = mask_of(torch.ones(3, 17, dtype=torch.bool), None)
    with pytest.raises(SettingsError, match="'fast' is not known; choose auto, triton, flash"):
        attention(*qkv, mask, backend="fast")
    for name in set(BACKENDS) - set(ON_CPU):
        with pytest.raises(SettingsError, match=f"kernel {name} cannot .* on CUDA devices only"):
            attention(*qkv, mask, backend=name)
    assert {*BACKENDS, "sdpa", "products"} == {*KERNELS, "auto"}


def test_only_what_ran_here_is_seen(qkv):
    """TRAP N1: Not in another thread, not before or after, and not a kernel that raised."""
    mask = mask_of(torch.ones(3, 17, dtype=torch.bool), None)
    seen, inner = {}, {}
    attention(*qkv, mask, backend="math")
    with observing(seen):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: attention(*qkv, mask, backend="math")).result()
        with pytest.raises(RuntimeError):
            attention(qkv[0], qkv[1][..., :3], qkv[2], mask, backend="math")
        with observing(inner):
            attention(*qkv, mask, backend="math")
        assert seen == {}
        attention(*qkv, mask, backend="sdpa")
    attention(*qkv, mask, backend="math")
    assert set(seen.values()) == {"PyTorch CPU flash"}
    assert set(inner.values()) == {"math"}


def test_plain_products_are_attention_to_the_rounding_of_scores(qkv):
    mask = Mask(None, None, qkv[0].shape[2])
    half = [x.bfloat16() for x in qkv]
    expected = attention(*(x.double() for x in half), mask, backend="math")
    found = attention(*half, mask, backend="products")
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0.02)


def test_heads_of_a_width_that_a_kernel_does_not_take(qkv, monkeypatch):
    """Filled up with zeros, and scores scaled by the width that they had."""
    monkeypatch.setattr(attention_module, "ALIGNED", ("sdpa",))
    keep_BT = torch.ones(3, 17, dtype=torch.bool)
    keep_BT[1, 5:] = False
    mask = mask_of(keep_BT, torch.tensor([0.5, 0.25, 0.0, 2.0]))
    found = attention(*qkv, mask, backend="sdpa")
    assert found.shape == qkv[2].shape
    assert (found - attention(*qkv, mask, backend="math")).abs().max() <= tolerances.FLOAT64


def test_segments_of_a_batch_with_pads():
    """Each sequence, then the pads behind it, as flash takes them."""
    keep_BT = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    mask = mask_of(keep_BT, None)
    assert mask.ends.tolist() == [0, 3, 3, 4, 6, 8, 9]
    assert mask.ends.dtype == torch.int32


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("slopes", [None, [0.5, 0.25, 0.0, 2.0]])
def test_kernels_have_their_names_in_every_mode(qkv, mode, slopes):
    """TRAP N1: In inference mode the dispatcher sees other operations than with gradients."""
    mask = mask_of(
        torch.ones(3, 17, dtype=torch.bool), None if slopes is None else torch.tensor(slopes)
    )
    for backend, name in {"math": "math", "auto": "PyTorch CPU flash"}.items():
        seen = {}
        with observing(seen), mode():
            attention(*qkv, mask, backend=backend)
        assert set(seen.values()) == {name}
