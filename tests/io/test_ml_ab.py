"""ML_AB: numbers that were written into it, the same as OUTCAR of the same steps, and files that are refused."""

import gzip
import re

import numpy as np
import pytest
from small_vasp import example, ml_ab, outcar

from ase_mlelec.data.frames import has_keys, read_all, read_frames
from ase_mlelec.io.ml_ab import is_ml_ab, read_ml_ab
from ase_mlelec.io.vasp import VaspError


def structures(n_steps=2):
    data = example(n_steps=n_steps)
    return [(data["symbols"], data["cell"], step) for step in data["steps"]]


def write(folder, text, name="ML_ABN"):
    path = folder / name
    path.write_text(text)
    return path


def test_the_same_as_outcar(tmp_path):
    path = write(tmp_path, ml_ab(structures()))
    (tmp_path / "OUTCAR").write_text(outcar(example()))
    frames, others = read_frames(path), read_frames(tmp_path / "OUTCAR")
    assert is_ml_ab(path) and not has_keys(path) and frames.counts == others.counts
    for frame, other in zip(frames, others, strict=True):
        assert frame.labels["energy"] == pytest.approx(other.labels["energy"], abs=1e-8)
        assert np.allclose(frame.labels["forces"], other.labels["forces"], atol=1e-6)
        assert np.allclose(frame.labels["virial"], other.labels["virial"], atol=1e-4)
        assert np.allclose(frame.atoms.positions, other.atoms.positions, atol=1e-5)
        assert np.allclose(frame.atoms.cell, other.atoms.cell, atol=1e-8) and frame.atoms.pbc.all()
        assert list(frame.atoms.symbols) == ["Na", "Cl"]


def test_structures_of_other_atoms(tmp_path):
    """A folder with ML_AB alone, and files of any name, packed or of Windows."""
    (first, cell, step), other = structures()[0], structures()[1]
    one = {**step, "fractions": step["fractions"][:1], "forces": step["forces"][:1]}
    text = ml_ab([(first, cell, step), (["Cl"], cell, one), other])
    write(tmp_path, text)
    assert [len(frame.atoms) for frame in read_all([tmp_path])] == [2, 1, 2]
    (tmp_path / "water.txt").write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    assert [str(frame.atoms.symbols) for frame in read_frames(tmp_path / "water.txt")] == ["NaCl", "Cl", "NaCl"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text[: len(text) // 2], "structure 1: got .* numbers of|got 1 structures, .* says 2"),
        (lambda text: text[:-3], r"structure 2: got 0 numbers of .XY YZ ZX., need 3; VASP did not finish"),
        (lambda text: text.replace("         2\n", "         3\n", 1), "got 2 structures, .* says 3"),
        (lambda text: re.sub("Cl +1", "Cl 2", text, count=1), "structure 1: got 6 numbers of .Atomic positions"),
        (lambda text: re.sub("Cl +1", "Cl x", text, count=1), "structure 1: kinds of atoms not understood"),
        (lambda text: re.sub("Na +1", "Xq 1", text, count=1), "the label 'Xq' begins with no chemical symbol"),
        (
            lambda text: text.replace("-7.000000000000000E+00", "**********************", 1),
            "Total energy .* than numbers",
        ),
        (lambda text: text.replace("-7.000000000000000E+00", "NaN", 1), "Total energy .* NaN or infinite"),
    ],
)
def test_refused(change, message, tmp_path):
    path = write(tmp_path, change(ml_ab(structures())))
    with pytest.raises(VaspError, match=message) as caught:
        read_ml_ab(path)
    assert str(caught.value).startswith(f"{path}: ")
