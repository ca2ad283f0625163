"""The results of a run, which appear together when all are finished."""

import shutil
from pathlib import Path
from typing import Self

from virnucpro.ownership import claim
from virnucpro.run_directory import RunFiles
from virnucpro.writing import OutputFile, disk_errors, sync_folder


class Staging:
    """Public files that are put together in the scratch folder and appear when all are finished.

    outputs: takes the sha256 of each by its name, then.
    """

    def __init__(self, files: RunFiles, outputs: dict[str, str]) -> None:
        self._files = files
        self._outputs = outputs
        self._staged: dict[Path, OutputFile] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self._files.scratch, ignore_errors=True)
        with disk_errors(self._files.run_dir):
            self._files.scratch.mkdir(parents=True)
        return self

    def open(self, target: Path, first_line: bytes = b"") -> OutputFile:
        """The file that will become target: a new one, or the one that this gave before."""
        if target not in self._staged:
            self._staged[target] = OutputFile(self._files.scratch / target.name)
            self._staged[target].write(first_line)
        return self._staged[target]

    def publish(self) -> None:
        """Flushes all files to the disk, then renames them one after the other."""
        for staged in self._staged.values():
            staged.close()
        claim(self._files, [target.name for target in self._staged])
        with disk_errors(self._files.run_dir):
            for target, staged in self._staged.items():
                staged.path.replace(target)
                self._outputs[target.name] = staged.sha256
            sync_folder(self._files.run_dir)

    def __exit__(self, *_: object) -> None:
        for staged in self._staged.values():
            staged.abandon()
        shutil.rmtree(self._files.scratch, ignore_errors=True)
