"""ESM-2 by other programs beside ours, on random weights.

    python bench/rivals.py [--device cuda] [--esm 8M] [--tokens 8000] [--repeats 5]

transformers and fair-esm are timed where they are installed, esm-cpp (fp32 and int8, on a CPU) too;
it wants numpy below 2. Each line is the median of several runs over the same random sequences, as
in `virnucpro bench`; every case is timed after the one before in this process.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from virnucpro.cli.bench import COLUMNS, line_of
from virnucpro.encoders.batching import token_batches
from virnucpro.encoders.esm2 import Esm2
from virnucpro.encoders.precision import dtype_of
from virnucpro.encoders.weights.layouts import ESM2_HUGGING_FACE
from virnucpro.errors import SettingsError
from virnucpro.measure.speed import ESM2_SIZES, Bench, Case, Rival, random_weights
from virnucpro.tokens import Ids, padded

# The published program calls fair-esm in fp32 with so many tokens a batch.
FAIR_TOKENS = 2048
TRANSFORMERS_TOKENS = 16_384


def _batched(
    run: Callable[[Tensor], object], budget: int, pad: int, device: torch.device
) -> Callable[[Sequence[Ids]], object]:
    """A loop over batches as others write it: padded, sent, run."""

    def encode(ids: Sequence[Ids]) -> None:
        for batch in token_batches([len(sequence) for sequence in ids], budget):
            ids_BT = torch.from_numpy(padded([ids[row] for row in batch], pad)).to(device)
            with torch.no_grad():
                run(ids_BT)

    return encode


def _fair(bench: Bench, case: Case) -> Callable[[Sequence[Ids]], object]:
    """fair-esm's ESM2 as the published program calls it."""
    from esm import Alphabet
    from esm.model.esm2 import ESM2

    config = ESM2_SIZES[bench.esm2]
    model = random_weights(
        lambda: ESM2(
            config.layers, config.width, config.heads, Alphabet.from_architecture("ESM-1b")
        ),
        dtype_of(case.precision),
        bench.device,
    )
    for layer in model.layers:  # its buffer was made without storage
        width = config.width // config.heads
        pair = torch.arange(0, width, 2, device=bench.device).float()
        layer.self_attn.rot_emb.inv_freq = 10000 ** (-pair / width)

    def run(ids_BT: Tensor) -> Tensor:
        found: Tensor = model(ids_BT, repr_layers=[config.layers])["representations"][config.layers]
        return found.mean(1)

    return _batched(run, FAIR_TOKENS, 1, bench.device)


def _transformers(bench: Bench, case: Case) -> Callable[[Sequence[Ids]], object]:
    """transformers' EsmModel, with whatever attention it takes by itself."""
    from transformers import EsmConfig, EsmModel

    config = ESM2_SIZES[bench.esm2]
    made = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.ffn,
        position_embedding_type="rotary",
        token_dropout=True,
        max_position_embeddings=1026,
    )
    torch.manual_seed(7)
    with bench.device:
        model = EsmModel(made, add_pooling_layer=False).to(dtype_of(case.precision)).eval()
    return _batched(
        lambda ids_BT: model(ids_BT, attention_mask=(ids_BT != 1).long()).last_hidden_state.mean(1),
        TRANSFORMERS_TOKENS if bench.device.type == "cuda" else FAIR_TOKENS,
        1,
        bench.device,
    )


def _esm_cpp(bench: Bench, case: Case) -> Callable[[Sequence[Ids]], object]:
    """esm-cpp's engine for processors, with all sequences at once as its manual says; it computes
    logits, whose head is 1.5 % of the operations at 8M and less above."""
    if case.precision not in ("fp32", "int8") or bench.device.type != "cpu":
        raise SettingsError("esm-cpp computes in fp32 and int8, on a CPU")
    # Read at its first model.
    os.environ["ESM_NUM_THREADS"] = str(torch.get_num_threads())
    import esm_cpp
    from safetensors.torch import save_file

    config = ESM2_SIZES[bench.esm2]
    weights = random_weights(lambda: Esm2(config), torch.float32, bench.device).state_dict()
    tensors = {
        f"esm.{theirs}": part.contiguous()
        for ours, tensor in weights.items()
        if ours != "rotary.inv_freq"
        for theirs, part in _parts(ESM2_HUGGING_FACE.sources(ours), tensor)
    }
    pair = torch.arange(0, config.width // config.heads, 2) * config.heads / config.width
    for layer in range(config.layers):
        name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        tensors[name] = 10000**-pair
    head = nn.ModuleDict(
        {
            "dense": nn.Linear(config.width, config.width),
            "layer_norm": nn.LayerNorm(config.width),
            "decoder": nn.Linear(config.width, 33, bias=False),
        }
    )
    tensors |= {f"lm_head.{name}": tensor for name, tensor in head.state_dict().items()}
    tensors["lm_head.bias"] = torch.zeros(33)
    with TemporaryDirectory() as folder:
        save_file(tensors, f"{folder}/model.safetensors")
        model = esm_cpp.Model.load_from_safetensors(f"{folder}/model.safetensors")
    if case.precision == "int8":
        model.quantize_weights()
    return lambda ids: model.forward_scheduled([row.astype(np.int32) for row in ids])


def _parts(names: Sequence[str], tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    return zip(names, tensor.chunk(len(names)), strict=True)


RIVALS = {
    "transformers": Rival(_transformers, TRANSFORMERS_TOKENS),
    "fair-esm": Rival(_fair, FAIR_TOKENS),
    "esm-cpp": Rival(_esm_cpp, 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--esm", choices=ESM2_SIZES, default="8M")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()
    device = torch.device(words.device)
    bench = Bench(device, words.esm, "tiny", words.tokens, words.repeats, RIVALS)
    half = "fp32" if device.type == "cpu" else "bf16"
    cases = [("ours", half), ("transformers", half), ("fair-esm", "fp32"), ("esm-cpp", "fp32")]
    cases.append(("esm-cpp", "int8"))
    print(COLUMNS)
    for reading in bench.readings([Case("esm2", *case) for case in cases]):
        print(line_of(reading))


if __name__ == "__main__":
    main()
