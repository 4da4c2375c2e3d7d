"""One rule from labels to elements."""

import numpy as np
import pytest

from ase_mlelec.checks import check_count, check_finite
from ase_mlelec.io.text import element_of


@pytest.mark.parametrize(
    "label, symbol",
    [
        ("Si", "Si"),
        ("SI", "Si"),
        ("si", "Si"),
        ("Si1", "Si"),
        ("SI_2", "Si"),
        ("si-bulk", "Si"),
        (" Si ", "Si"),
        ("'O'", "O"),
        ("O1", "O"),
        ("O_w", "O"),
        ("Oa", "O"),
        ("H2", "H"),
        ("h", "H"),
        ("D", "H"),
        ("T1", "H"),
        ("C_h", "C"),
        ("Co", "Co"),
        ("CO", "Co"),
        ("Fe3", "Fe"),
        ("fe", "Fe"),
        ("Zn.1", "Zn"),
    ],
)
def test_labels_of_programs(label, symbol):
    assert element_of(label) == symbol


@pytest.mark.parametrize("label", ["", "1", "_Si", "X", "Qq", "*", "Éa", "TYPE_0", "Type1", "Dummy"])
def test_what_is_no_label(label):
    with pytest.raises(ValueError, match="no chemical symbol"):
        element_of(label)


def test_finite_numbers_pass():
    values = np.eye(3)
    assert check_finite("x.out", "the cell", values) is values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_others_are_refused_with_their_place(bad):
    values = np.zeros((2, 3))
    values[1, 2] = bad
    with pytest.raises(ValueError, match=r"^x.out: the force is NaN or infinite \(entry 2, 3\)"):
        check_finite("x.out", "the force", values)


def test_a_count_must_fit_the_file(tmp_path):
    path = tmp_path / "small.out"
    path.write_text("0" * 100)
    assert check_count(path, "atoms", 10, 10) == 10
    for count in (11, 10**12, -1, float("inf")):
        with pytest.raises(ValueError, match="more than a file of its size|claims"):
            check_count(path, "atoms", count, 10)
