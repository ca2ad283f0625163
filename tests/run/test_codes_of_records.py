"""A genetic code of a run: which chunks have open frames, and that nothing but letters decides."""

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from command import dna, made_bundle, results, run_json, table
from frame_bundles import small_bundle
from virnucpro.blocks import blocks_of
from virnucpro.bundle.manifest import read_manifest
from virnucpro.bundle.write import write_manifest
from virnucpro.chunks import chunk_spans
from virnucpro.errors import OtherRun, SettingsError
from virnucpro.frames import open_frames
from virnucpro.reads import Contig
from virnucpro.run.dask_worker import PackedBlock
from virnucpro.run.merge import merge
from virnucpro.run.predict import run
from virnucpro.run.settings import Settings

CHUNK_NT = 300
SENSE = [c for c in map("".join, product("ACGT", repeat=3)) if c not in {"TAA", "TAG", "TGA"}]
CODES = {"standard": 1, "mycoplasma": 4, "crass": 15}


def gene(code: int, codons: int = 350) -> str:
    """A long frame, in which a stop is read through where the code does so."""
    words = np.random.default_rng(code).choice(SENSE, codons).tolist()
    for place in range(10, codons, 25):
        words[place] = {1: "GCT", 4: "TGA", 15: "TAG"}[code]
    return "".join(words)


@pytest.fixture(scope="module")
def here(golden, tmp_path_factory) -> Path:
    """A folder with records of three codes, and a bundle whose blocks are shorter than they."""
    folder = tmp_path_factory.mktemp("codes")
    bundle = small_bundle(golden, folder, CHUNK_NT)
    manifest = read_manifest(bundle)
    sums = manifest.pop("files")
    write_manifest(bundle, manifest | {"block_nt": 900}, sums)
    records = [(name, gene(code)) for name, code in CODES.items()]
    records += [("noise", dna(700)), ("empty", "")]
    (folder / "in.fa").write_text("".join(f">{name}\n{text}\n" for name, text in records))
    return folder


def settings(here: Path, out: Path, code: str, **options) -> Settings:
    return Settings.of(here / "in.fa", out, here / "b", genetic_code=code, **options)


def frames_in(run_dir: Path) -> dict[tuple[str, int], str]:
    return {(r["contig"], int(r["chunk"])): r["frames"] for r in table(run_dir / "calls.tsv")}


def expected(code_of: dict[str, int]) -> dict[tuple[str, int], str]:
    texts = {name: gene(code) for name, code in CODES.items()} | {"noise": dna(700)}
    return {
        (name, k): ",".join(f.name for f in open_frames(text[start:end], code_of.get(name, 1)))
        for name, text in texts.items()
        for k, (start, end) in enumerate(chunk_spans(len(text), CHUNK_NT), 1)
    }


@pytest.fixture(scope="module")
def auto(here) -> Path:
    run(settings(here, here / "auto", "auto", parquet=True))
    return here / "auto"


def test_each_record_is_read_by_its_code_also_across_blocks(auto):
    assert frames_in(auto) == expected(CODES)
    assert run_json(auto)["blocks"]["total"] > 4
    codes = {row["contig"]: row["genetic_code"] for row in table(auto / "contigs.tsv")}
    assert codes == {"standard": "1", "mycoplasma": "4", "crass": "15", "noise": "1", "empty": "1"}
    told = pyarrow.parquet.read_table(auto / "contigs.parquet").column("genetic_code")
    assert told.to_pylist() == [1, 4, 15, 1, 1]
    assert "column genetic_code of contigs.tsv" in (auto / "log.txt").read_text()


@pytest.mark.parametrize("code", ["25"])
def test_a_code_that_is_given_is_that_of_all(here, tmp_path, code):
    run(settings(here, tmp_path / "run", code))
    names = ("standard", "mycoplasma", "crass", "noise")
    assert frames_in(tmp_path / "run") == expected(dict.fromkeys(names, int(code)))
    header = (tmp_path / "run" / "contigs.tsv").read_text().split("\n")[0]
    assert "genetic_code" not in header
    assert run_json(tmp_path / "run")["fingerprint"]["genetic_code"] == code


def test_parts_give_the_same(here, auto, tmp_path):
    parts = [tmp_path / "p1", tmp_path / "p2"]
    for k, part in enumerate(parts, 1):
        run(settings(here, part, "auto", part=f"{k}/2", parquet=True))
    merge(parts, tmp_path / "merged")
    assert results(tmp_path / "merged") == results(auto)


def test_codes_travel_with_chunks(here):
    """To workers of a cluster, and into parts of a block."""
    contigs = [
        Contig("s", k, name, gene(code).encode(), code=code)
        for k, (name, code) in enumerate(CODES.items(), 1)
    ]
    (block,) = blocks_of(contigs, CHUNK_NT, 1_000_000)
    assert block.code.tolist() == [1] * 4 + [4] * 4 + [15] * 4
    assert PackedBlock.of(block).block().code.tolist() == block.code.tolist()
    assert block.part(3, 6).code.tolist() == [1, 4, 4]
    kept = np.arange(len(block.rows)) % 5 == 0
    assert block.chosen(kept).code.tolist() == [1, 4, 15]
    assert [block.chosen(kept).chunk(i) for i in range(3)] == [block.chunk(i) for i in (0, 5, 10)]
    (plain,) = blocks_of([c._replace(code=1) for c in contigs], CHUNK_NT, 1_000_000)
    assert plain.code is None
    assert PackedBlock.of(plain).block().code is None


def test_another_code_is_another_run(here, auto):
    with pytest.raises(OtherRun, match=r"another genetic_code \(auto; this run: 4\)"):
        run(settings(here, auto, "4"))


def test_bundles_that_read_through_stops_refuse_it(here, tmp_path):
    made_bundle(tmp_path / "km")
    given = {"inputs": here / "in.fa", "out": tmp_path / "run", "bundle": tmp_path / "km"}
    with pytest.raises(SettingsError, match="km is of kind kmer, which reads through every stop"):
        run(Settings.of(**given, genetic_code="auto"))
    with pytest.raises(SettingsError, match="--genetic-code must be one of 1, 4, 11, 15, 25, auto"):
        run(Settings.of(**given, genetic_code="2"))
