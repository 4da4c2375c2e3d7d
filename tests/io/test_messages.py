"""What messages quote of a file, and what ASE's trajectories may claim."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_mlelec.checks import printable
from ase_mlelec.data.frames import read_frames


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a  b", "a  b"),
        ("a\n  b\t", "a b"),
        ("a\x1b[1mb", "a?[1mb"),
        ("é\u2028x\0", "é x?"),
        ("1" * 300, "1" * 200 + "..."),
        (ValueError("x"), "x"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown and len(printable(text, 5)) <= 8


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b"[[2, 3]", b"[[99,9]", r"an array of shape \(99, 9\) at byte \d+ is claimed, the file has \d+ bytes"),
        (b"[[2, 3]", b"[[-2,3]", r"an array of shape \(-2, 3\)"),
    ],
)
def test_trajectory_that_claims_more_than_it_has(tmp_path, old, new, message):
    atoms = Atoms("SiO", [[0, 0, 0], [1.4, 1.3, 1.2]], cell=[5, 5, 5], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((2, 3)))
    path = tmp_path / "a.traj"
    ase.io.write(path, [atoms, atoms])
    content = path.read_bytes()
    assert len(read_frames(path)) == 2 and b'"positions.": {"ndarray": ' + old in content
    path.write_bytes(content.replace(b'"positions.": {"ndarray": ' + old, b'"positions.": {"ndarray": ' + new))
    with pytest.raises(ValueError, match=f"a.traj: ASE cannot read it .ValueError: {message}"):
        read_frames(path)
    for place, what in ((40, "numbers at byte"), (32, "numbers at byte")):  # of the table, number of items
        path.write_bytes(content[:place] + np.array([2**40]).tobytes() + content[place + 8 :])
        with pytest.raises(ValueError, match=f"a.traj: ASE cannot read it .ValueError: .*{what}"):
            read_frames(path)
