"""FASTA with every damage, a plain parser that says what it holds, and what must come out of it.

Everything is a function of a seed. The parser and the reading of gzip share no code with the
program: they hold the whole input and go over it byte by byte or line by line.
"""

import gzip
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from command import TABLES, dna, table
from virnucpro.chunks import chunk_spans
from virnucpro.errors import InputError, StreamBroken, VirnucproError
from virnucpro.reads import TRIAL_RECORDS, Contig, Source, open_sources
from virnucpro.run.predict import predict

IUPAC = set(b"ACGTUNRYSWKMBDHV")
BLANK = b" \t\n\r\x0b\x0c"
# What lies behind a gzip stream and cannot be a damaged member of it.
FILLER = bytes(range(0x21)) + b"\xff"
MARK = b"\xef\xbb\xbf"
FOREIGN = (b"PK\x03\x04", b"\x1f\x8b")
# What a decompressor or htslib refuses, where damaged FASTA begins so.
OTHERS = (b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
ALIGNMENTS = (b"CRAM", b"BAM\x01")
UTF16 = (b"\xff\xfe", b"\xfe\xff")
LETTERS = dna(20_000, "damaged").encode()
TOKENS = (
    *(b"\n>", b">", b"\r", b"\n\n", b"\r\r\n", b"#", b"\n#x", b";", b"\x1a", b"\x1a41", b"\0"),
    *(b"\xef\xbb\xbf", b"\x1f\x8b", b"@", b"\n+\n", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0"),
    *(b"\xe2\x80\xa8", b"\xe2\x98\x83", b"\xed\xa0\x80", b"\xff", b" ", b"\t", b"-", b"*", b"."),
    *(b"U", b"n", b"L", b"!", b"\n>\n", b"\n>>\n", b"\n> \n", b"_1", b"\n>a_1\n", b"\n >x\n"),
)
NAMES = (b"a", b"a_1", b"a_1_1", b"", b"x_chunk_1", b"\xc3\xa9t\xc3\xa9", b"caf\xe9", b"b c d")
LENGTHS = (0, 0, 1, 59, 60, 61, 79, 80, 81, 160, 161, 400, 3_000)


# What an input holds


@dataclass(frozen=True)
class Plain:
    """What the bytes of a file are: headers and letters of its records, as they stand there.

    broken: the gzip stream ends early or is damaged; records are those before the last one begun.
    exact: whether every one of them can be asked for; not where the deflated data are damaged.
    refused: the bytes are something else.
    """

    records: list[tuple[bytes, bytes]]
    broken: bool = False
    exact: bool = True
    refused: bool = False


def plain(data: bytes) -> Plain:
    """What the file holds."""
    if data.startswith(OTHERS):
        return Plain([], broken=True, exact=False)
    text, broken, exact, behind = data, False, True, b""
    if data.startswith(b"\x1f\x8b"):
        text, broken, exact, behind = unpacked(data)
    return plain_text(text, broken, exact, bool(behind.strip(FILLER)))


def plain_text(
    text: bytes, broken: bool = False, exact: bool = True, behind: bool = False
) -> Plain:
    """What a text holds. behind: whether what is no filler lies behind its stream."""
    text = text.removeprefix(MARK)
    if text.startswith(ALIGNMENTS):
        return Plain([], broken=True)
    foreign = text.startswith((*FOREIGN, *UTF16))
    if behind and text[-1:] not in (b"\n", b"\r", b""):
        broken = True
    found = None
    if not foreign and text[:8_192].lstrip(BLANK + MARK).startswith(b"@"):
        found = plain_fastq(lines_of(text), broken, exact)
    else:
        found = plain_fasta(lines_of(text), broken, exact, foreign)
    if behind and not found.refused:
        found = replace(found, broken=True)
    return found


def lines_of(text: bytes) -> list[bytes]:
    """Lines without their ends; the last is empty where the text ends with a line end."""
    lines = re.split(rb"\r*\n|\r", text)
    joined: list[bytes] = []
    for line in lines:
        while line.startswith(MARK):
            line = line.removeprefix(MARK)
        joined += re.split(rb"(?:\xef\xbb\xbf)+(?=[>@])", line)
    return joined


def plain_fasta(lines: list[bytes], broken: bool, exact: bool, foreign: bool) -> Plain:
    """What FASTA holds."""
    records: list[tuple[bytes, bytes]] = []
    for line in (line.strip(BLANK) for line in lines):
        if line.startswith(b">"):
            records.append((line[1:], b""))
        elif line and not line.startswith(b"#"):
            if not records:
                return Plain([], broken, exact, refused=True)
            header, letters = records.pop()
            records.append((header, letters + line))
    return Plain(records[:-1] if broken else records, broken, exact, foreign)


def plain_fastq(lines: list[bytes], broken: bool, exact: bool) -> Plain:
    """What FASTQ holds, up to the first record that is none."""
    records: list[tuple[bytes, bytes]] = []
    while any(line.strip(BLANK) for line in lines):
        if not lines[0].strip(BLANK):
            lines = lines[1:]
            continue
        header, letters, plus, qualities = [*lines, b"", b"", b""][:4]
        last = len(lines) <= 4  # its fourth line lacks a line end
        letters = letters.strip(BLANK).replace(b".", b"N")
        short = len(lines) < 4 or (last and (broken or (letters and not qualities)))
        wrong = header[:1] != b"@" or (plus[:1] != b"+" and len(lines) > 3)
        if short or wrong:
            if broken and (short and not (wrong and not last)):
                return Plain(records, broken, exact)
            return Plain(records, broken or bool(records), exact, refused=not records)
        records.append((header[1:], letters))
        if last and len(qualities) < len(letters):
            return Plain(records, broken=True, exact=exact)
        lines = lines[4:]
    return Plain(records, broken, exact)


def unpacked(data: bytes) -> tuple[bytes, bool, bool, bytes]:
    """Text of a gzip file as far as it goes, whether it breaks and is certain; what lies behind."""
    text = bytearray()
    while data := data.lstrip(b"\0") if text or data[:1] != b"\x1f" else data:
        if not data.startswith(b"\x1f\x8b"):
            return bytes(text), False, True, data
        body = after_header(data)
        if body is None:
            return bytes(text), True, True, b""
        unpack, part = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
        try:
            for i in range(len(body)):
                part += unpack.decompress(body[i : i + 1])
                if unpack.eof:
                    data = body[i + 1 :]
                    break
        except zlib.error:
            return bytes(text + part), True, False, b""
        text += part
        if not unpack.eof:
            return bytes(text + unpack.flush()), True, True, b""
        if data[:8] != struct.pack("<II", zlib.crc32(part), len(part)):
            return bytes(text), True, True, b""
        data = data[8:]
    return bytes(text), False, True, b""


def after_header(data: bytes) -> bytes | None:
    """What follows a member's header; None if there is no whole one (RFC 1952)."""
    if len(data) < 10 or not data.startswith(b"\x1f\x8b\x08"):
        return None
    flags, at = data[3], 10
    if flags & 0xE0:
        return None
    if flags & 4:
        if len(data) < at + 2:
            return None
        at += 2 + int.from_bytes(data[at : at + 2], "little")
        if len(data) < at:
            return None
    for flag in (8, 16):
        if flags & flag:
            at = data.find(b"\0", at) + 1
            if not at:
                return None
    if flags & 2:
        if data[at : at + 2] != struct.pack("<H", zlib.crc32(data[:at]) & 0xFFFF):
            return None
        at += 2
    return data[at:] if at <= len(data) else None


def name_of(header: bytes) -> str:
    """The first word; one that is not UTF-8 is Latin-1; control letters are replaced."""
    word = next(iter(header.split()), b"")
    try:
        text = word.decode("utf-8")
    except UnicodeDecodeError:
        text = word.decode("latin-1")
    return "".join("\ufffd" if control(ord(x)) else x for x in text)


def control(code: int) -> bool:
    return code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029)


def is_dna(letters: bytes) -> bool:
    return set(letters.upper()) <= IUPAC


# Making inputs


def damaged(seed: int) -> bytes:
    """An input, whole or damaged, of a seed."""
    rng = random.Random(seed)
    text = damaged_text(rng)
    if rng.random() < 0.6:
        return text
    data = packed(text, rng)
    return rng.choice(PACKED_DAMAGES)(data, rng) if rng.random() < 0.7 else data


def damaged_text(rng: random.Random) -> bytes:
    """FASTA or FASTQ, whole or damaged."""
    text = whole_text(rng)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        text = rng.choice(DAMAGES)(text, rng)
    return text


def whole_text(rng: random.Random) -> bytes:
    """FASTA or FASTQ that is whole, of few records or of more than the first hundred."""
    number = rng.choice((0, 1, 2, 5, 20, 99, 101, 130))
    fastq = rng.random() < 0.3
    ends = rng.choice((b"\n", b"\n", b"\r\n", b"\n" if fastq else b"\r"))
    width = rng.choice((60, 70, 100_000, 7))
    short = number > 30
    text = b""
    for i in range(number):
        letters = LETTERS[37 * i : 37 * i + rng.choice(LENGTHS[: 9 if short else None])]
        name = rng.choice(NAMES) if rng.random() < 0.5 else b"r%d" % i
        lines = [letters[at : at + width] for at in range(0, len(letters), width)]
        record = (
            [b"@" + name, letters, b"+", b"I" * len(letters)] if fastq else [b">" + name, *lines]
        )
        text += ends.join(record) + ends
    return text


def _insert(text: bytes, rng: random.Random, token: bytes) -> bytes:
    at = rng.randint(0, len(text))
    return text[:at] + token + text[at:]


def _slice(text: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(text))
    return start, min(len(text), start + rng.choice((1, 2, 10, 500)))


def _without_slice(text: bytes, rng: random.Random) -> bytes:
    start, end = _slice(text, rng)
    return text[:start] + text[end:]


def _slice_twice(text: bytes, rng: random.Random) -> bytes:
    start, end = _slice(text, rng)
    return text[:end] + text[start:]


def _flipped(text: bytes, rng: random.Random) -> bytes:
    if not text:
        return text
    at = rng.randrange(len(text))
    return text[:at] + bytes([text[at] ^ 1 << rng.randrange(8)]) + text[at + 1 :]


def _noise(text: bytes, rng: random.Random) -> bytes:
    return _insert(text, rng, rng.randbytes(rng.choice((1, 3, 40))))


def _late(text: bytes, rng: random.Random) -> bytes:
    """A token somewhere in the last tenth, where a bad letter fails a record and not the file."""
    at = len(text) - rng.randint(0, len(text) // 10)
    return text[:at] + rng.choice(TOKENS) + text[at:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda text, rng: _insert(text, rng, rng.choice(TOKENS)),
    lambda text, rng: _insert(text, rng, rng.choice(TOKENS)),
    lambda text, rng: rng.choice(TOKENS) + text,
    lambda text, rng: text + rng.choice(TOKENS),
    lambda text, rng: text[: rng.randint(0, len(text))],
    lambda text, rng: text.rstrip(),
    lambda text, rng: b"\xef\xbb\xbf" + text,
    lambda text, rng: _insert(text, rng, b"\n>" + b"long " * 20_000 + b"\n"),
    lambda text, rng: _insert(text, rng, b"\n>wide\n" + LETTERS * 8 + b"\n"),
    lambda text, rng: text.replace(b"\n", rng.choice((b"\r", b"\r\n", b"\n\r", b"\n\n", b" \n"))),
    _without_slice,
    _slice_twice,
    _flipped,
    _noise,
    _late,
    _late,
)


def packed(text: bytes, rng: random.Random) -> bytes:
    """Gzip of one or several members, now and then with the optional parts of a header."""
    # A byte-order mark in two members is taken for text, which is no loss: the file is refused.
    least = min(3, len(text))
    cuts = sorted(rng.randint(least, len(text)) for _ in range(rng.choice((0, 0, 1, 3))))
    return b"".join(_member(text[a:b], rng) for a, b in pairwise((0, *cuts, len(text))))


def _member(text: bytes, rng: random.Random) -> bytes:
    data = gzip.compress(text, rng.choice((1, 6, 9)), mtime=0)
    flags = rng.choice((0, 0, 0, 4, 8, 16, 2, 30))
    extra = struct.pack("<H", 3) + b"abc" if flags & 4 else b""
    words = b"name\0" * bool(flags & 8) + b"comment\0" * bool(flags & 16)
    header = data[:3] + bytes([flags]) + data[4:10] + extra + words
    crc = struct.pack("<H", zlib.crc32(header) & 0xFFFF) if flags & 2 else b""
    return header + crc + data[10:]


PACKED_DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda data, rng: data[: rng.randint(0, len(data))],
    lambda data, rng: data[: max(0, len(data) - rng.randint(1, 9))],
    lambda data, rng: data + rng.choice((b"\0" * 512, b"garbage", b"\0\0x", b">x\nACGT\n")),
    lambda data, rng: data + rng.choice((data[:5], data, b"\x1f\x8b", b"\x1f", b"\x1f\x8b\x08")),
    lambda data, rng: data[:-8] + rng.randbytes(8),
    _without_slice,
    _flipped,
    _flipped,
    _noise,
)


# What must come out


def check_reader(data: bytes, path: Path) -> None:
    """Source gives exactly the records that are there, and says what is wrong; else it raises."""
    check_text(data, plain(data), path)


def check_text(data: bytes, expected: Plain, path: Path, *, may_break: bool = False) -> None:
    """As check_reader. may_break: whether an end that is missing may be said, too."""
    path.write_bytes(data)
    (source,) = open_sources([path])
    found, error = read(source)
    ending = "" if error is None else "broken" if isinstance(error, StreamBroken) else "refused"
    one_sentence(str(error or ""))
    wanted, refused = expected.records, expected.refused
    for i, (_, letters) in enumerate(wanted[:TRIAL_RECORDS]):
        if not is_dna(letters):
            wanted, refused = wanted[:i], True
            break
    if may_break and ending == "broken":
        assert len(wanted) - 1 <= len(found) <= len(wanted)
    elif expected.exact:
        end = "refused" if refused else "broken" if expected.broken else ""
        assert (len(found), ending) == (len(wanted), end), error
    else:
        assert ending, "damaged data were taken for whole"
        assert len(found) <= len(wanted)
    for number, (contig, (header, letters)) in enumerate(zip(found, wanted, strict=False), 1):
        good = is_dna(letters)
        assert (contig.record, contig.name) == (number, name_of(header))
        assert (contig.sequence, contig.fault == "") == (letters if good else b"", good)


def read(source: Source) -> tuple[list[Contig], InputError | None]:
    """The contigs of an input, and what ended it."""
    found: list[Contig] = []
    try:
        found.extend(source.contigs())
    except InputError as error:
        return found, error
    return found, None


def one_sentence(text: str) -> None:
    """A sentence fits on a line and tells no Python."""
    assert "\n" not in text
    assert not re.search(r"Traceback|Error\b|Exception| at 0x", text), text


def check_predict(data: bytes, folder: Path, bundle: Path, chunk_nt: int) -> None:
    """The command keeps every record, or ends with one sentence; folder is empty and stays ours."""
    path, out = folder / "in.fa", folder / "out"
    path.write_bytes(data)
    try:
        outcome = predict(path, bundle, out)
        code, said = outcome.exit_code, outcome.error
    except VirnucproError as error:
        code, said = error.exit_code, str(error)
    assert code in (0, 1, 2), (code, said)
    assert bool(said) == (code == 1), (code, said)
    one_sentence(said or "")
    document = json.loads((out / "run.json").read_bytes())
    assert document["exit_code"] == code
    (source,) = open_sources([path])
    contigs, error = read(source)  # check_reader compares these with the plain parser
    assert error is None or code == 1
    if error is not None and not isinstance(error, StreamBroken):
        assert not any((out / name).exists() for name in TABLES)
        return
    faulty = [c for c in contigs if c.fault]
    if code != 1:
        assert code == (2 if faulty else 0)
    rows = table(out / "contigs.tsv")
    found = [(r["record"], r["contig"], r["length_nt"], r["status"] == "failed") for r in rows]
    assert found == [(str(c.record), c.name, str(c.length_nt), c.fault != "") for c in contigs]
    if faulty:
        failed = table(out / "failed.tsv")
        assert [r["record"] for r in failed] == [str(c.record) for c in faulty]
    calls = table(out / "calls.tsv")
    assert [(r["record"], r["contig"], r["start"], r["end"]) for r in calls] == [
        (str(c.record), c.name, str(start), str(end))
        for c in contigs
        for start, end in chunk_spans(len(c.sequence), chunk_nt)
    ]
    called = [r for r in calls if r["call"] != "none"]
    ids = [r["Modified_ID"] for r in table(out / "prediction_results_highestscore.csv")]
    assert len(ids) == len(set(ids)) == len(called)
    assert len(table(out / "prediction_results.txt")) == len(called)
    virus = [c for c, row in zip(contigs, rows, strict=True) if row["call"] == "virus"]
    copied = plain((out / "viral.fasta").read_bytes())
    assert [(name_of(h), letters) for h, letters in copied.records] == [
        (c.name, c.sequence) for c in virus
    ]
    counts = document["counts"]
    assert counts["records"] == len(contigs) == counts["called"] + counts["none"] + counts["failed"]
