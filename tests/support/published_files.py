"""Files as they were published: a pickled head of any width, and both golden encoders."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch

from published_encoders import golden_parts, publish, publish_dnabert_s
from virnucpro.bundle.pickled_head import read_head
from virnucpro.classifiers.head import Head, head_of_state

# Run as a program, so that the class is __main__.MLPClassifier, as in the published files.
PROGRAM = """
import sys
from copy import deepcopy
import torch
from torch import nn

class MLPClassifier(nn.Module):
    def __init__(self, features, hidden, classes):
        super().__init__()
        self.hidden_layer = nn.Linear(features, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.output_layer = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.output_layer(self.dropout(torch.relu(self.bn1(self.hidden_layer(x)))))

folder, features, hidden, classes, seed = sys.argv[1], *map(int, sys.argv[2:])
torch.manual_seed(seed)
head = MLPClassifier(features, hidden, classes)
for _ in range(3):
    head(torch.randn(16, features) * 2 + 1)
head.eval()
x = torch.randn(9, features)
with torch.no_grad():
    y = head(x).softmax(-1)
for name, thing in (("head", head), ("state", head.state_dict()), ("half", deepcopy(head).half())):
    torch.save(thing, f"{folder}/{name}.pth")
    torch.save(thing, f"{folder}/{name}_old.pth", _use_new_zipfile_serialization=False)
torch.save({"x": x, "y": y}, f"{folder}/examples.pt")
"""


def pickled_heads(
    folder: Path, features: int, hidden: int = 8, classes: int = 2, seed: int = 1
) -> Path:
    """head.pth, state.pth (a state dict), half.pth (fp16); each in the old container as *_old.pth;
    examples.pt: rows x and their probabilities y."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = map(str, (features, hidden, classes, seed))
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder), *numbers], check=True)
    return folder


def head_of_pickle(path: Path) -> Head:
    """The head in a published .pth file."""
    arrays = read_head(path).arrays
    return head_of_state({name: torch.from_numpy(array) for name, array in arrays.items()})


def git_blob(data: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def published_encoders(golden: Path, folder: Path) -> dict[str, Path]:
    """Both golden encoders in the layouts of the published ones: DNABERT-S in one file with its
    tokenizer, ESM-2 in two shards with their index."""
    tensors, config = golden_parts(golden / "esm2_hf_layout.weights.safetensors")
    return {
        "dnabert_s": publish_dnabert_s(golden, folder / "dnabert"),
        "esm2": publish(folder / "esm", tensors, config, "bin shards", shards=2),
    }


REPOSITORIES = {"dnabert_s": "someone/DNABERT-tiny", "esm2": "other/esm2_tiny"}
REVISIONS = {"dnabert_s": "1" * 40, "esm2": "2" * 40}
# Pinned by the revision and its fields alone, as in the package's own catalogue.
UNHASHED = {("esm2", "config.json"), ("esm2", "pytorch_model.bin.index.json")}


def catalogue_of(
    head: Path, encoders: dict[str, Path], url: str, *, chunk_nt: int = 300, **changes
) -> dict:
    """A catalogue with one bundle, tiny-300-v1, of these very files."""
    described = {}
    for part, folder in encoders.items():
        files = []
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            known = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            files.append({"name": path.name, **({} if (part, path.name) in UNHASHED else known)})
        described[part] = {
            "part": part,
            "repository": REPOSITORIES[part],
            "revision": REVISIONS[part],
            "licence": f"licence of {part}",
            "origin": f"origin of {part}",
            "files": files,
        }
    config = json.loads((encoders["esm2"] / "config.json").read_text())
    described["esm2"]["config"] = {k: config[k] for k in ("num_hidden_layers", "hidden_size")}
    bundle = {
        "name": "tiny-300-v1",
        "description": "a tiny published model",
        "chunk_nt": chunk_nt,
        "encoders": list(described),
        "head": {
            "file": "300_model.pth",
            "url": url,
            "git_blob": git_blob(head.read_bytes()),
            "licence": "licence of the head",
            "origin": "origin of the head",
        },
    }
    return {"bundles": [bundle | changes], "encoders": described}
