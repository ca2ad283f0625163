"""Alignments, packed text and sample sheets with damage, and what must come out of them.

Everything is a function of a seed. The parsers here hold the whole input and share no code with the
program; CRAM, which has none, is compared with what htslib reads from the file itself.
"""

import bz2
import gzip
import lzma
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pysam
from backports import zstd

from command import dna
from damaged_fasta import (
    FILLER,
    MARK,
    Plain,
    after_header,
    check_text,
    control,
    damaged_text,
    lines_of,
    one_sentence,
    plain,
    plain_text,
    read,
)
from virnucpro.errors import InputError
from virnucpro.reads import Reading, open_sources
from virnucpro.reads.sample_sheet import read_sheet

BASES = "=ACMGRSVTWYHKDBN"
COMPLEMENT = str.maketrans("ACGTRYKMBVDH", "TGCAYRMKVBHD")
NUMBERED = str.maketrans("0123", "ACGT")  # as htslib reads these
LEFT_OUT = 0xF00
END_MARK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
LETTERS = dna(20_000, "alignments")
QNAMES = (
    b"r",
    b"r/1",
    b"caf\xe9",
    b"\xc3\xa9t\xc3\xa9",
    b"a b c",
    b"NA",
    b"x\x01y",
    b"\xe2\x80\xa8",
)
GROUPS = (b"lake", b"caf\xe9", b"a b", b"", b"x\x07", b"../up", b"\xc3\xa9")
FLAGS = (4, 4, 4, 0x4D, 0x8D, 20, 0x104, 0x804, 0x204, 0x404, 0xCD)
HEADER_TOKENS = (
    *(b"@SQ\tSN:ref\tLN:9000\n", b"@SQ\tLN:5\n", b"@SQ\tSN:ref\n", b"@RG\tID:a\tSM:caf\xe9\n"),
    *(b"@RG\tSM:x\n", b"@RG\tID:a\n", b"@PG\tID:p\tPN:p\tCL:x\ty\n", b"@CO\tno\xff\n", b"@CO\n"),
    *(b"@XX\tAB:c\n", b"@HD\n", b"@HD\tVN:1.6\n", b"@SQ\tSN:ref\tLN:9000\n", b"@\n", b"\n", b"@SQ"),
    *(b"\t", b":", b"\0", b"\r", b"\xef\xbb\xbf", b"\xff", b"@RG\tID:b\tSM:\n", b"SN:", b"x\ty\n"),
    *(b"@SQ\tSN:big\tLN:99999999999\n", b"@SQ\tSN:neg\tLN:-4\n", b"@RG\tID:a\tSM:two\tSM:three\n"),
)
Record = tuple[str, str]


# Alignments


@dataclass(frozen=True)
class Alignments:
    """What the bytes of a file of alignments hold: the primary records before the first fault.

    whole: whether nothing is wrong up to the end of the file.
    """

    records: list[Record]
    whole: bool


def printed(name: bytes) -> str:
    """A name as tables have it."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        text = name.decode("latin-1")
    return "".join("\ufffd" if control(ord(x)) else x for x in text)


def sequenced(letters: str, flag: int) -> str:
    return letters.translate(COMPLEMENT)[::-1] if flag & 16 else letters


def plain_bam(data: bytes) -> Alignments:
    """What a BAM holds."""
    text, whole = bytearray(), data.endswith(END_MARK)
    while data:
        body, unpack, part = after_header(data), zlib.decompressobj(-zlib.MAX_WBITS), b""
        try:
            part = unpack.decompress(body or b"")
        except zlib.error:
            body = None
        if not body or not unpack.eof:
            whole = False
            break
        text, data = text + part, unpack.unused_data
        if data[:4] != struct.pack("<I", zlib.crc32(part)):
            whole = False
            break
        data = data[8:]  # the length of the text, which htslib does not look at
    records: list[Record] = []
    try:
        at = 8 + struct.unpack_from("<i", text, 4)[0]
        references, at = struct.unpack_from("<i", text, at)[0], at + 4
        for _ in range(references):
            at += 8 + struct.unpack_from("<i", text, at)[0]
        while at < len(text):
            size, *_, name_size, _, _, cigar, flag, letters = struct.unpack_from(
                "<iiiBBHHHi", text, at
            )
            begin, end = at + 36, at + 4 + size
            if end > len(text):
                return Alignments(records, whole=False)
            packed = text[begin + name_size + 4 * cigar :][: (letters + 1) // 2]
            sequence = "".join(BASES[b >> 4] + BASES[b & 15] for b in packed)[:letters]
            if not flag & LEFT_OUT:
                name = bytes(text[begin : begin + name_size - 1])
                records.append((printed(name), sequenced(sequence, flag)))
            at = end
    except (struct.error, IndexError):
        return Alignments(records, whole=False)
    return Alignments(records, whole)


def plain_sam(text: bytes) -> Alignments:
    """What a SAM holds."""
    records: list[Record] = []
    lines = lines_of(text.removeprefix(MARK))
    ended = not lines[-1]
    header = True
    for line in lines[:-1] if ended else lines:
        header = header and line.startswith(b"@")
        if header:
            continue
        fields = line.split(b"\t")
        if len(fields) < 11 or not re.fullmatch(rb"\d+", fields[1]):
            return Alignments(records, whole=False)
        flag, letters = int(fields[1]), fields[9].upper().decode("latin-1").replace("U", "T")
        if not flag & LEFT_OUT:
            sequence = "" if letters == "*" else letters.translate(NUMBERED)
            sequence = re.sub(f"[^{BASES}]", "N", sequence)
            records.append((printed(fields[0]), sequenced(sequence, flag)))
    return Alignments(records, whole=ended or not header)


def plain_htslib(path: Path) -> Alignments:
    """What htslib reads from a file by itself."""
    records: list[Record] = []
    loud = pysam.set_verbosity(0)
    pysam.set_encoding_error_handler("surrogateescape")
    try:
        with pysam.AlignmentFile(str(path), "r", check_sq=False) as file:
            for found in file.fetch(until_eof=True):
                if not found.flag & LEFT_OUT:
                    name = (found.query_name or "").encode("utf-8", "surrogateescape")
                    records.append((printed(name), found.get_forward_sequence() or ""))
    except (OSError, ValueError):
        return Alignments(records, whole=False)
    finally:
        pysam.set_verbosity(loud)
    return Alignments(records, whole=True)


Made = Sequence[tuple[bytes, int, str, bytes]]  # name, flag, letters, read group


def made_records(rng: random.Random) -> Made:
    found = []
    for i in range(rng.choice((0, 1, 2, 5, 30, 120))):
        name = rng.choice(QNAMES) if rng.random() < 0.3 else b"r%d" % i
        start, length = rng.randrange(15_000), rng.choice((0, 1, 59, 80, 200, 3_000))
        found.append((name, rng.choice(FLAGS), LETTERS[start : start + length], b"g%d" % (i % 9)))
    return found


def made_header(rng: random.Random) -> bytes:
    groups = b"".join(b"@RG\tID:g%d\tSM:%b\n" % pair for pair in enumerate(GROUPS))
    return b"@HD\tVN:1.6\tSO:unsorted\n" + groups * rng.choice((0, 1, 1))


def sam_of(header: bytes, records: Made) -> bytes:
    lines = (
        b"%b\t%d\t*\t0\t0\t*\t*\t0\t0\t%b\t%b\tRG:Z:%b\n"
        % (name, flag, letters.encode() or b"*", b"I" * len(letters) or b"*", group)
        for name, flag, letters, group in records
    )
    return header + b"".join(lines)


def bam_of(header: bytes, records: Made, rng: random.Random) -> bytes:
    text = b"BAM\1" + struct.pack("<i", len(header)) + header + struct.pack("<i", 0)
    for name, flag, letters, group in records:
        codes = [BASES.index(x) for x in letters] + [0] * (len(letters) % 2)
        body = struct.pack(
            *("<iiBBHHHiiii", -1, -1, len(name) + 1, 0, 4680, 0, flag, len(letters), -1, -1, 0)
        )
        body += (
            name + b"\0" + bytes(a << 4 | b for a, b in zip(codes[::2], codes[1::2], strict=True))
        )
        body += b"\x28" * len(letters) + b"RGZ" + group + b"\0"
        text += struct.pack("<i", len(body)) + body
    return bgzf(text, rng) + END_MARK


def bgzf(text: bytes, rng: random.Random) -> bytes:
    """Text in blocks of BGZF, without an end mark."""
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.choice((0, 1, 4))))
    cuts = sorted({*cuts, *range(0, len(text), 60_000), len(text)})
    blocks = b""
    for begin, end in pairwise(cuts):
        packed = gzip.compress(text[begin:end], mtime=0)
        extra = b"\x06\x00BC\x02\x00" + struct.pack("<H", len(packed) + 7)
        blocks += packed[:3] + b"\x04" + packed[4:10] + extra + packed[10:]
    return blocks


def cram_of(sam: bytes, folder: Path) -> bytes:
    (folder / "made.sam").write_bytes(sam)
    loud = pysam.set_verbosity(0)  # it misses read groups in some headers
    pysam.view("-C", "-o", str(folder / "made.cram"), str(folder / "made.sam"), catch_stdout=False)
    pysam.set_verbosity(loud)
    return (folder / "made.cram").read_bytes()


def bytes_damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut, changed, doubled or put in."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((1, 2, 10, 300)))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[: len(data) - rng.randint(1, 60)]
        elif kind == 2:
            data = data[:at] + data[end:]
        elif kind == 3:
            data = data[:end] + data[at:]
        elif kind == 4:
            data = data[:at] + rng.randbytes(end - at) + data[end:]
        elif kind == 5:
            data = data + rng.choice((b"\0" * 512, b"junk", b"\n", data[:40], b"\x1f\x8b", data))
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    return data


def check_alignments(seed: int, folder: Path) -> None:
    """BAM, SAM or CRAM: every record that is there, or what is wrong in one sentence."""
    rng = random.Random(seed)
    header, records = made_header(rng), made_records(rng)
    form = rng.choice(("bam", "bam", "sam", "sam", "cram"))
    if form == "bam":
        data = bytes_damaged(bam_of(header, records, rng), rng)
    elif form == "sam":
        data = bytes_damaged(sam_of(header, records), rng)
        if rng.random() < 0.2:
            data = data.replace(b"\n", rng.choice((b"\r\n", b"\r")))
    else:
        plainer = [(name.replace(b"\x01", b""), *rest) for name, *rest in records]
        data = bytes_damaged(cram_of(sam_of(header, plainer), folder), rng)
    check_bytes(data, form, folder, read_groups=rng.random() < 0.3)


def check_header(seed: int, folder: Path) -> None:
    """The header of a BAM, SAM or CRAM with what should not be there."""
    rng = random.Random(seed)
    header, records = made_header(rng), made_records(rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        ends = [0, *(m.end() for m in re.finditer(rb"\n", header))]
        at = rng.choice(ends) if rng.random() < 0.6 else rng.randint(0, len(header))
        header = header[:at] + rng.choice(HEADER_TOKENS) + header[at:]
    if rng.random() < 0.5:
        check_bytes(bam_of(header, records, rng), "bam", folder, read_groups=rng.random() < 0.5)
    else:
        check_bytes(sam_of(header, records), "sam", folder, read_groups=rng.random() < 0.5)


def check_bytes(data: bytes, form: str, folder: Path, *, read_groups: bool) -> None:
    """Compare what the program reads with what is there."""
    path = folder / f"in.{form}"
    path.write_bytes(data)
    (source,) = open_sources([path], None, Reading(pairs="none", read_groups=read_groups))
    found, error = read(source)
    one_sentence(str(error or ""))
    if not source.files[0].form.startswith(("BAM", "SAM", "CRAM")):
        return  # it is taken for another format, which the other checks are for
    assert not any(control(ord(x)) for c in found for x in c.sample)
    got = [(c.name, c.sequence.decode("latin-1")) for c in found]
    there = {"bam": plain_bam, "sam": plain_sam}
    expected = there[form](data) if form in there else plain_htslib(path)
    faults = [c for c in found if c.fault]
    wanted = [pair for pair, c in zip(expected.records, found, strict=False) if not c.fault]
    assert [pair for pair, c in zip(got, found, strict=True) if not c.fault] == wanted[: len(got)]
    if error is None:
        assert len(got) == len(expected.records), "records were lost without a word"
        assert expected.whole or source.warnings, "damage without a word"
    elif expected.whole and not faults and "no IUPAC" not in str(error):  # '=' is none
        by_itself = plain_htslib(path)
        assert not by_itself.whole or len(by_itself.records) == len(got), error


# Packed text


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}
MAGIC = (b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
UNPACKERS: dict[str, Callable[[], object]] = {
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zst": zstd.ZstdDecompressor,
}


def check_packed(seed: int, folder: Path) -> None:
    """FASTA and FASTQ in any compression and any number of members."""
    rng = random.Random(seed)
    text = damaged_text(rng)
    form = rng.choice(("bgzf", "bz2", "xz", "zst"))
    if form == "bgzf":
        data = bgzf(text, rng) + END_MARK * (rng.random() < 0.7)
    else:
        cuts = sorted(rng.randint(min(3, len(text)), len(text)) for _ in range(rng.choice((0, 2))))
        data = b"".join(PACKERS[form](text[a:b]) for a, b in pairwise((0, *cuts, len(text))))
    data = bytes_damaged(data, rng)
    path = folder / f"in.fa.{form}"
    expected = unpacked_text(data, form) if data.startswith(MAGIC) else plain(data)
    if expected is not None:
        check_text(data, expected, path, may_break=form == "bgzf")
        return
    path.write_bytes(data)
    (source,) = open_sources([path])
    _, error = read(source)
    assert error is not None, "damage without a word"
    one_sentence(str(error))


def unpacked_text(data: bytes, form: str) -> Plain | None:
    """What packed text holds; None where a member is damaged or cut off."""
    text, head = b"", data[:3]
    while data:
        member = UNPACKERS[form]()
        try:
            text += member.decompress(data)  # type: ignore[attr-defined]
        except (OSError, lzma.LZMAError, zstd.ZstdError):
            return None
        if not member.eof:  # type: ignore[attr-defined]
            return None
        data = member.unused_data.lstrip(b"\0")  # type: ignore[attr-defined]
        if data and not data.startswith(head):
            junk = bool(data.strip(FILLER))
            return plain_text(text, broken=junk and text[-1:] not in (b"\n", b"\r"), behind=junk)
    return plain_text(text)


# Sample sheets


CELLS = (
    *("lake", "sea", "one.fa", "two.fa", "none.fa", "", "-", ".", "..", "a/b", "~", "~/one.fa"),
    *(
        '"lake"',
        '"one.fa"',
        '"',
        '""',
        "sample",
        "path",
        "mates",
        "Sample",
        "x" * 300,
        "\x07",
        "\0",
    ),
    *("été", "\u2028", "NA", "001", "one.fa ", " lake", "lake\u00a0", ",", ";", "#", "\ufeff"),
)
SHEET_TOKENS = ("\t", "\n", "\r\n", "\r", "\t\t", "\n\n", '"', ",", "\ufeff", "\0", "\x0b", "\x85")
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252")


def made_sheet(rng: random.Random) -> bytes:
    header = rng.choice(("sample\tpath", "sample\tpath\tmates", "Sample\tPath", '"sample"\t"path"'))
    lines = [header]
    for i in range(rng.choice((0, 1, 2, 5, 40))):
        cells = [f"s{i}", rng.choice(("one.fa", "two.fa"))]
        if rng.random() < 0.2:
            cells[rng.randrange(2)] = rng.choice(CELLS)
        cells += [rng.choice(CELLS)] * (rng.random() < 0.2)
        lines.append("\t".join(cells))
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(lines) + "\n" * rng.randrange(2)
    for _ in range(rng.choice((0, 0, 1, 2))):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice((*SHEET_TOKENS, *CELLS)) + text[at:]
    data = text.encode(rng.choice(ENCODINGS), "replace")
    return bytes_damaged(data, rng) if rng.random() < 0.3 else data


def check_sheet(seed: int, folder: Path) -> None:
    """Every line of a sheet is a sample, or it is said why not, naming the line."""
    data = made_sheet(random.Random(seed))
    for name in ("one.fa", "two.fa"):
        (folder / name).write_bytes(b">a\n" + LETTERS[:90].encode() + b"\n")
    path = folder / "sheet.tsv"
    path.write_bytes(data)
    try:
        rows = read_sheet(path)
    except InputError as error:
        said = str(error)
        one_sentence(said.replace("\n", " "))
        assert str(path) in said
        return
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = re.split("\r\n|\r|\n", data.decode(encoding))[1:]
    filled = [line for line in lines if line.replace('"', "").strip()]
    assert len(rows) == len(filled), "a line was lost without a word"
    assert len({row.name for row in rows}) == len(rows)
    for row, line in zip(rows, filled, strict=True):
        name, file = (cell.strip() for cell in line.split("\t")[:2])
        if '"' not in line:
            assert (row.name, str(row.path)) == (name, str(Path(file).expanduser()))
        assert row.name
        assert row.name.isprintable()
        assert "/" not in row.name
        assert not row.name.startswith(".")
