"""Journal: a file to which rows are appended, of which every row is complete and checked, or not there.

A record is MAGIC, the length of its payload (8 bytes, little-endian), the payload's BLAKE2b digest (16 bytes) and the
payload. The first record tells, as JSON, to which HDF5 file the rows belong ("run") and the number of the first one
("first"); each of the others is a row: the length of a JSON head (4 bytes), the head [number, [[name, dtype, shape],
...]], and the numbers of the arrays, one after the other.
"""

import hashlib
import json
import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import BinaryIO

import numpy as np

from ase_mlelec.atomic_write import replacing

MAGIC = b"\x93ROW"
# what to do with a file that cannot be gone on with, and with one that is damaged
ANEW = "give another file, or resume=False to start it anew"
AGAIN = "copy the file again from where it is whole, or give resume=False to start it anew"
HEAD = struct.Struct("<4sQ16s")
LENGTH = struct.Struct("<I")


class Journal:
    """The end of a journal at which rows are written; begins a new file in place of an old one.

    A row has been handed to the operating system, in one piece, when ``append`` returns: it survives the end of the
    process. What a power failure leaves is checked like the rest.
    """

    def __init__(self, path: str | PathLike, run: str, first: int) -> None:
        self.path, self.n_rows = path, first
        content = _packed(json.dumps({"run": run, "first": first}).encode())
        with replacing(path) as partial:
            partial.write_bytes(content)
        self._file, self._end = open(path, "r+b", buffering=0), len(content)  # noqa: SIM115

    def append(self, rows: Sequence[Mapping]) -> None:
        """Add rows, list of dict of array. OSError where they cannot be written; earlier rows do not change."""
        content = memoryview(b"".join(_packed(_encoded(self.n_rows + k, row)) for k, row in enumerate(rows)))
        end = self._end
        try:
            self._file.truncate(end)  # what an interrupted call left behind
            self._file.seek(end)
            while content:
                written = self._file.write(content)
                content, end = content[written:], end + written
        except BaseException:
            self._file.truncate(self._end)
            raise
        self._end, self.n_rows = end, self.n_rows + len(rows)

    def close(self) -> None:
        self._file.close()


def read_run(file: BinaryIO, path: str | PathLike) -> tuple:
    """(run, number of the first row) of a journal, open file at its beginning; ValueError where they are damaged."""
    payload, _ = next(_records(file, os.fstat(file.fileno()).st_size), (None, False))
    if payload is None:
        raise ValueError(
            f"{path}: is damaged at its beginning; copy it again from where it is whole, or delete it to "
            "go on without its rows"
        )
    head = json.loads(payload)
    return head["run"], head["first"]


def read_rows(file: BinaryIO, path: str | PathLike, first: int) -> Iterator:
    """Iterate over the (place, dict of array) of rows, from behind the first record of the open file on.

    A last row that was cut off is left out. One that is complete but has other numbers than were written is left out
    with a warning if it is the last one; otherwise ValueError.
    """
    number = first
    for payload, good_ones_follow in _records(file, os.fstat(file.fileno()).st_size):
        if payload is None:
            if good_ones_follow:
                raise ValueError(f"{path}: row {number} is damaged, rows behind it are not; {AGAIN}")
            warnings.warn(f"{path}: row {number}, the last one, is damaged and left out", stacklevel=2)
            return
        place, row = _decoded(payload)
        if place != number:
            raise ValueError(f"{path}: got row {place} where row {number} should be; {AGAIN}")
        yield place, row
        number += 1


def _packed(payload):
    return HEAD.pack(MAGIC, len(payload), _digest(payload)) + payload


def _digest(payload):
    return hashlib.blake2b(payload, digest_size=16).digest()


def _encoded(number, row):
    arrays = {name: np.asarray(value) for name, value in row.items()}
    head = json.dumps([number, [[name, array.dtype.str, array.shape] for name, array in arrays.items()]]).encode()
    return b"".join([LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays.values())])


def _decoded(payload):
    place = LENGTH.size + LENGTH.unpack_from(payload)[0]
    number, described = json.loads(payload[LENGTH.size : place])
    row = {}
    for name, dtype, shape in described:
        count = int(np.prod(shape))
        row[name] = np.frombuffer(payload, dtype, count, place).reshape(shape)
        place += row[name].nbytes
    return number, row


def _records(file, size):
    """Iterate over (payload, True), and at a damaged record over (None, whether good ones follow) as the last one.

    Ends at a record that was cut off.
    """
    while (start := file.tell()) + HEAD.size <= size:
        payload, rest = _record(file.read(HEAD.size), file, size - start - HEAD.size)
        if payload is not None:
            yield payload, True
            continue
        follow = _holds_record(file, start + 1, size)
        if follow or not rest:  # otherwise it was cut off, as where the process was killed
            yield None, follow
        return


def _record(head, file, left):
    """(payload or None, whether the record may go on behind the ``left`` bytes of the file)"""
    magic, length, digest = HEAD.unpack(head)
    if magic != MAGIC or length > left:
        return None, magic == MAGIC
    payload = file.read(length)
    return (payload if _digest(payload) == digest else None), False


def _holds_record(file, start, size):
    """Whether a good record begins somewhere behind ``start``."""
    file.seek(start)
    content = file.read(size - start)
    place = content.find(MAGIC)
    while place >= 0:
        if len(content) - place >= HEAD.size:
            _, length, digest = HEAD.unpack_from(content, place)
            first = place + HEAD.size
            if length <= len(content) - first and _digest(content[first : first + length]) == digest:
                return True
        place = content.find(MAGIC, place + 1)
    return False
