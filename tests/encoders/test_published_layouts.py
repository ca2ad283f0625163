"""Every published layout gives the published numbers; nothing that a file pickles is run."""

import json
import os
import random
import subprocess
import sys
import zipfile
from argparse import Namespace

import pytest
import torch

import tolerances
from encoder_examples import golden_examples, tiny_esm2, worst_error
from published_encoders import (
    KINDS,
    fair_checkpoint,
    golden_parts,
    publish,
    publish_dnabert_s,
    publish_fair,
    write,
)
from virnucpro.devices.machine import cpu_count
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.errors import BundleError

TINY = {"num_layers": 2, "embed_dim": 16, "attention_heads": 2}


@pytest.fixture
def tensors(tmp_path):
    """Tensors of a two-layer ESM-2 with fair-esm's names."""
    return tiny_esm2(tmp_path / "tiny.safetensors", layers=2)


def refused(path, load=load_esm2):
    with pytest.raises(BundleError) as caught:
        load(path)
    said = str(caught.value)
    assert said.startswith(f"{path}")
    assert "\n" not in said
    return said


# The published numbers from every layout


@pytest.mark.parametrize("kind", KINDS)
def test_esm2_directories(golden, tmp_path, kind):
    parts = golden_parts(golden / "esm2_hf_layout.weights.safetensors")
    encoder = load_esm2(publish(tmp_path / "esm2", *parts, kind))
    examples = golden_examples(golden / "esm2.examples.safetensors")
    assert worst_error(encoder, examples) <= tolerances.ESM2_GOLDEN_FP32


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("prefix", ["encoder.sentence_encoder.", "encoder.", ""])
def test_fair_esm_files(golden, tmp_path, prefix, stream):
    parts = golden_parts(golden / "esm2_fair_layout.weights.safetensors")
    encoder = load_esm2(publish_fair(tmp_path / "esm2.pt", *parts, stream, prefix))
    examples = golden_examples(golden / "esm2.examples.safetensors")
    assert worst_error(encoder, examples) <= tolerances.ESM2_GOLDEN_FP32


@pytest.mark.parametrize("kind", KINDS)
def test_dnabert_s_directories(golden, tmp_path, kind):
    encoder = load_dnabert_s(publish_dnabert_s(golden, tmp_path / "dnabert", kind))
    examples = golden_examples(golden / "dnabert_h12.examples.safetensors")
    assert worst_error(encoder, examples) <= tolerances.DNABERT_S_GOLDEN_FP32
    assert encoder.embed(["ACGTNACGT"]).shape == (1, 96)


@pytest.mark.parametrize("name", ["esm2.pt", "esm2.safetensors", "no_suffix"])
def test_the_content_tells_the_kind(tensors, tmp_path, name):
    expected = load_esm2(tmp_path / "tiny.safetensors").embed(["MKV"])
    publish_fair(tmp_path / "fair.bin", tensors, TINY)
    for file in ("fair.bin", "tiny.safetensors"):
        path = tmp_path / "renamed" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / file).read_bytes())
        assert (load_esm2(path).embed(["MKV"]) == expected).all()


def test_a_deflated_container(tensors, tmp_path):
    """Some tools pack a zip anew; what is compressed cannot be mapped, but can be read."""
    publish_fair(tmp_path / "a.pt", tensors, TINY)
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry))
    expected = load_esm2(tmp_path / "a.pt").embed(["MKV"])
    assert (load_esm2(tmp_path / "b.pt").embed(["MKV"]) == expected).all()


@pytest.mark.parametrize("target", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_rounded_once(tmp_path, source, target):
    """Also by way of fp32, in pieces."""
    tensors = tiny_esm2(tmp_path / "a.safetensors", layers=1, width=768, heads=12)
    tensors = {name: tensor.to(source) for name, tensor in tensors.items()}
    publish_fair(tmp_path / "a.pt", tensors, {**TINY, **SIZES})
    model = load_esm2(tmp_path / "a.pt", "cpu", target, plain=True).model
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[target]
    up = tensors["layers.0.fc1.weight"]
    assert model.layers[0].up.weight.numel() > 2**17
    assert torch.equal(model.layers[0].up.weight, up.float().to(dtype))
    assert torch.equal(
        model.layers[0].qkv.weight[768:1536],
        tensors["layers.0.self_attn.k_proj.weight"].float().to(dtype),
    )
    assert model.rotary.inv_freq.dtype == torch.float32


SIZES = {"num_layers": 1, "embed_dim": 768, "attention_heads": 12}


# The publishers' own code as oracle


def random_proteins(count=6, seed=3):
    letters = random.Random(seed)
    return [
        "".join(letters.choices("LAGVSERTIDPKQNFYMHWCXBUZO", k=5 + 9 * k)) for k in range(count)
    ]


def alone(encoder, hidden_of):
    """Largest difference to hidden_of, sequence by sequence, of hidden states."""
    worst = 0.0
    for ids in encoder.ids(random_proteins()):
        ids_1T = torch.from_numpy(ids)[None]
        with torch.no_grad():
            theirs = hidden_of(ids_1T)
        worst = max(worst, (encoder.hidden(ids_1T) - theirs).abs().max().item())
    return worst


@pytest.mark.parametrize("layout", ["single", "shards", "bin", "masked lm"])
def test_transformers(tmp_path, layout):
    from transformers import EsmConfig, EsmForMaskedLM, EsmModel

    torch.manual_seed(5)
    config = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=160,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        layer_norm_eps=1e-5,
        initializer_range=0.2,
    )
    masked = layout == "masked lm"
    model = (EsmForMaskedLM(config) if masked else EsmModel(config)).eval()
    theirs = model.esm if masked else model
    size = "40KB" if layout == "shards" else "1GB"
    model.save_pretrained(tmp_path / "esm2", max_shard_size=size)
    files = {path.name for path in (tmp_path / "esm2").iterdir()}
    assert ("model.safetensors.index.json" in files) == (layout == "shards")
    if layout == "bin":  # as its versions before 5 saved it
        (tmp_path / "esm2" / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "esm2" / "pytorch_model.bin")
    encoder = load_esm2(tmp_path / "esm2")

    def hidden(ids_1T):
        return theirs(ids_1T, attention_mask=torch.ones_like(ids_1T)).last_hidden_state

    assert alone(encoder, hidden) <= tolerances.ORACLE_FP32


@pytest.mark.parametrize("sizes", [(6, 64, 4), (3, 40, 2)], ids=str)
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_fair_esm(tmp_path, sizes, dropout, dtype):
    """A file that fair-esm's own loader accepts, against what that loads."""
    import esm

    torch.manual_seed(7)
    layers, width, heads = sizes
    made = esm.model.esm2.ESM2(layers, width, heads, token_dropout=dropout).to(dtype)
    state = dict(made.state_dict())
    regression = {n: state.pop(n).float() for n in list(state) if n.startswith("contact_head")}
    path = tmp_path / "esm2_tiny.pt"
    torch.save(fair_checkpoint(state, *sizes, token_dropout=dropout), path)
    torch.save({"model": regression}, tmp_path / "esm2_tiny-contact-regression.pt")
    with torch.serialization.safe_globals([Namespace]):
        theirs, _ = esm.pretrained.load_model_and_alphabet(str(path))
    theirs.eval()
    encoder = load_esm2(path)

    def hidden(ids_1T):
        return theirs(ids_1T, repr_layers=[layers])["representations"][layers]

    assert alone(encoder, hidden) <= tolerances.ORACLE_FP32


# Pickles that want to run something


class Runs:
    """Runs a command when it is unpickled by a reader that lets it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Hides(Namespace):
    """An allowed class whose state is to run a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return Namespace, (), {"token_dropout": Runs(self.command)}


def packed(path, program):
    """A container of torch whose pickle is this program."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("kind", [Runs, Hides])
def test_a_pickle_that_runs_something(tensors, tmp_path, kind, stream):
    marker = tmp_path / "ran"
    saved = fair_checkpoint(tensors, 2, 16, 2)
    saved["cfg"]["model"].token_dropout = kind(f"touch {marker}")
    path = tmp_path / "evil.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=not stream)
    folder = publish(tmp_path / "evil", {**tensors, "extra": kind(f"touch {marker}")}, {}, "bin")
    for file, said in ((path, refused(path)), (folder, refused(folder))):
        assert "names posix.system, which weights do not need" in said, file
    assert not marker.exists()
    if not stream:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("data.pkl")]
            program = archive.read(names[0])
        assert b"posix\nsystem" in program


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("argparse", "_os.system"),
        ("argparse", "Namespace.__init__"),
        ("builtins", "eval"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch.storage", "_load_from_bytes"),
        ("virnucpro.encoders", "load_esm2"),
    ],
)
def test_a_name_behind_an_allowed_one(tmp_path, module, name):
    marker = tmp_path / "ran"
    command = f"open({str(marker)!r}, 'w')" if name == "eval" else f"touch {marker}"
    text = command.encode()
    head = f"c{module}\n{name}\n".encode()
    program = b"\x80\x02" + head + b"X" + len(text).to_bytes(4, "little") + text + b"\x85R."
    path = tmp_path / "evil.pt"
    packed(path, program)
    said = refused(path)
    assert f"names {name if module == 'builtins' else f'{module}.{name}'}, which" in said
    assert not marker.exists()


def test_a_newer_protocol(tensors, tmp_path):
    """Its names are not followed at all."""
    marker = tmp_path / "ran"
    for extra in (3, Runs(f"touch {marker}")):
        saved = fair_checkpoint(tensors, 2, 16, 2, extra=extra)
        torch.save(saved, tmp_path / "a.pt", pickle_protocol=4)
        said = refused(tmp_path / "a.pt")
        assert "its pickle has operand 149, which weights do not need" in said
    assert not marker.exists()


# Files that are not what they should be


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("kept", [0, 1, 3, 9, 100, 0.3, 0.9, 0.9999])
def test_truncated(tensors, tmp_path, kept, stream):
    path = publish_fair(tmp_path / "esm2.pt", tensors, TINY, stream)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    assert "truncated or damaged; fetch it again" in refused(path)


@pytest.mark.parametrize("kind", ["zip", "stream", "safetensors"])
def test_flipped_bits(tensors, tmp_path, kind):
    """A bit of a number cannot be told from the file alone; any other is refused by name, or moot.

    Whole files are told by their digest in the bundle.
    """
    path = tmp_path / "esm2.pt"
    if kind == "safetensors":
        path = tmp_path / "tiny.safetensors"
    else:
        publish_fair(path, tensors, TINY, stream=kind == "stream")
    whole = path.read_bytes()
    begin = whole.find(b"archive/data.pkl") if kind == "zip" else 0
    begin = max(begin, 0)
    dice = random.Random(1)
    refusals = 0
    for _ in range(250):
        damaged = bytearray(whole)
        damaged[begin + dice.randrange(5000)] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        try:
            load_esm2(path)
        except BundleError as error:
            refusals += 1
            said = str(error)
            assert said.startswith(f"{path}: ")
            assert "\n" not in said
    assert refusals >= 125


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert "run `git lfs pull`" in refused(path)
    path.write_bytes(b"<!DOCTYPE html><html>Please log in</html>")
    assert "not a safetensors file nor one that torch saved" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a zip archive, not weights" in refused(path)
    torch.save([torch.zeros(2)], path)
    assert "holds a list, not weights by their names" in refused(path)
    torch.save({"epoch": 3, "state": {"a": torch.zeros(1)}}, path)
    assert "epoch, state in it are not weights" in refused(path)
    for strange in (torch.eye(3).to_sparse(), torch.zeros(3, device="meta")):
        torch.save({"a": torch.zeros(1), "strange\n": strange}, path)
        assert "'strange\\n' in it are not weights" in refused(path)
    torch.save({"a": torch.zeros(1)}, path)
    assert "holds no config of an encoder" in refused(path)


def test_other_files_of_fair_esm(tensors, tmp_path):
    path = tmp_path / "a.pt"
    for saved in (
        {"model": {"contact_head.regression.weight": torch.zeros(1, 4)}},
        {"args": Namespace(arch="roberta_large"), "model": dict(tensors)},
        {"cfg": {"model": {"encoder_layers": 2}}, "model": dict(tensors)},
    ):
        torch.save(saved, path)
        assert "without the sizes of an ESM-2 (cfg)" in refused(path)
    saved = fair_checkpoint(tensors, 2, 16, 2)
    del saved["cfg"]["model"].encoder_embed_dim
    torch.save(saved, path)
    assert "not that of an ESM-2" in refused(path)
    torch.save(fair_checkpoint(tensors, 3, 16, 2), path)
    assert "lacks layers.2.fc1.bias" in refused(path)
    with pytest.raises(BundleError, match="not that of a DNABERT-S"):
        load_dnabert_s(path)


# Shards


@pytest.mark.parametrize("kind", ["safetensors shards", "bin shards"])
def test_shards_that_do_not_fit_their_index(tensors, tmp_path, kind):
    folder = publish(tmp_path / "esm2", tensors, TINY, kind)
    index = next(folder.glob("*.index.json"))
    shards = sorted(folder.glob("*-of-*"))
    expected = load_esm2(tmp_path / "tiny.safetensors").embed(["MKV"])
    assert (load_esm2(folder).embed(["MKV"]) == expected).all()

    second = dict(list(tensors.items())[1::3])
    name, tensor = second.popitem()
    write(shards[1], second)
    said = refused(folder)
    assert said.startswith(f"{shards[1]}: lacks {name}, which {index.name} says it holds")
    write(shards[1], {**second, name: tensor})
    assert (load_esm2(folder).embed(["MKV"]) == expected).all()

    shards[2].write_bytes(shards[2].read_bytes()[:-50])
    assert refused(folder).startswith(f"{shards[2]}: ")
    shards[2].unlink()
    said = refused(folder)
    assert f"its shards {shards[2].name} are not there" in said


@pytest.mark.parametrize(
    "shard", ["../other/a.bin", "/etc/passwd", "..", ".", "", "sub/a.bin", "sub\\a.bin", 3, None]
)
def test_shards_elsewhere(tensors, tmp_path, shard):
    folder = publish(tmp_path / "esm2", tensors, TINY, "bin shards")
    index = folder / "pytorch_model.bin.index.json"
    found = json.loads(index.read_text())
    found["weight_map"]["embed_tokens.weight"] = shard
    index.write_text(json.dumps(found))
    said = refused(folder)
    assert f"names the shard {shard!r}, not the plain name of a file beside it" in said


def test_indexes_that_are_none(tensors, tmp_path):
    folder = publish(tmp_path / "esm2", tensors, TINY, "bin shards")
    index = folder / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": ')
    assert "is not JSON" in refused(folder)
    for text in ("{}", '{"weight_map": {}}', '{"weight_map": []}'):
        index.write_text(text)
        assert "holds no weight_map" in refused(folder)


# Memory

PROGRAM = """
import re, sys, threading, time
from pathlib import Path
from virnucpro.encoders import load_esm2

def anonymous_bytes():
    found = re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found.group(1))

path, tiny = sys.argv[1:]
load_esm2(tiny, "cpu", "bf16")
before, peak, done = anonymous_bytes(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous_bytes())
        time.sleep(0.001)

watching = threading.Thread(target=watch)
watching.start()
encoder = load_esm2(path, "cpu", "bf16")
done.set()
watching.join()
found = max(peak[0], anonymous_bytes()) - before
plain = load_esm2(path, "cpu", "bf16", plain=True).model
print(found, sum(t.nbytes for t in plain.state_dict().values()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("kind", ["fair", "safetensors", "bin shards", "stream"])
def test_memory_of_loading(tmp_path, kind):
    """fp32 files into bf16: the anonymous memory is that of bf16 weights, and little more.

    A stream cannot be mapped: it is in memory as a whole, and goes tensor by tensor.
    """
    config = {"num_layers": 2, "embed_dim": 1024, "attention_heads": 16}
    tensors = tiny_esm2(tmp_path / "big.safetensors", layers=2, width=1024, heads=16)
    tiny_esm2(tmp_path / "tiny.safetensors", layers=1)
    if kind == "stream":
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    if kind in ("fair", "stream"):
        path = publish_fair(tmp_path / "esm2.pt", tensors, config, stream=kind == "stream")
    else:
        path = publish(tmp_path / "esm2", tensors, config, kind)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "tiny.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, size = map(int, done.stdout.split())
    assert size > 45e6
    # Each thread has the tensor that it copies in memory, where that is no part of a mapped file.
    largest = max(tensor.nbytes for tensor in tensors.values())
    in_flight = cpu_count() * largest if kind == "stream" else 0
    assert peak < 1.3 * size + in_flight
