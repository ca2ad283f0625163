"""A folder to work in, as a container has one."""

import os
from pathlib import Path

from command import dna, fasta


def open_folder(tmp_path: Path) -> Path:
    """The one folder to write to, with an input; whoever comes may enter."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "in.fa").write_bytes(fasta((f"s{i}", dna(700, i)) for i in range(4)))
    folder.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    return folder
