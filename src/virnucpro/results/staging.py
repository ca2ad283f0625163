"""Results that appear together, when all are finished."""

import shutil
from pathlib import Path
from typing import Self

from virnucpro.results.files import RunFiles
from virnucpro.storage.atomic import OutputFile, disk_errors, sync_folder


class Staging:
    """Public files that are made in the scratch folder and appear together, for `with`.

    digests, sizes: sha256 and bytes of each by its name, once they have appeared.
    """

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._staged: dict[Path, OutputFile] = {}
        self.digests: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self._files.scratch, ignore_errors=True)
        with disk_errors(self._files.run_dir):
            self._files.scratch.mkdir(parents=True)
        return self

    def open(self, target: Path, first_line: bytes = b"") -> OutputFile:
        """Return the file that will become target: a new one, or the one returned before."""
        if target not in self._staged:
            self._staged[target] = OutputFile(self._files.scratch / target.name)
            self._staged[target].write(first_line)
        return self._staged[target]

    def publish(self) -> None:
        """Flush all files to the disk, then rename them one after the other."""
        for staged in self._staged.values():
            staged.close()
        with disk_errors(self._files.run_dir):
            for target, staged in self._staged.items():
                self.sizes[target.name] = staged.path.stat().st_size
                staged.path.replace(target)
                self.digests[target.name] = staged.sha256
            sync_folder(self._files.run_dir)

    def __exit__(self, *_: object) -> None:
        for staged in self._staged.values():
            staged.abandon()
        shutil.rmtree(self._files.scratch, ignore_errors=True)
