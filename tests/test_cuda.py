"""On a GPU: every kernel and precision, streams, memory that runs out, and what the device ran."""

import json
import subprocess
import sys
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import tolerances
from chunk_codons import codons_of
from command import dna, table
from encoder_examples import golden_examples, tiny_esm2, worst_error
from frame_bundles import CHUNK_NT, genes, overflowing, small_bundle, written
from virnucpro.bundle import load
from virnucpro.classifiers.protein_kmers import protein_kmers_of
from virnucpro.devices import memory
from virnucpro.devices.compute import Compute
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.encoders.attention import (
    BACKENDS,
    Mask,
    attention,
    backend_for,
    kernel_for,
    mask_of,
    observing,
    why_not,
)
from virnucpro.encoders.copies import SLOTS, CopyBuffers
from virnucpro.encoders.kernels import rows as rowwise
from virnucpro.errors import OutOfMemory, SettingsError
from virnucpro.run.predict import predict
from virnucpro.tokens import padded, protein_ids

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
MODELS = {
    "esm2": (load_esm2, "esm2_fair_layout"),
    "dnabert_h12": (load_dnabert_s, "dnabert_h12"),
    "dnabert_h8": (load_dnabert_s, "dnabert_h8"),
}
PRECISIONS = ("fp32", "bf16", "fp16", "fp8")
# What the device calls its kernels.
KERNEL_WORDS = {
    "FlashAttention-2": "flash_fwd",
    "cuDNN flash": "cudnn",
    "memory-efficient": "fmha_cutlass",
    "Triton flash": "_attend_rows",
}


@pytest.fixture(autouse=True)
def gpu(request):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")


def loaded(golden, name, precision, attention="auto"):
    load, weights = MODELS[name]
    path = golden / f"{weights}.weights.safetensors"
    return load(path, "cuda", precision, compute=Compute(attention=attention))


def examples_of(golden, name):
    found = golden_examples(golden / f"{name}.examples.safetensors")
    return [type(e)(e.ids, e.hidden.cuda(), e.mean.cuda()) for e in found]


def bound(name, precision):
    family = "esm2" if name == "esm2" else "dnabert_s"
    if precision == "fp32":
        return tolerances.BATCH_FP32[family]
    if precision == "fp8" and family == "esm2":
        return tolerances.GOLDEN_FP8
    return tolerances.GOLDEN_HALF[family, precision.replace("fp8", "bf16")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", list(MODELS))
def test_golden_sequences_with_every_kernel(golden, name, precision, backend):
    """TRAP N1, N2.

    Together and alone; a kernel that cannot run says so and nothing runs instead. To DNABERT-S
    flash means any fused kernel with its bias.
    """
    dtype = {"fp32": torch.float32, "fp16": torch.float16}.get(precision, torch.bfloat16)
    biased = name != "esm2"
    if why_not(backend_for(backend, biased), CUDA, dtype, biased):
        with pytest.raises(SettingsError, match=f"kernel {backend} cannot be used here"):
            loaded(golden, name, precision, backend)
        return
    encoder = loaded(golden, name, precision, backend)
    examples = examples_of(golden, name)
    dtypes = [weight.dtype for weight in _module(encoder).state_dict().values()]
    assert worst_error(encoder, examples) <= bound(name, precision)
    assert max(worst_error(encoder, [e]) for e in examples) <= bound(name, precision)
    assert [weight.dtype for weight in _module(encoder).state_dict().values()] == dtypes
    assert not any("unknown" in seen for seen in encoder.kernels_seen), encoder.kernels_seen
    if biased and backend == "flash":
        assert all(seen.endswith("with bias") for seen in encoder.kernels_seen)


def _module(encoder):
    return getattr(encoder.model, "model", encoder.model)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_has_the_same_bits_each_time(golden, name, precision):
    encoder = loaded(golden, name, precision)
    ids = [e.ids for e in examples_of(golden, name)]
    ids_BT = torch.from_numpy(padded(ids, encoder.model.pad))
    first = encoder.hidden(ids_BT)
    assert all(torch.equal(first, encoder.hidden(ids_BT)) for _ in range(10))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", ["auto", "flash", "cudnn", "efficient", "math"])
def test_a_batch_equals_each_row_alone(golden, precision, backend):
    """TRAP N8, N9."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16}.get(precision, torch.bfloat16)
    if why_not(backend, CUDA, dtype, False):
        with pytest.raises(SettingsError, match=f"kernel {backend} cannot be used here"):
            loaded(golden, "esm2", precision, backend)
        return
    encoder = loaded(golden, "esm2", precision, backend)
    examples = examples_of(golden, "esm2")
    together = encoder.pooled(torch.from_numpy(padded([e.ids for e in examples], 1)))
    limit = {"fp32": tolerances.ESM2_GOLDEN_FP32, "fp8": tolerances.BATCH_FP8}
    for row, example in enumerate(examples):
        alone = encoder.pooled(torch.from_numpy(example.ids)[None])[0]
        error = (together[row] - alone).abs().max()
        assert error <= limit.get(precision, tolerances.BATCH_BF16["esm2"])


@pytest.mark.parametrize("width", [80, 96, 768, 2560, 3072, 10240])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, rowwise.FP8])
def test_row_kernels_are_torchs_operations(width, dtype):
    torch.manual_seed(width)
    x, delta, shift, weight, bias = (
        torch.randn(*shape) for shape in ((70, width), (70, width), (width,), (width,), (width,))
    )

    def both(operation, *tensors, **words):
        found = []
        for place in ("cpu", "cuda"):
            given = [t.clone().to(place) for t in tensors]
            there = {k: v.to(place) if isinstance(v, torch.Tensor) else v for k, v in words.items()}
            rows, scale = operation(*given, **there)
            whole = rows.float() if scale is None else rows.float() * scale
            found.append((whole.cpu(), given[0].cpu()))
        return found

    step = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype, 2**-3)
    for keep in (False, True):
        words = {"shift_C": shift, "delta_NC": delta.bfloat16(), "keep": keep}
        (plain, kept), (found, kept_there) = both(
            lambda x, w, b, keep=keep, **more: rowwise.norm(x, w, b, 1e-5, dtype, **more),
            x, weight, bias, **words,
        )  # fmt: skip
        assert (plain - found).abs().max() <= step * plain.abs().max()
        assert (kept - kept_there).abs().max() <= 1e-5
    for gelu, gated in ((True, False), (True, True), (False, False)):
        (plain, _), (found, _) = both(
            lambda x, gelu=gelu, gated=gated: rowwise.activate(x, dtype, gelu=gelu, gated=gated),
            2 * x,
        )
        assert (plain - found).abs().max() <= step * plain.abs().max()


@pytest.mark.parametrize("width", [20, 48, 80, 320, 768, 2560])
@pytest.mark.parametrize("keep", [False, True])
def test_rows_are_read_by_all_before_one_writes_to_them(width, keep):
    """Pieces of a row that are shorter than a program has threads are read several times."""
    torch.manual_seed(width)
    x, delta = (torch.randn(20_000, width, device=CUDA) for _ in range(2))
    weight, bias = torch.randn(2, width, device=CUDA)
    delta = delta.bfloat16()
    expected = F.layer_norm(x + delta, (width,), weight, bias)
    for _ in range(20):
        given = x.clone()
        words = {"delta_NC": delta, "keep": keep}
        rows, _ = rowwise.norm(given, weight, bias, 1e-5, torch.float32, **words)
        assert (rows - expected).abs().max() <= 2e-5
        assert (given - (expected if keep else x + delta)).abs().max() <= 2e-5


def ragged(count, seed=3):
    random = np.random.default_rng(seed)
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    return [protein_ids("".join(random.choice(letters, n))) for n in random.integers(1, 60, count)]


@pytest.mark.parametrize("pinned", [False, True])
def test_streams_change_nothing_over_a_thousand_ragged_batches(golden, pinned):
    """TRAP N12."""
    ids = ragged(6000)
    rows = {}
    for streams in (False, True):
        encoder = loaded(golden, "esm2", "bf16")
        encoder.streams, encoder.pinned, encoder.batch_tokens = streams, pinned, 128
        rows[streams] = encoder.rows(ids)
        assert encoder.forwards >= 1000
    assert torch.equal(rows[False], rows[True])
    assert encoder.padding < 0.05


def test_room_that_work_under_way_writes_to_is_waited_for():
    """TRAP N12.

    The allocator gives freed room again at once, while the device may still write to it.
    """
    ids_BT = np.arange(4096, dtype=np.int64).reshape(64, 64)
    CopyBuffers(CUDA, 4096, pinned=True, streams=True)  # to page-lock memory waits for the device
    for streams in (True, True, False):  # the first loads kernels, which waits, too
        held = [torch.empty(4096, dtype=torch.int64, device=CUDA) for _ in range(SLOTS)]
        torch.cuda.synchronize()
        torch.cuda._sleep(100_000_000)
        for room in held:
            room.fill_(-1)
        places = {room.data_ptr() for room in held}
        del held, room
        buffers = CopyBuffers(CUDA, 4096, pinned=True, streams=streams)
        assert places & {slot.there.data_ptr() for slot in buffers._slots}
        for _ in range(SLOTS):
            with buffers.sent(ids_BT) as there_BT:
                assert np.array_equal(there_BT.clone().cpu().numpy(), ids_BT)


def test_a_buffer_is_not_written_while_it_is_computed_with():
    """TRAP N12."""
    buffers = CopyBuffers(CUDA, 4096, pinned=True, streams=True)
    found = []
    for turn in range(3 * SLOTS):
        with buffers.sent(np.full((64, 64), turn, np.int64)) as there_BT:
            torch.cuda._sleep(20_000_000)
            found.append(there_BT.clone())
    assert [int(there.unique()) for there in found] == list(range(3 * SLOTS))


def test_the_host_waits_at_most_once_a_batch(golden):
    """TRAP R9."""
    encoder = loaded(golden, "esm2", "bf16")
    encoder.batch_tokens = 256
    ids = ragged(300)
    encoder.rows(ids)
    before = encoder.forwards
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # setting the mode itself warns
        torch.cuda.set_sync_debug_mode("warn")
        try:
            encoder.rows(ids)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "synchroniz" in str(w.message)]
    assert encoder.forwards - before > 20
    assert len(waits) <= 3, [str(w.message) for w in waits]


def test_a_batch_that_does_not_fit_is_halved(tmp_path):
    tiny_esm2(tmp_path / "m.safetensors", layers=2, width=256, heads=4)
    encoder = load_esm2(tmp_path / "m.safetensors", "cuda", "bf16")
    ids = [*map(protein_ids, (f"M{k:b}".replace("0", "A").replace("1", "K").ljust(58, "L")
                              for k in range(4000)))]  # fmt: skip
    expected = encoder.rows(ids)
    whole = encoder.batch_tokens
    del encoder
    encoder = load_esm2(tmp_path / "m.safetensors", "cuda", "bf16")
    encoder.batch_tokens = 4 * whole
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved(CUDA)
    torch.cuda.set_per_process_memory_fraction((held + (96 << 20)) / total)
    try:
        rows = encoder.rows(ids)
        assert encoder.batch_tokens < 4 * whole
        assert (rows - expected).abs().max() <= tolerances.BATCH_BF16["esm2"]
        ballast = []
        for size in (2 << 20, 512 << 10, 4 << 10):
            with suppress(torch.OutOfMemoryError):
                while True:
                    ballast.append(torch.empty(size, dtype=torch.uint8, device=CUDA))
        with pytest.raises(OutOfMemory, match=r"a batch of one sequence, .*allocated.*free") as end:
            encoder.rows(ids[:50])
        assert end.value.exit_code == 4
    finally:
        ballast = []
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(encoder.rows(ids[:50]), encoder.rows(ids[:50]))


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "auto"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_the_name_is_that_of_the_kernel_on_the_device(backend, biased, padded):
    """TRAP N1."""
    q, k, v = (torch.randn(4, 2, 40, 64, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    keep_BT = torch.ones(4, 40, dtype=torch.bool, device=CUDA)
    if padded:
        keep_BT[1, 9:] = False
    mask = mask_of(keep_BT, torch.tensor([0.5, 0.1], device=CUDA) if biased else None, padded)
    seen = {}
    if why_not(backend, CUDA, torch.bfloat16, biased):
        refused = pytest.raises(SettingsError, match=f"kernel {backend} cannot be used here")
        with observing(seen), refused:
            attention(q, k, v, mask, backend=backend)
        assert not seen
        return
    with observing(seen):
        found = attention(q, k, v, mask, backend=backend)
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        attention(q, k, v, mask, backend=backend)
        torch.cuda.synchronize()
    ran = " ".join(event.key for event in trace.key_averages())
    [name] = seen.values()
    words = {word for known, word in KERNEL_WORDS.items() if name.startswith(known)}
    assert {word for word in KERNEL_WORDS.values() if word in ran} == words, (name, ran)
    assert (name == "math") == (backend == "math")
    plain = attention(q.double(), k.double(), v.double(), mask, backend="math")
    kept = keep_BT[:, None, :, None].expand_as(plain)
    assert (found - plain)[kept].abs().max() <= 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("width", "tokens"), [(16, 3), (24, 64), (64, 65), (64, 330), (128, 168)])
@pytest.mark.parametrize("rotary", [False, True])
def test_our_attention_is_that_written_out(dtype, width, tokens, rotary):
    """Positions, ALiBi, pads; a row has the same bits alone; pads come out as zeros."""
    torch.manual_seed(width + tokens)
    heads, lengths = 4, [tokens, max(1, tokens // 3), 1]
    rows = torch.randn(3 * tokens, 3 * heads * width, device=CUDA).to(dtype)
    keep_BT = torch.arange(tokens, device=CUDA) < torch.tensor(lengths, device=CUDA)[:, None]
    slopes_H = None if rotary else torch.rand(heads, device=CUDA)
    turn = None
    if rotary:
        angle_TD = torch.rand(tokens, width // 2, device=CUDA) * 6
        turn = angle_TD.cos(), angle_TD.sin()

    def heads_of(rows):
        return rows.view(-1, tokens, 3, heads, width).permute(2, 0, 3, 1, 4)

    mask = mask_of(keep_BT, slopes_H, True, turn)
    found = attention(*heads_of(rows), mask, backend="triton")
    turned = rows.clone()
    if turn:
        rowwise.rotate_(turned, 2 * heads * width, *turn)
    plain = attention(*heads_of(turned).double(), mask.turned, backend="math")
    kept = keep_BT[:, None, :, None].expand_as(plain)
    step = {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    assert (found - plain)[kept].abs().max() <= 4 * step * plain[kept].abs().max()
    assert (found[~kept] == 0).all()
    for row, length in enumerate(lengths):
        alone = Mask(None, slopes_H, length, turn and tuple(x[:length] for x in turn))
        short = [x[row : row + 1, :, :length] for x in heads_of(rows)]
        assert torch.equal(attention(*short, alone, backend="triton")[0], found[row, :, :length])


def test_more_heads_than_a_grid_has_rows():
    """As short reads give the embedded bundles: 20,000 rows of 4 heads."""
    torch.manual_seed(3)
    q, k, v = (torch.randn(20_000, 4, 5, 16, device=CUDA).half() for _ in range(3))
    found = attention(q, k, v, Mask(None, None, 5), backend="triton")
    plain = attention(q[-9:].double(), k[-9:].double(), v[-9:].double(), Mask(None, None, 5),
                      backend="math")  # fmt: skip
    assert (found[-9:] - plain).abs().max() <= 0.01


def test_what_is_trained_has_gradients():
    """Our attention has none: auto takes another where one is asked for, a wish is refused."""
    q = torch.randn(2, 4, 5, 16, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
    mask = Mask(None, None, 5)
    attention(q, q, q, mask, backend="auto").sum().backward()
    assert q.grad is not None
    with pytest.raises(SettingsError, match="triton has no gradients"):
        attention(q, q, q, mask, backend="triton")
    with torch.no_grad():
        assert kernel_for("auto", q, mask) == "triton"


def test_heads_too_wide_for_our_attention():
    """TRAP N2."""
    q = torch.ones(1, 1, 5, 256, device=CUDA, dtype=torch.bfloat16)
    mask = Mask(None, None, 5)
    with pytest.raises(SettingsError, match="triton takes heads of a width up to 128, these"):
        attention(q, q, q, mask, backend="triton")
    assert kernel_for("auto", q, mask) == "flash"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "width", "inner"), [(1, 64, 128), (300, 768, 3072), (77, 96, 80)])
def test_a_gated_product_is_torchs(dtype, rows, width, inner):
    torch.manual_seed(rows)
    x_NC = torch.randn(rows, width).to(dtype)
    weight_XC = (torch.randn(2 * inner, width) * width**-0.5).to(dtype)
    plain = rowwise.gated_product(x_NC.float(), weight_XC.float())
    found = rowwise.gated_product(x_NC.to(CUDA), weight_XC.to(CUDA)).cpu()
    assert found.dtype == dtype
    step = {torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    assert (found - plain).abs().max() <= step * plain.abs().max()


def test_memory_is_known_and_fragments_have_a_share():
    held = torch.empty(1 << 28, dtype=torch.uint8, device=CUDA)
    before = memory.memory_of("cuda")
    assert before.allocated >= held.numel()
    assert before.free > 0
    assert 0 <= before.fragmentation < 1
    del held
    after = memory.memory_of("cuda")
    assert after.fragmentation > before.fragmentation
    assert after.peak >= before.allocated
    memory.clear_cache("cuda")
    assert memory.memory_of("cuda").reserved < after.reserved


@pytest.mark.parametrize("wanted", [False, True])
def test_expandable_segments_are_seen(wanted):
    program = (
        "from virnucpro.devices import memory\n"
        + "memory.use_expandable_segments()\n" * wanted
        + "import torch; x = torch.empty(1 << 20, device='cuda')\n"
        "print(memory.expandable_segments_seen('cuda'))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == str(wanted), run.stderr


def test_the_cache_is_cleared_at_its_interval(golden, monkeypatch):
    cleared = []
    monkeypatch.setattr("virnucpro.encoders.encoder.clear_cache", cleared.append)
    encoder = loaded(golden, "esm2", "bf16")
    encoder.batch_tokens, encoder.cache_clear_interval = 64, 5
    encoder.rows(ragged(60))
    assert len(cleared) == encoder.forwards // 5 > 1
    encoder.cache_clear_interval = 0
    encoder.rows(ragged(60))
    assert len(cleared) == encoder.forwards // 2 // 5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_embedded_bundle_scores_as_on_the_cpu(precision):
    chunks = [dna(n, seed=n) for n in range(300, 500, 7)]
    found = {}
    for place in ("cpu", "cuda"):
        classifier = load("mini-500").classifier(place, precision)
        found[place] = classifier.score(chunks).p_virus
    limit = {"fp32": 1e-5, "bf16": 0.02}[precision]
    assert np.abs(found["cpu"] - found["cuda"]).max() <= limit
    assert not any("unknown" in name for name in classifier.attention.values())


def test_protein_kmers_are_found_as_on_the_cpu():
    kmers = protein_kmers_of(load("mini-500"), load("mini-500").part("codon")["groups"])
    shape, codons = kmers.shape, codons_of([dna(n, seed=n) for n in range(60, 500, 7)])
    hashes, sampled = shape.hashes(shape.letters(codons))
    held = np.full(1 << 20, 0, np.uint8)
    bits = np.unpackbits(held, bitorder="little")
    bits[shape.bits(hashes[sampled], len(bits)).flatten().numpy()] = 1
    kmers.virus_filter = torch.from_numpy(np.packbits(bits, bitorder="little"))
    expected = kmers.found(codons)
    assert expected[:, 0].sum() > 100
    there = kmers.to("cuda")
    assert torch.equal(shape.hashes(shape.letters(codons.cuda()))[0].cpu(), hashes)
    assert torch.equal(there.found(codons.cuda()).cpu(), expected)


# Whole runs


@pytest.fixture(scope="module")
def bundle(golden, tmp_path_factory):
    return small_bundle(golden, tmp_path_factory.mktemp("bundle"), CHUNK_NT)


@pytest.fixture(scope="module")
def contigs(tmp_path_factory):
    return written(tmp_path_factory.mktemp("in") / "in.fa", genes(30, 2000, seed=8))


def p_virus_of(outcome):
    return [float(row["p_virus"] or "nan") for row in table(outcome.files.calls)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_predict_computes_here_and_flags_change_nothing(bundle, contigs, tmp_path, precision):
    """TRAPS R1, N1, D1, N12."""
    cpu = predict(contigs, bundle, tmp_path / "cpu", gpus="none", precision="fp32")
    words = {"precision": precision, "esm_batch_size": 700}
    found = predict(contigs, bundle, tmp_path / "gpu", gpus="0", **words)
    limit = {"fp32": 1e-4, "bf16": 0.1, "fp16": 0.02}[precision]
    assert np.nanmax(np.abs(np.subtract(p_virus_of(cpu), p_virus_of(found)))) <= limit
    document = json.loads(found.files.run_json.read_text())
    assert document["device"]["kind"] == "cuda"
    kernel = "memory-efficient" if precision == "fp32" else "Triton flash"
    assert document["attention"] == {"dnabert_s": f"{kernel} with bias", "esm2": kernel}
    assert document["memory"]["blocks"]["reserved_bytes"] > 0
    log = found.files.log.read_text()
    for line in ("page-locked buffers: on", "streams of their own: on", f"esm2: {kernel}"):
        assert line in log
    assert " workers: 0 " not in log
    calls = found.files.calls.read_bytes()
    for number, other in enumerate(
        (
            {"dataloader_workers": 0},
            {"dataloader_workers": 3, "cuda_streams": False},
            {"pin_memory": False, "cache_clear_interval": 1},
        )
    ):
        again = predict(contigs, bundle, tmp_path / f"{number}", gpus="0", **words, **other)
        assert again.files.calls.read_bytes() == calls
        log = again.files.log.read_text()
        assert ("streams of their own: off" in log) == ("cuda_streams" in other)
        assert ("page-locked buffers: off" in log) == ("pin_memory" in other)
        assert ("emptied every 1 batches" in log) == ("pin_memory" in other)


@pytest.mark.parametrize("capability", [None, (7, 5)])
def test_fp16_is_the_default_and_overflows_are_mended(
    golden, contigs, tmp_path, monkeypatch, capability
):
    """Also as on a T4, for which another kernel and the layers as they are written stand in."""
    esm2 = overflowing(golden / "esm2_hf_layout.weights.safetensors", tmp_path / "esm2.safetensors")
    bundle = small_bundle(golden, tmp_path / "bundle", CHUNK_NT, esm2)
    expected = predict(contigs, bundle, tmp_path / "cpu", gpus="none", precision="fp32")
    if capability is not None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    found = predict(contigs, bundle, tmp_path / "gpu", gpus="0")
    document = json.loads(found.files.run_json.read_text())
    assert document["device"]["precision"] == "fp16"
    kernel = "Triton flash" if capability is None else "memory-efficient"
    assert document["attention"] == {"dnabert_s": f"{kernel} with bias", "esm2": kernel}
    assert document["batches"]["esm2"]["widened"] > 0
    assert found.counts.failed == 0
    scores = p_virus_of(expected), p_virus_of(found)
    assert np.nanmax(np.abs(np.subtract(*scores))) <= 0.02
    calls = [[row["call"] for row in table(run.files.calls)] for run in (expected, found)]
    assert calls[0] == calls[1]


def test_encoders_that_do_not_fit_together_take_turns(bundle, contigs, tmp_path, monkeypatch):
    expected = predict(contigs, bundle, tmp_path / "both", gpus="0", precision="bf16")
    fail = iter([torch.OutOfMemoryError("CUDA out of memory.")])

    def short(*arguments, **words):
        for error in fail:
            raise error
        return load_esm2(*arguments, **words)

    monkeypatch.setattr("virnucpro.classifiers.open_frames.load_esm2", short)
    found = predict(contigs, bundle, tmp_path / "turns", gpus="0", precision="bf16")
    assert "they take turns in each block" in found.files.log.read_text()
    assert found.files.calls.read_bytes() == expected.files.calls.read_bytes()


def test_a_run_that_does_not_fit_ends_with_4_and_goes_on(golden, tmp_path):
    """TRAP R7. Frames of 1,000 residues through softmax written out, in 40 MiB."""
    directory = small_bundle(golden, tmp_path / "bundle", 3000)
    path = tmp_path / "in.fa"
    path.write_text("".join(f">{c.name}\n{c.sequence.decode()}\n" for c in genes(4, 3000, seed=4)))
    words = {"gpus": "0", "attention": "math", "precision": "fp32"}
    whole = predict(path, directory, tmp_path / "whole", **words)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    room = torch.cuda.memory_reserved(CUDA) + (40 << 20)
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        with pytest.raises(OutOfMemory, match="--batch-tokens") as end:
            predict(path, directory, tmp_path / "run", **words)
        assert end.value.exit_code == 4
        document = json.loads((tmp_path / "run" / "run.json").read_text())
        assert (document["status"], document["exit_code"]) == ("failed", 4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    again = predict(path, directory, tmp_path / "run", **words, batch_tokens=1100)
    assert again.status == "complete"
    assert np.allclose(p_virus_of(again), p_virus_of(whole), atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("bf16", 0.06)])
@pytest.mark.parametrize("rows", [1024, 2048])
def test_a_batch_of_the_small_network_is_right_at_both_ends(precision, error, rows):
    """cuDNN's convolution in fp32 gives wrong first and last rows of 2,048."""
    rng = np.random.default_rng(5)
    chunks = ["".join(rng.choice(list("ACGT"), 500)) for _ in range(rows)]
    bundle = load("mini-500")
    expected = bundle.classifier("cpu", "fp32").score(chunks).p_virus
    found = bundle.classifier("cuda", precision).score(chunks).p_virus
    assert np.abs(found - expected).max() < error
