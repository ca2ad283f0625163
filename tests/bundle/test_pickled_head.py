"""Pickled heads: what is one is read, what is none is refused by name, and nothing in it runs."""

import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tolerances
from published_files import head_of_pickle, pickled_heads
from virnucpro.bundle.pickled_head import read_head
from virnucpro.errors import BundleError

FEATURES, HIDDEN = 20, 8


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return pickled_heads(tmp_path_factory.mktemp("heads"), FEATURES, HIDDEN)


@pytest.mark.parametrize("container", ["", "_old"])
@pytest.mark.parametrize("name", ["head", "state", "half"])
def test_every_way_of_saving_a_head(heads, name, container):
    found = read_head(heads / f"{name}{container}.pth")
    assert found.whole == (name != "state")
    assert (found.features, found.hidden) == (FEATURES, HIDDEN)
    examples = torch.load(heads / "examples.pt", weights_only=True)
    probabilities = head_of_pickle(heads / f"{name}{container}.pth").probabilities
    error = (probabilities(examples["x"]) - examples["y"]).abs().max()
    assert error <= (tolerances.HEAD_FP32 if name != "half" else tolerances.HEAD_FP16_WEIGHTS)


def test_the_golden_heads_are_one(golden):
    new, old = (read_head(golden / f"legacy_model{n}.pth") for n in ("", "_prezip"))
    assert new.arrays.keys() == old.arrays.keys()
    assert all(np.array_equal(new.arrays[name], old.arrays[name]) for name in new.arrays)
    assert (new.features, new.hidden) == (3328, 512)


# Pickles that want to do something


class Calls:
    """Pickled as a call, which unpickling makes."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def zipped(path, payload, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", payload)
        for name, data in entries.items():
            archive.writestr(f"model/{name.replace('_', '/')}", data)
    return path


def in_stream(path, payload):
    """As the fourth pickle of the older container, where the module lies."""
    start = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in start) + payload)
    return path


CONTAINERS = {
    "zip": zipped,
    "stream": in_stream,
    "bare": lambda path, payload: path.write_bytes(payload),
}


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def stack_global(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def hidden_calls(marker) -> dict[str, tuple[bytes, str]]:
    """Pickles that would run a command, and the words that refuse them."""
    command = f"touch {marker}"
    call = short(command) + b"\x85R."
    system = pickle.dumps(Calls(os.system, (command,)), protocol=2)
    return {
        "plain": (system, rf"names {os.system.__module__}\.system"),
        "text": (f"cos\nsystem\n(S'{command}'\ntR.".encode(), r"names os\.system"),
        "eval": (pickle.dumps(Calls(eval, ("1",))), r"names builtins\.eval"),
        "import": (pickle.dumps(Calls(__import__, ("os",))), r"names builtins\.__import__"),
        "dotted": (
            b"\x80\x04" + stack_global("torch._utils", "_rebuild_parameter.__globals__") + call,
            r"names torch\._utils\._rebuild_parameter\.__globals__",
        ),
        "dotted module": (
            b"\x80\x04" + stack_global("collections", "OrderedDict.__init__.__globals__") + call,
            r"names collections\.OrderedDict\.__init__",
        ),
        "beside an allowed one": (
            b"\x80\x04" + stack_global("torch.nn.modules.linear", "os.system") + call,
            r"names torch\.nn\.modules\.linear\.os\.system",
        ),
        "space": (b"\x80\x02ctorch _utils\n_rebuild_parameter\n" + call, "names torch"),
        "extension": (b"\x80\x02\x82\x01.", "instruction EXT1"),
        "instance": (b"(S'x'\nios\nsystem\n.", "instruction"),
        "object": (b"\x80\x02(cos\nsystem\no.", r"names os\.system"),
        "new with words": (
            b"\x80\x04" + stack_global("torch.nn.modules.linear", "Linear") + b")}\x92.",
            "instruction NEWOBJ_EX",
        ),
        "slots": (
            b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81N}\x86b.",
            "a state that is not a plain dict",
        ),
        "setstate": (
            b"\x80\x02ctorch._utils\n_rebuild_parameter\n}b.",
            "a state that is not a plain dict",
        ),
        "calling a class": (
            b"\x80\x02ctorch.nn.modules.linear\nLinear\n)R.",
            r"calls torch\.nn\.modules\.linear\.Linear in a way",
        ),
        "filling a class": (
            b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
            r"calls collections\.OrderedDict in a way",
        ),
        "nested": (
            pickle.dumps(Calls(pickle.loads, (system,))),
            r"names _pickle\.loads",
        ),
        "view": (
            b"\x80\x04("
            + short("storage")
            + b"ctorch\nFloatStorage\n"
            + short("0")
            + short("cpu")
            + b"K\x04"
            + short("0")
            + b"K\x00K\x02\x87tQ.",
            "its tensors are views of others",
        ),
        "elsewhere": (
            b"\x80\x04("
            + short("file")
            + b"ctorch\nFloatStorage\n"
            + short("/etc/passwd")
            + short("cpu")
            + b"K\x04tQ.",
            "refers to something else than numbers outside of it",
        ),
        "persistent": (b"\x80\x02Pos.system\n.", "instruction PERSID"),
        "buffer": (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
    }


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("trick", hidden_calls("x"))
def test_nothing_runs_and_the_name_is_told(tmp_path, trick, container):
    marker = tmp_path / "marker"
    payload, words = hidden_calls(marker)[trick]
    path = tmp_path / "bomb.pth"
    CONTAINERS[container](path, payload)
    with pytest.raises(BundleError, match=words) as caught:
        read_head(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("nothing in it was executed")
    assert not marker.exists()


@pytest.mark.parametrize("container", ["zip", "stream"])
def test_a_call_hidden_in_a_whole_head(heads, tmp_path, container):
    """In the place of a hook, deep in an otherwise sound file."""
    marker = tmp_path / "marker"
    call = pickle.dumps(Calls(os.system, (f"touch {marker}",)), protocol=2)[2:-1]
    path = tmp_path / "bomb.pth"
    source = heads / ("head.pth" if container == "zip" else "head_old.pth")
    hooks = b"ccollections\nOrderedDict\n"
    if container == "stream":
        data = source.read_bytes()
        at = data.index(hooks)
        path.write_bytes(data[:at] + call + b"0" + data[at:])
    else:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.namelist():
                data = old.read(entry)
                if entry.endswith("data.pkl"):
                    at = data.index(hooks)
                    data = data[:at] + call + data[at:]
                new.writestr(entry, data)
    with pytest.raises(BundleError, match=rf"names {os.system.__module__}\.system"):
        read_head(path)
    assert not marker.exists()


def test_one_file_changes_nothing_for_the_next(heads, tmp_path):
    """A pickle that fills what it was given must not fill ours."""
    before = read_head(heads / "head.pth")
    evil = b"\x80\x02ccollections\nOrderedDict\n)RX\x01\x00\x00\x00xK\x01s."
    with pytest.raises(BundleError, match="it holds no head"):
        read_head(zipped(tmp_path / "evil.pth", evil))
    after = read_head(heads / "head.pth")
    assert all(np.array_equal(before.arrays[n], after.arrays[n]) for n in before.arrays)


def refuse(path, *words):
    with pytest.raises(BundleError) as caught:
        read_head(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert any(word in str(caught.value) for word in words)


def test_bombs_of_depth_size_and_count(tmp_path):
    path = tmp_path / "bomb.pth"
    words = ("damaged", "no head", "longer than any head's")
    for payload in (
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",  # a list in a list in a list
        b"\x80\x02" + b")" + b"\x85" * 50_000 + b".",
        b"\x80\x02}" + b")" + b"\x85" * 50_000 + b"K\x01s.",  # as a key, which would be hashed
        b"\x80\x02(" + b"]q\x00" + b"h\x00" * 60_000 + b"t.",
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a place in the memo that a table would need 16 GB for
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes that are not there
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02N0" * 200_000,
        b"\x80\x02" + b"I" + b"9" * 10_000 + b"\n.",
    ):
        refuse(zipped(path, payload), *words, "instruction")
        refuse(in_stream(path, payload), *words, "instruction")


def test_an_archive_that_was_packed_small(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + b"N" * 1_000_000)
    refuse(path, "its archive is compressed")


def test_a_file_with_more_than_any_head(tmp_path):
    path = tmp_path / "huge.pth"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    refuse(path, "larger than any head")
    refuse(tmp_path, "this is a folder")
    refuse(tmp_path / "none", "cannot be read")


# Damage


@pytest.mark.parametrize("name", ["head.pth", "head_old.pth", "state.pth"])
def test_a_file_cut_anywhere_is_refused(heads, tmp_path, name):
    whole = (heads / name).read_bytes()
    path = tmp_path / "cut.pth"
    for length in {*range(0, len(whole), 97), len(whole) - 1, 1, 4}:
        path.write_bytes(whole[:length])
        refuse(path, "truncated or damaged")


def test_more_behind_the_end_of_a_stream(heads, tmp_path):
    path = tmp_path / "long.pth"
    path.write_bytes((heads / "head_old.pth").read_bytes() + b"x")
    refuse(path, "truncated or damaged")


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), name=st.sampled_from(["head", "old"]))
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_is_no_crash(heads, tmp_path_factory, place, bit, name):
    """In the zip container its checksums tell; whatever else still reads as a head is one."""
    data = bytearray((heads / {"head": "head.pth", "old": "head_old.pth"}[name]).read_bytes())
    data[place % len(data)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / f"flipped-{name}.pth"
    path.write_bytes(data)
    with suppress(BundleError):  # whatever else would be a crash
        found = read_head(path)
        assert (found.features, found.hidden) == (FEATURES, HIDDEN)


@given(data=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_no_crash(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.pth"
    for payload in (data, b"\x80\x02" + data):
        for put in CONTAINERS.values():
            put(path, payload)
            with pytest.raises(BundleError):
                read_head(path)


# Heads that are none


def test_what_is_no_head_is_named(heads, tmp_path):
    state = torch.load(heads / "state.pth", weights_only=True)
    path = tmp_path / "state.pth"

    def saved(**changes):
        changed = {k: v for k, v in {**state, **changes}.items() if v is not None}
        torch.save(OrderedDict(changed), path)
        return path

    refuse(saved(extra=torch.zeros(2)), "unexpected or of another size: extra")
    refuse(saved(**{"bn1.bias": None}), "another size: bn1.bias")
    refuse(saved(**{"hidden_layer.weight": None}), "no matrix hidden_layer.weight")
    refuse(saved(**{"hidden_layer.weight": torch.zeros(3)}), "no matrix hidden_layer.weight")
    refuse(saved(**{"output_layer.weight": torch.zeros(2, 9)}), "another size: output_layer.weight")
    refuse(saved(**{"bn1.weight": torch.full((HIDDEN,), torch.nan)}), "not of finite numbers")
    huge = torch.full((HIDDEN,), 1e300, dtype=torch.float64)
    refuse(saved(**{"bn1.weight": huge}), "bn1.weight is not of finite numbers")
    refuse(saved(**{"bn1.weight": torch.zeros(1, 1, HIDDEN)}), "a tensor of 3 dimensions")
    refuse(saved(**{"bn1.weight": torch.zeros(HIDDEN, dtype=torch.int32)}), "torch.IntStorage")
    turned = state["hidden_layer.weight"].t().contiguous().t()
    refuse(saved(**{"hidden_layer.weight": turned}), "do not lie in order")
    refuse(saved(**{"\x1b[2J": torch.zeros(2)}), "\\x1b[2J")
    torch.save({"epoch": 3}, path)
    refuse(path, "it holds no head")
    torch.save([1, 2], path)
    refuse(path, "it holds no head")


def test_three_classes_are_named(tmp_path):
    heads = pickled_heads(tmp_path / "three", FEATURES, HIDDEN, classes=3)
    refuse(heads / "head.pth", "no head of two classes", "output_layer.bias, output_layer.weight")


def test_a_storage_of_another_size(heads, tmp_path):
    path = tmp_path / "other.pth"
    for change in (lambda data: data[:-4], lambda data: data + bytes(4)):
        with zipfile.ZipFile(heads / "head.pth") as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.namelist():
                data = old.read(entry)
                new.writestr(entry, change(data) if entry.endswith("data/0") else data)
        refuse(path, "truncated or damaged")
    data = (heads / "head_old.pth").read_bytes()
    count = struct.pack("<q", FEATURES * HIDDEN)
    for other in (-1, 2**62, 2**63 - 1):
        path.write_bytes(data.replace(count, struct.pack("<q", other), 1))
        refuse(path, "truncated or damaged")


def test_another_eps_or_order_of_bytes(heads, tmp_path):
    path = tmp_path / "other.pth"
    data = (heads / "head_old.pth").read_bytes()
    path.write_bytes(data.replace(struct.pack(">d", 1e-5), struct.pack(">d", 1e-3)))
    refuse(path, "its bn1 has an eps of 0.001 instead of 1e-05")
    refuse(zipped(path, b"\x80\x02N.", byteorder=b"big"), "not little-endian")
    path.write_bytes(data.replace(b"little_endian\x71\x02\x88", b"little_endian\x71\x02\x89"))
    refuse(path, "not little-endian")


def test_reading_imports_nothing_that_is_named(heads):
    """Neither torch nor the pickled class is needed."""
    import subprocess

    code = (
        "import sys; from pathlib import Path; from virnucpro.bundle.pickled_head import read_head;"
        f"read_head(Path({str(heads / 'head.pth')!r})); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_zip_may_hold_one_pickle_once(heads, tmp_path):
    path = tmp_path / "two.pth"
    path.write_bytes((heads / "head.pth").read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02N.")
    refuse(path, "truncated or damaged")
    buffer = io.BytesIO((heads / "head.pth").read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b"\x80\x02N.")
    path.write_bytes(buffer.getvalue())
    refuse(path, "holds a name twice")
