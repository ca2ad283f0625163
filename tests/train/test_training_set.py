"""Training sets: confirmed chunks, balanced, split by unit, without near duplicates across it."""

import gzip
import json
import shutil
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from frame_bundles import Told
from made_genomes import cds, cell, coding, collection, record, simple, virus, written
from virnucpro.chunks import chunk_spans
from virnucpro.cli.train import train
from virnucpro.errors import BundleError, InputError, SettingsError, VirnucproError
from virnucpro.frames import open_frames
from virnucpro.measure.labels import read_two_sided
from virnucpro.storage.digests import file_sha256
from virnucpro.train import near as near_module
from virnucpro.train.annotated_files import AnnotatedFile
from virnucpro.train.near import SCREEN, near_proteins
from virnucpro.train.release import RECORD, fetched
from virnucpro.train.training_set import MANIFEST, SetSettings, make_set, shared_out

SETTINGS = SetSettings(chunks=60, held_out=0.3, search=SCREEN)


@pytest.fixture(scope="module")
def genomes(tmp_path_factory):
    return collection(tmp_path_factory.mktemp("genomes"))


def inputs(folder):
    return {group.name: [group] for group in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made(genomes, tmp_path_factory):
    """A set, its manifest, and what was told."""
    out, told = tmp_path_factory.mktemp("set") / "out", Told()
    manifest = make_set(inputs(genomes), SETTINGS, out, told)
    return out, manifest, told.lines


def labelled(out, part):
    folder = out / part
    return read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"]).contigs


def rows(path):
    with gzip.open(path, "rt") as file:
        header = next(file).rstrip("\n").split("\t")
        return [dict(zip(header, line.rstrip("\n").split("\t"), strict=True)) for line in file]


def all_rows(out):
    return [
        row
        for part in ("train", "val")
        for side in ("viral", "nonviral")
        for row in rows(out / part / f"{side}.tsv.gz")
    ]


def test_what_train_and_evaluate_read_is_written(made):
    for part in ("train", "val"):
        contigs = labelled(made[0], part)
        assert {contig.label for contig in contigs} == {0, 1}
        for contig in contigs:
            assert len(chunk_spans(len(contig.sequence), 300)) == 1
            assert (
                contig.group == "viral" if contig.label else contig.group in ("bacteria", "fungi")
            )
            assert contig.unit.startswith("Family") is bool(contig.label)


def test_every_chunk_and_frame_is_where_the_table_says(made, genomes):
    records = {r.name: r for path in genomes.rglob("*.gz") for r in AnnotatedFile(path).records()}
    texts = {c.name: c.sequence for part in ("train", "val") for c in labelled(made[0], part)}
    seen = Counter()
    for row in all_rows(made[0]):
        start, end = int(row["start"]), int(row["end"])
        origin = records[row["record"]]
        text = origin.sequence[start:end]
        assert texts[row["id"]] == text
        number = int(row["id"].removeprefix(f"{row['record']}_chunk_"))
        assert chunk_spans(len(origin.sequence), 300)[number - 1] == (start, end)
        names = [frame.name for frame in open_frames(text.decode())]
        frames, overlaps = row["frames"].split(","), map(int, row["overlap_nt"].split(","))
        assert {*frames} <= {*names}
        assert all(150 <= overlap <= 300 for overlap in overlaps)
        seen["confirmed"] += len(frames)
        seen["open"] += len(names)
    assert seen["confirmed"] <= seen["open"]


def test_no_unit_and_no_record_lies_on_both_sides_of_the_split(made):
    units = [{c.unit for c in labelled(made[0], part)} for part in ("train", "val")]
    assert len(units[1]) >= 4
    assert not units[0] & units[1]


def test_files_and_the_split_have_nothing_to_do_with_each_other(made):
    of_part = [{c.source for c in labelled(made[0], part)} for part in ("train", "val")]
    assert of_part[0] & of_part[1]


def test_groups_and_units_are_balanced(made):
    for part, of_side in (("train", 42), ("val", 18)):
        contigs = labelled(made[0], part)
        sides = Counter(contig.label for contig in contigs)
        groups = Counter(contig.group for contig in contigs)
        assert sides[1] == of_side
        assert abs(groups["bacteria"] - groups["fungi"]) <= 1
        by_group = defaultdict(Counter)
        for contig in contigs:
            by_group[contig.group][contig.unit] += 1
        for units in by_group.values():
            assert max(units.values()) - min(units.values()) <= 1


def test_the_manifest_holds_counts_and_digests(made, genomes):
    out, manifest, lines = made
    assert json.loads((out / MANIFEST).read_text()) == manifest
    for name, digest in manifest["files_sha256"].items():
        assert file_sha256(out / name) == digest
    for name, digest in manifest["inputs_sha256"].items():
        assert file_sha256(Path(name.partition("/")[2])) == digest
    assert len(manifest["inputs_sha256"]) == 4
    assert manifest["settings"]["seed"] == 0
    assert manifest["settings"]["overlap_nt"] == 150
    for part, sides in manifest["parts"].items():
        for side, groups in sides.items():
            found = rows(out / part / f"{side}.tsv.gz")
            for group, counts in groups.items():
                own = [row for row in found if row["group"] == group]
                assert counts["chunks"] == len(own)
                assert counts["units"] == len({row["unit"] for row in own})
                assert counts["frames"] == sum(row["frames"].count(",") + 1 for row in own)
    assert any(line.startswith("near duplicates by 9-mers") for line in lines)


def test_the_same_seed_gives_the_same_files_and_another_does_not(made, genomes, tmp_path):
    again = make_set(inputs(genomes), SETTINGS, tmp_path / "again", Told())
    assert again["files_sha256"] == made[1]["files_sha256"]
    other = SetSettings(chunks=60, held_out=0.3, search=SCREEN, seed=1)
    assert (
        make_set(inputs(genomes), other, tmp_path / "b", Told())["files_sha256"]
        != (again["files_sha256"])
    )


def test_a_stopped_making_leaves_no_set_and_can_be_done_again(made, genomes, tmp_path):
    class Stopped(Exception):
        pass

    def stop(note):
        if note.startswith("writing viral"):
            raise Stopped

    with pytest.raises(Stopped):
        make_set(inputs(genomes), SETTINGS, tmp_path / "out", Told(stop))
    assert not (tmp_path / "out" / MANIFEST).exists()
    again = make_set(inputs(genomes), SETTINGS, tmp_path / "out", Told())
    assert again["files_sha256"] == made[1]["files_sha256"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"train", "val", MANIFEST}
    with pytest.raises(BundleError, match="already holds something"):
        make_set(inputs(genomes), SETTINGS, tmp_path / "out", Told())


def relatives(folder):
    """Two families that share a gene with few changes: whichever is held out, the other trains."""
    random = np.random.default_rng(5)
    gene = coding(random, 100)
    letters = np.array(list(gene))
    codons = random.choice(100, 4, replace=False)
    for codon in codons:
        letters[3 * codon : 3 * codon + 3] = list("GCA")
    viruses = [
        record(f"gb|V{n}|", text, simple([(0, 300, 1)]), f"V{n}", ["Viruses", f"F{n}viridae"])
        for n, text in enumerate((gene, "".join(letters), coding(random, 100), coding(random, 100)))
    ]
    written(folder / "viral" / "v.gb", viruses)
    written(folder / "bacteria" / "b.gb", [cell(random, n, f"B{n}") for n in range(4)])
    return folder


def test_near_duplicates_go_from_val_and_only_they(tmp_path):
    folder = relatives(tmp_path / "in")
    removed = Counter()
    for seed in range(6):
        out = tmp_path / f"out{seed}"
        chosen = SetSettings(held_out=0.3, search=SCREEN, seed=seed)
        manifest = make_set(inputs(folder), chosen, out, Told())
        units = [{r["unit"] for r in rows(out / p / "viral.tsv.gz")} for p in ("train", "val")]
        pair = {"F0viridae", "F1viridae"}
        gone = manifest["near_duplicates"]["removed_from_val"]
        assert gone["nonviral"] == 0
        both = units[0] | units[1]
        if len(both) == 4:
            assert pair <= units[0] or pair <= units[1]
        else:
            assert gone["viral"] == 4 - len(both) == 1
            assert len(pair & units[0]) == 1
            assert not pair & units[1]
        removed[gone["viral"]] += 1
    assert removed[0]
    assert removed[1]


def protein(random, residues=100):
    return "".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), residues))


def changed(random, text, share):
    letters = np.array(list(text))
    places = random.choice(len(letters), round(share * len(letters)), replace=False)
    letters[places] = list(protein(random, len(places)))
    return "".join(letters)


def near_files(folder):
    """Proteins: twins, cousins and strangers of some others."""
    random = np.random.default_rng(6)
    others = [protein(random) for _ in range(40)]
    asked = {f"same{n}": text for n, text in enumerate(others[:5])}
    asked |= {f"twin{n}": changed(random, text, 0.05) for n, text in enumerate(others[5:15])}
    asked |= {f"cousin{n}": changed(random, text, 0.5) for n, text in enumerate(others[15:25])}
    asked |= {f"stranger{n}": protein(random) for n in range(10)}
    asked |= {"short": others[0][:8], "joint": others[0][-5:] + others[1][:5]}
    paths = folder / "asked.faa", folder / "others.faa"
    for path, texts in zip(paths, (asked, dict(enumerate(others))), strict=True):
        path.write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    return paths


def test_the_screen_takes_twins_and_leaves_cousins(tmp_path, monkeypatch):
    paths = near_files(tmp_path)
    for at_once in (7, 20_000):
        monkeypatch.setattr(near_module, "_AT_ONCE", at_once)
        found = near_proteins(*paths, 0.8, SCREEN, tmp_path, 1).names
        assert found == {*(f"same{n}" for n in range(5)), *(f"twin{n}" for n in range(10))}
    exact = near_proteins(*paths, 1.0, SCREEN, tmp_path, 1).names
    assert exact == {f"same{n}" for n in range(5)}


def test_words_end_where_a_protein_does(tmp_path):
    asked, others = tmp_path / "a", tmp_path / "b"
    asked.write_text(">nine\nACDEFGHIK\n>eight\nLMNPQRST\n>unknown\nXXXXXXXXXXXX\n")
    others.write_text(">1\nWWACDEFGHIKWW\n>2\nXXXXXXXXXXXX\n>3\nLMNPQRST\n")
    assert near_proteins(asked, others, 0.8, SCREEN, tmp_path, 1).names == {"nine"}


def test_the_screen_of_nothing_finds_nothing(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    assert not near_proteins(tmp_path / "a", tmp_path / "b", 0.8, SCREEN, tmp_path, 1).names


@pytest.mark.parametrize("search", ["diamond", "mmseqs"])
def test_the_programs_themselves_agree_with_the_screen(search, tmp_path):
    if shutil.which(search) is None:
        pytest.skip(f"{search} is not installed")
    found = near_proteins(*near_files(tmp_path), 0.8, search, tmp_path, 1)
    wanted = {*(f"same{n}" for n in range(5)), *(f"twin{n}" for n in range(10))}
    assert found.names == wanted
    assert found.version


STAND_IN = """#!{python}
import sys
words = sys.argv[1:]
with open({log!r}, "a") as file:
    file.write(" ".join(words) + "\\n")
if "version" in words:
    print("program version 2.1.3")
elif {fails}:
    print("no such option", file=sys.stderr)
    sys.exit(3)
elif words[0] in ("blastp", "easy-search"):
    asked = words[words.index("-q") + 1] if "-q" in words else words[1]
    out = words[words.index("-o") + 1] if "-o" in words else words[3]
    first = open(asked).readline()[1:]
    open(out, "w").write(first + first)
"""


def stand_in(folder, name, monkeypatch, fails=False):
    folder.mkdir()
    program, log = folder / name, folder / "log"
    program.write_text(STAND_IN.format(python=sys.executable, log=str(log), fails=fails))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return log


@pytest.mark.parametrize("program", ["diamond", "mmseqs"])
def test_a_program_on_path_is_used_and_named(program, genomes, tmp_path, monkeypatch):
    log = stand_in(tmp_path / "bin", program, monkeypatch)
    told = Told()
    auto = SetSettings(chunks=60, held_out=0.3)
    manifest = make_set(inputs(genomes), auto, tmp_path / "out", told)
    assert manifest["near_duplicates"]["search"] == program
    assert manifest["near_duplicates"]["removed_from_val"] == {"nonviral": 0, "viral": 1} or (
        manifest["near_duplicates"]["removed_from_val"] == {"nonviral": 1, "viral": 0}
    )
    assert any(line.startswith(f"near duplicates by {program} ") for line in told.lines)
    said = log.read_text()
    wanted = "--id 80 --query-cover 50" if program == "diamond" else "--min-seq-id 0.8 -c 0.5"
    assert wanted in said


def test_a_program_that_fails_or_is_missing_is_one_sentence(genomes, tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", "diamond", monkeypatch, fails=True)
    chosen = SetSettings(search="diamond")
    with pytest.raises(VirnucproError, match=r"diamond makedb failed .*no such option.*9-mers"):
        make_set(inputs(genomes), chosen, tmp_path / "out", Told())
    with pytest.raises(VirnucproError, match="mmseqs is not on PATH"):
        make_set(inputs(genomes), SetSettings(search="mmseqs"), tmp_path / "b", Told())


def test_a_record_that_is_given_twice_is_refused(genomes, tmp_path):
    twice = tmp_path / "in"
    shutil.copytree(genomes, twice)
    shutil.copy(twice / "viral" / "viral.1.genomic.gbff.gz", twice / "viral" / "copy.gbff.gz")
    with pytest.raises(InputError, match=r"record NC_\d+\.1 occurs twice"):
        make_set(inputs(twice), SetSettings(held_out=0.3), tmp_path / "out", Told())


def test_what_was_left_out_is_told(tmp_path):
    random = np.random.default_rng(7)
    bare = record("X1.1", coding(random, 200), [], "X", ["Viruses", "Xviridae"])
    homeless = record("X2.1", coding(random, 200), [cds(simple([(0, 600, 1)])[0].location)])
    viruses = [virus(random, n, f"F{n}viridae") for n in range(4)]
    written(tmp_path / "in" / "viral" / "v.gb", [*viruses, bare, homeless])
    written(tmp_path / "in" / "fungi" / "f.gb", [cell(random, n, f"F{n}") for n in range(4)])
    told = Told()
    manifest = make_set(inputs(tmp_path / "in"), SETTINGS, tmp_path / "out", told)
    assert manifest["inputs"]["viral"]["without_cds"] == 1
    assert manifest["inputs"]["viral"]["without_unit"] == 1
    assert "viral: 1 of 6 records have no annotated CDS" in told.lines
    assert not [row for row in all_rows(tmp_path / "out") if row["record"] in ("X1.1", "X2.1")]


def test_one_unit_alone_is_not_divided_and_val_without_it_is_a_warning(tmp_path):
    random = np.random.default_rng(8)
    written(tmp_path / "in" / "viral" / "v.gb", [virus(random, n, "Oneviridae") for n in range(3)])
    written(tmp_path / "in" / "fungi" / "f.gb", [cell(random, n, f"F{n}") for n in range(4)])
    told = Told()
    make_set(inputs(tmp_path / "in"), SETTINGS, tmp_path / "out", told)
    assert [line for line in told.lines if "val has no viral chunk" in line]


def test_a_side_without_a_confirmed_frame_is_refused(tmp_path):
    random = np.random.default_rng(9)
    written(tmp_path / "viral.gb", [record("X.1", coding(random, 200), [], "X", ["Viruses", "A"])])
    written(tmp_path / "f.gb", [cell(random, n, f"F{n}") for n in range(2)])
    given = {"viral": [tmp_path / "viral.gb"], "fungi": [tmp_path / "f.gb"]}
    with pytest.raises(InputError, match="no chunk of the viral side"):
        make_set(given, SETTINGS, tmp_path / "out", Told())


def test_shares_are_alike_and_what_one_lacks_the_others_give():
    random = np.random.default_rng(10)
    for _ in range(50):
        have = {str(n): int(random.integers(0, 30)) for n in range(random.integers(1, 8))}
        total = int(random.integers(0, 120))
        given = shared_out(have, total)
        assert sum(given.values()) == min(total, sum(have.values()))
        assert all(given[name] <= have[name] for name in have)
        short = [given[name] for name in have if given[name] < have[name]]
        assert not short or max(given.values()) - min(short) <= 1


@pytest.mark.parametrize(
    "wrong", [{"held_out": 1}, {"held_out": 0}, {"overlap": 0}, {"identity": 1.5}, {"chunks": 1}]
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(SettingsError):
        SetSettings(**wrong)


def test_the_command_makes_the_same_set(made, genomes, tmp_path):
    words = ["make", str(genomes), "-o", str(tmp_path / "set"), "--chunks", "60"]
    done = CliRunner().invoke(train, [*words, "--held-out", "0.3", "--search", SCREEN])
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "set" / MANIFEST).read_text())
    assert manifest["files_sha256"] == made[1]["files_sha256"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--viral", "v.gb"], "viral genomes and those of another group are needed"),
        (["--group", "fungi=f.gb"], "viral genomes and those of another group are needed"),
        (["--group", "fungi"], "is not GROUP=PATH"),
        (["nothing"], "nothing is not a folder"),
    ],
)
def test_inputs_that_are_not_enough(words, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(train, ["make", *words, "-o", "out"])
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())
    assert not list(pairwise(tmp_path.iterdir()))


def test_a_folder_that_was_fetched_gives_the_files_of_its_record_alone(tmp_path):
    (tmp_path / "viral").mkdir()
    for name in ("a.gbff.gz", "of_an_older_release.gbff.gz", "b.gbff.gz.part"):
        (tmp_path / "viral" / name).write_bytes(b"")
    with pytest.raises(InputError, match="stopped before it was whole"):
        fetched(tmp_path)
    record = tmp_path / RECORD
    record.write_text(json.dumps({"files": {"viral/a.gbff.gz": {}}}))
    assert fetched(tmp_path) == {"viral": [tmp_path / "viral" / "a.gbff.gz"]}
    record.write_text(json.dumps({"files": {"viral/c.gbff.gz": {}}}))
    with pytest.raises(InputError, match="is missing; run `virnucpro train fetch` again"):
        fetched(tmp_path)
    record.write_text("[]")
    with pytest.raises(InputError, match="not as the download left it"):
        fetched(tmp_path)
    record.unlink()
    (tmp_path / "viral" / "b.gbff.gz.part").unlink()
    assert fetched(tmp_path) == {}
