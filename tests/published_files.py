"""Files as they were published: a pickled head of any width, and both golden encoders."""

import hashlib
import subprocess
import sys
from pathlib import Path

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


def git_blob(data: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
