"""The head: parity with the published one, and its file."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

import tolerances
from published_files import head_of_pickle
from virnucpro.classifiers.head import Head, load_head
from virnucpro.errors import BundleError

PUBLISHED = ("legacy_model.pth", "legacy_model_prezip.pth")


def save_head(head, path):
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, path)


@pytest.fixture(scope="module")
def examples(golden):
    return load_file(golden / "legacy_model.examples.safetensors")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_heads(golden, examples, name):
    head = head_of_pickle(golden / name)
    assert not head.training
    found = head.probabilities(examples["features"])
    assert found.dtype == np.float32
    assert found.shape == (16, 2)
    assert np.abs(found - examples["probabilities"]).max() <= tolerances.HEAD_FP32


def plain(head, x):
    """Probabilities in float64, from the formula."""
    w = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    h = x @ w["hidden.weight"].T + w["hidden.bias"]
    h = (h - w["norm.running_mean"]) / np.sqrt(w["norm.running_var"] + 1e-5)
    h = np.maximum(h * w["norm.weight"] + w["norm.bias"], 0)
    powers = np.exp(h @ w["output.weight"].T + w["output.bias"])
    return powers / powers.sum(1, keepdims=True)


def random_head(features, hidden):
    torch.manual_seed(2)
    head = Head(features, hidden)
    for tensor in head.norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return head


def test_features_that_are_only_for_reading():
    """As from a memory map; torch would warn, which is an error here."""
    head = random_head(4, 3)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    expected = head.probabilities(x)
    x.flags.writeable = False
    assert np.array_equal(head.probabilities(x), expected)
    assert np.array_equal(head.probabilities(x[::-1]), expected[::-1])


@pytest.mark.parametrize(("features", "hidden"), [(1, 1), (20, 7), (3328, 512)])
def test_any_width(features, hidden):
    head = random_head(features, hidden)
    x = np.random.default_rng(1).normal(size=(9, features))
    found = head.probabilities(x)
    assert np.abs(found - plain(head, x)).max() <= tolerances.HEAD_FP32
    assert head.features == features


def test_probabilities_are_eval_whatever_the_mode():
    head = random_head(6, 5)
    x = torch.randn(8, 6)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    in_training = head.train().probabilities(x)
    assert head.training
    assert all(torch.equal(before[name], t) for name, t in head.state_dict().items())
    assert torch.equal(in_training, head.eval().probabilities(x))
    torch.testing.assert_close(in_training, head(x).softmax(-1))


def test_kinds_in_and_out():
    head = random_head(6, 5)
    x = torch.randn(4, 6, dtype=torch.float64)
    as_tensor, as_array = head.probabilities(x), head.probabilities(x.numpy())
    assert as_tensor.dtype == torch.float32
    assert isinstance(as_array, np.ndarray)
    assert np.array_equal(as_tensor.numpy(), as_array)
    assert head.probabilities(np.zeros((0, 6), np.float32)).shape == (0, 2)
    with pytest.raises(ValueError, match="rows of 6 features"):
        head.probabilities(x[:, :5])


def test_saved_heads(tmp_path):
    head = random_head(6, 5)
    path = tmp_path / "head.safetensors"
    save_head(head, path)
    again = load_head(path)
    assert not again.training
    x = torch.randn(4, 6)
    assert torch.equal(again.probabilities(x), head.probabilities(x))


def test_files_that_are_no_heads(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(BundleError, match="cannot be read"):
        load_head(path)
    save_head(random_head(6, 5), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(BundleError, match="damaged"):
        load_head(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(BundleError, match="holds no head"):
        load_head(path)
    state = random_head(6, 5).state_dict()
    save_file({**state, "output.bias": torch.zeros(3), "extra": torch.zeros(1)}, path)
    with pytest.raises(BundleError, match=r"see extra, output\.bias"):
        load_head(path)
