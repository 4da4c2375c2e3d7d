"""Files damaged as disks, transfers, editors and other programs damage them: of bytes, of text and of contents.

A damage is a list of edits, each three integers that choose the file, what is done to it, and where and with what.
"""

import gzip
import random
import re

import damage_contents as contents

# in the place of a number or a word
TOKENS = [
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e400",
    "-1e400",
    "1e308",
    "1e-400",
    "***",
    "-1",
    "0",
    "1",
    "",
    "99999999999",
    "9" * 400,
    "1.0D+02",
    "1_0",
    "0x10",
    "x",
    "\0",
    "é",
    "٣",
    "+",
    "1e",
    "T",
    "<a>",
    "&#0;",
    "2*0",
    "1.5",
    "\x0c",
    "\u2028",
    '"',
    "[",
    "{}",
]
# in the place of a value in TOML
VALUES = [
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "9" * 400,
    "99999999999",
    "true",
    '""',
    '"x"',
    "[]",
    "{}",
    "[[1]]",
    "[1, 'a']",
    "1.5",
    "-0.0",
    "1979-05-27",
    "[nan]",
    "[1e308, -1]",
    '"\\u0000"',
    '"../x"',
    "'/'",
    "[" * 5000,
]
NUMBER = re.compile(rb"[-+]?\d+\.?\d*(?:[eEdD][-+]?\d+)?")


def damaged(files, edits):
    """dict name -> bytes, the files after the edits: those of contents come before those of bytes."""
    files = dict(files)
    for which, operation, _, seed in sorted(
        ((which, *_operation(files, which, choice), seed) for which, choice, seed in edits), key=lambda edit: edit[2]
    ):
        name = sorted(files)[which % len(files)]
        files[name] = _applied(name, files[name], operation, random.Random(seed))
    return files


def _operation(files, which, choice):
    """(function, whether it knows nothing of the format)"""
    name = sorted(files)[which % len(files)].removesuffix(".gz")
    format_, bytes_ = FORMATS.get(name.rpartition(".")[2], (TEXT, BYTES))
    # the format's own half of the time
    own, others = (format_, bytes_) if choice % 2 else (bytes_, format_)
    chosen = own or others
    operation = chosen[choice // 2 % len(chosen)]
    return operation, operation in BYTES


def _applied(name, content, operation, rng):
    if not name.endswith(".gz"):
        return operation(content, rng)
    if rng.random() < 0.3:
        return rng.choice(BYTES)(content, rng)
    try:
        return gzip.compress(operation(gzip.decompress(content), rng), mtime=0)
    except Exception:  # damaged before
        return content


def _span(content, rng, longest=64):
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice([1, 2, 4, 8, rng.randint(1, longest), len(content) // 4]))


# bytes ---------------------------------------------------------------------------------------------------------------


def cut(content, rng):
    return content[: rng.choice([rng.randrange(len(content) + 1), len(content) - rng.randint(1, 20)])]


def flip(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 5, 50]) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def drop(content, rng):
    start, stop = _span(content, rng)
    return content[:start] + content[stop:]


def overwrite(content, rng):
    start, stop = _span(content, rng)
    return content[:start] + bytes([rng.choice([0, 255, rng.randrange(256)])]) * (stop - start) + content[stop:]


def insert(content, rng):
    start, _ = _span(content, rng)
    return content[:start] + rng.randbytes(rng.choice([1, 8, 1000])) + content[start:]


def double(content, rng):
    return content + content


def empty(content, rng):
    return rng.choice([b"", b"\n", b"\0" * len(content), b" "])


BYTES = [cut, flip, drop, overwrite, insert, flip, cut, double, empty]


# text ----------------------------------------------------------------------------------------------------------------


def cut_line(content, rng):
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: rng.randrange(len(lines) + 1)])


def edit_lines(content, rng):
    """Some lines in a row are left out, are there twice, come in another order or change places with others."""
    lines = content.splitlines(keepends=True)
    start, stop = _span(lines, rng, 20)
    part, other = lines[start:stop], rng.randrange(len(lines) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        part = []
    elif kind == 1:
        part = part * rng.choice([2, 2, 50])
    elif kind == 2:
        part = part[::-1]
    else:
        rest = lines[:start] + lines[stop:]
        return b"".join(rest[:other] + part + rest[other:])
    return b"".join(lines[:start] + part + lines[stop:])


def replace_number(content, rng):
    found = list(NUMBER.finditer(content))
    for match in sorted(rng.sample(found, min(len(found), rng.choice([1, 1, 1, 3]))), key=lambda m: -m.start()):
        content = content[: match.start()] + rng.choice(TOKENS).encode() + content[match.end() :]
    return content


def replace_word(content, rng):
    parts = re.split(rb"(\s+)", content)
    place = rng.randrange(0, len(parts), 2)
    parts[place] = rng.choice([rng.choice(TOKENS).encode(), rng.choice(parts[::2]), parts[place] * 2])
    return b"".join(parts)


def replace_blank(content, rng):
    """Another character, a number more, or nothing between two words."""
    parts = re.split(rb"(\s+)", content)
    if len(parts) > 1:
        parts[rng.randrange(1, len(parts), 2)] = rng.choice(
            [b"", b"\t", b"\n", b"\n\n", b"\0", b", ", b" 7 ", b"  #", b"\r", b"\x85", b" "]
        )
    return b"".join(parts)


def encode(content, rng):
    text = content.decode("utf-8", errors="replace")
    return rng.choice(
        [
            lambda: content.replace(b"\n", b"\r\n"),
            lambda: content.replace(b"\n", b"\r"),
            lambda: b"\xef\xbb\xbf" + content,
            lambda: text.encode("utf-16"),
            lambda: b"\xe9" + content,
            lambda: text.upper().encode(),
            lambda: content.replace(b" ", b"\t"),
            lambda: content.replace(b".", b","),
            lambda: content.replace(b"E", b"D"),
            lambda: content.rstrip(b"\n"),
        ]
    )()


def compress(content, rng):
    """As a whole, or damaged in the end; or a small file that expands to a large one."""
    if rng.random() < 0.1:
        return gzip.compress(content + rng.choice([b"0", b" ", b"\n"]) * 10**7, mtime=0)
    packed = gzip.compress(content, mtime=0)
    return rng.choice(
        [
            lambda: packed,
            lambda: cut(packed, rng),
            lambda: flip(packed, rng),
            lambda: packed * 2,
            lambda: packed + b"garbage",
        ]
    )()


def lengthen(content, rng):
    """A line or the whole that is far too long."""
    start, _ = _span(content, rng)
    return content[:start] + rng.choice([b"1", b"1 ", b"x", b"(", b"[", b"<a>", b"\n", b" "]) * 20_000 + content[start:]


TEXT = [
    replace_number,
    edit_lines,
    replace_word,
    replace_number,
    cut_line,
    replace_blank,
    encode,
    replace_number,
    compress,
    lengthen,
]


def replace_value(content, rng):
    """Another value of a key in TOML."""
    found = list(re.finditer(rb"(?m)^\s*[\w.]+\s*=\s*(.*)$", content))
    if not found:
        return content
    match = rng.choice(found)
    return content[: match.start(1)] + rng.choice(VALUES).encode() + content[match.end(1) :]


def add_key(content, rng):
    lines = content.split(b"\n")
    key = rng.choice([b"x", b"__class__", b"folder", b"seed", b"widths", b"files", b"cutoff", b"''"])
    lines.insert(rng.randrange(len(lines) + 1), key + b" = " + rng.choice(VALUES).encode())
    return b"\n".join(lines)


# the last part of a file's name -> (operations of its format, of bytes)
FORMATS = {
    "toml": ([replace_value, add_key, *TEXT], BYTES),
    "json": ([*contents.JSON, replace_number], BYTES),
    "npy": (contents.NPY, BYTES),
    "safetensors": (contents.SAFETENSORS, BYTES),
    **dict.fromkeys(("h5", "hdf5", "dp"), (contents.HDF5, BYTES)),
    "checkpoint": (contents.CHECKPOINT, BYTES),
    **dict.fromkeys(("traj", "journal"), ([], BYTES)),
}
