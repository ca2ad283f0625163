"""The run directory: what lies in it, whose it is, and how a file gets into it.

Nothing under a public name is ever half written. Blocks, and tables in the making, lie in a
hidden folder; a finished file is flushed to the disk and renamed into its place. This module
knows no column and no score.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from virnucpro.batches import Block
from virnucpro.errors import ResumeError, VirnucproError
from virnucpro.scored import Scored

RUN_SCHEMA_VERSION = 1

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def disk_errors(folder: Path, option: str = "-o") -> Iterator[None]:
    """Turns what the disk refuses while something is written in a folder into one sentence.

    option: what the user names another folder with.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            sentence = (
                f"{folder}: the disk is full; free some space, or choose another folder with "
                f"{option}, and run again"
            )
        elif error.errno in _FORBIDDEN:
            sentence = (
                f"{folder}: no permission to write here; choose another folder with {option}, or "
                "change the permissions of this one"
            )
        else:
            sentence = (
                f"{folder}: this folder cannot be written to ({error.strerror or error}); choose "
                f"another with {option}"
            )
        raise VirnucproError(sentence) from error


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Every path of a run. prefix stands before each name, with a dot after it unless empty."""

    run_dir: Path
    prefix: str = ""

    def _public(self, name: str) -> Path:
        return self.run_dir / (f"{self.prefix}.{name}" if self.prefix else name)

    @property
    def calls(self) -> Path:
        return self._public("calls.tsv")

    @property
    def contigs(self) -> Path:
        return self._public("contigs.tsv")

    @property
    def frame_scores(self) -> Path:
        return self._public("prediction_results.txt")

    @property
    def chunk_scores(self) -> Path:
        return self._public("prediction_results_highestscore.csv")

    @property
    def viral_fasta(self) -> Path:
        return self._public("viral.fasta")

    @property
    def failed(self) -> Path:
        return self._public("failed.tsv")

    @property
    def run_json(self) -> Path:
        return self._public("run.json")

    @property
    def log(self) -> Path:
        return self._public("log.txt")

    @property
    def report(self) -> Path:
        return self._public("report.html")

    @property
    def multiqc(self) -> Path:
        return self._public("virnucpro_mqc.json")

    @property
    def public(self) -> tuple[Path, ...]:
        """Every file that a user may find, in the order of docs/outputs.md."""
        tables = (self.calls, self.contigs, self.frame_scores, self.chunk_scores)
        seen = (self.report, self.multiqc)
        return (*tables, self.viral_fasta, self.failed, *seen, self.run_json, self.log)

    @property
    def hidden(self) -> Path:
        return self.run_dir / (f".{self.prefix}.virnucpro" if self.prefix else ".virnucpro")

    @property
    def fingerprint(self) -> Path:
        return self.hidden / "fingerprint.json"

    @property
    def blocks(self) -> Path:
        return self.hidden / "blocks"

    @property
    def scratch(self) -> Path:
        """Where tables are put together and sorted; emptied when they are done."""
        return self.hidden / "scratch"

    def block(self, number: int) -> Path:
        return self.blocks / f"{number:09d}.safetensors"


def write_atomic(path: Path, data: bytes) -> None:
    """Puts a file into its place whole or not at all, also through a loss of power."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with disk_errors(path.parent):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Puts a JSON document into its place whole or not at all."""
    write_atomic(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OutputFile:
    """A new file, written from beginning to end; durable: also through a loss of power."""

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        with disk_errors(path.parent):
            self._file = path.open("xb")

    def write(self, data: bytes) -> None:
        """Appends; raises VirnucproError when the disk refuses."""
        with disk_errors(self.path.parent):
            self._file.write(data)

    def close(self) -> None:
        """Flushes everything; raises VirnucproError when the disk refuses."""
        with disk_errors(self.path.parent):
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Closes a file that nobody will read; closing flushes, and the disk may still be full."""
        with contextlib.suppress(OSError):
            self._file.close()


class Staging:
    """Public files that are put together in the scratch folder and appear when all are finished."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._staged: dict[Path, OutputFile] = {}

    def __enter__(self) -> "Staging":
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
        with disk_errors(self._files.run_dir):
            for target, staged in self._staged.items():
                staged.path.replace(target)
            _sync_folder(self._files.run_dir)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for staged in self._staged.values():
            staged.abandon()
        shutil.rmtree(self._files.scratch, ignore_errors=True)


class Journal:
    """The finished blocks of one run in its directory."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self._newest = -1

    @classmethod
    def create(cls, run_dir: Path, fingerprint: Mapping[str, str], prefix: str = "") -> "Journal":
        """Takes a new, empty or foreign folder for a run; files of other names stay untouched.

        Raises ResumeError if the folder holds a run, or a file under a name that this run would
        write; VirnucproError if it cannot be written to.
        """
        files = RunFiles(run_dir, prefix)
        with disk_errors(run_dir):
            if run_dir.exists() and not run_dir.is_dir():
                raise ResumeError(f"{run_dir}: this is a file; choose a folder with -o")
            _refuse_other_run(files, fingerprint)
            _refuse_foreign_files(files)
            run_dir.mkdir(parents=True, exist_ok=True)
            _make_hidden(files, fingerprint)
        return cls(files)

    @staticmethod
    def discard(files: RunFiles) -> None:
        """Removes an earlier run, and nothing else, so that create finds a free folder.

        Where there is none, nothing is removed, and create refuses what lies in its way. Raises
        ResumeError if run.json is there but was not written by this program.
        """
        with disk_errors(files.run_dir):
            if files.run_json.exists():
                if not {"schema_version", "fingerprint"} <= _json(files.run_json).keys():
                    raise ResumeError(
                        f"{files.run_json}: this was not written by virnucpro, so nothing here is "
                        "replaced; choose another folder with -o"
                    )
            elif not files.fingerprint.exists():
                return
            # run.json goes last: a kill in between leaves a folder that is still known as ours.
            for path in set(files.public) - {files.run_json}:
                path.unlink(missing_ok=True)
            shutil.rmtree(files.hidden, ignore_errors=True)
            files.run_json.unlink(missing_ok=True)

    def unfinished(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks that no earlier process finished."""
        yield from blocks

    def commit(self, scored: Scored) -> None:
        """Keeps a finished block, whole or not at all."""
        write_atomic(self.files.block(scored.block_number), scored.to_bytes())
        self._newest = max(self._newest, scored.block_number)

    def scored(self) -> Iterator[Scored]:
        """The finished blocks in their order, one at a time.

        Raises ResumeError if one is missing or damaged.
        """
        numbers = sorted(int(path.stem) for path in self.files.blocks.glob("*.safetensors"))
        newest = max([*numbers[-1:], self._newest])
        for number in range(numbers[0] if numbers else 0, newest + 1):
            yield Scored.from_file(self.files.block(number))

    def finished(self) -> None:
        """Removes the hidden folder, once everything public is in its place."""
        with disk_errors(self.files.run_dir):
            shutil.rmtree(self.files.hidden)


def _make_hidden(files: RunFiles, fingerprint: Mapping[str, str]) -> None:
    """The hidden folder, never without the fingerprint, by which it is known as ours."""
    new = files.hidden.with_name(f"{files.hidden.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        (new / files.blocks.name).mkdir(parents=True)
        write_json(new / files.fingerprint.name, fingerprint)
        new.rename(files.hidden)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise ResumeError(
                f"{files.run_dir}: another run has just begun in this folder; choose another with "
                "-o"
            ) from error
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _refuse_other_run(files: RunFiles, fingerprint: Mapping[str, str]) -> None:
    """Raises ResumeError if the folder holds a run, and says what differs."""
    if files.run_json.exists():
        document = _json(files.run_json)
        found, state = document.get("fingerprint"), f"a run ({document.get('status', 'unknown')})"
    elif files.fingerprint.exists():
        found, state = _json(files.fingerprint), "an unfinished run"
    else:
        return
    there = found if isinstance(found, dict) else {}
    for field in fingerprint:
        if there.get(field) != fingerprint[field]:
            raise ResumeError(
                f"{files.run_dir}: this folder holds another run, with another {field} "
                f"({there.get(field, 'unknown')}; this run: {fingerprint[field]}); choose another "
                "with -o, or replace it with --force"
            )
    raise ResumeError(
        f"{files.run_dir}: this folder already holds {state}; choose another with -o, or replace "
        "it with --force"
    )


def _refuse_foreign_files(files: RunFiles) -> None:
    """Raises ResumeError if something lies where this run would write."""
    for path in (*files.public, files.hidden):
        if os.path.lexists(path):
            raise ResumeError(
                f"{path}: this is in the way and belongs to no run (there is no "
                f"{files.run_json.name} beside it); move it, or choose another folder with -o"
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        return {**json.loads(path.read_bytes())}
    except (TypeError, ValueError) as error:  # no JSON, or not an object
        raise ResumeError(
            f"{path}: this file of an earlier run is damaged; choose another folder with -o"
        ) from error
