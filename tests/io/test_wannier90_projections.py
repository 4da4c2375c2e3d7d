"""The projections block: which atom and orbital every function belongs to, in Wannier90's order."""

import pytest

from ase_mlelec.io.wannier90 import Wannier90Error, lower_excluded, projections_of, read_win

WIN = """begin unit_cell_cart
3 0 0
0 4 0
0 0 9
end unit_cell_cart
begin atoms_frac
S1 0 0 0.1
Mo 0.5 0.5 0.2
S2 0 0 0.3
S1 0.5 0 0.1
end atoms_frac
begin projections
{}
end projections
"""
Z, X = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)


def functions(folder, *lines):
    path = folder / "x.win"
    path.write_text(WIN.format("\n".join(lines)))
    return projections_of(path, read_win(path))


def names(found):
    return [(each.atom, each.orbital) for each in found]


@pytest.mark.parametrize(
    "lines, expected",
    [
        (["Mo: d"], [(1, name) for name in ("dz2", "dxz", "dyz", "dx2-y2", "dxy")]),
        (["s1 : py ; s"], [(0, "s"), (0, "py"), (3, "s"), (3, "py")]),
        (["S2:l=1,mr=1,3", "S1:l=0"], [(2, "pz"), (2, "py"), (0, "s"), (3, "s")]),
        (["Mo:dx^2-y^2;dz2"], [(1, "dz2"), (1, "dx2-y2")]),
        (["f=0.5,0.5,1.2: px"], [(1, "px")]),
        (["Ang", "c= 1.5,2.0,1.8 :l=1"], [(1, "pz"), (1, "px"), (1, "py")]),
    ],
)
def test_order(tmp_path, lines, expected):
    assert names(functions(tmp_path, *lines)) == expected


def test_axes(tmp_path):
    (first, second) = functions(tmp_path, "Mo: pz: z=0,3,0 : x=0,0,-2 : r=1 : zona=2.0", "Mo: s")
    assert (first.z, first.x) == ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)) and (second.z, second.x) == (Z, X)


@pytest.mark.parametrize(
    "line, message",
    [
        ("random", "it asks for random functions"),
        ("Mo", "it names no orbital"),
        ("Mo: sp3", "sp3 is no s, p or d function"),
        ("Mo: l=-3", "l = -3"),
        ("Mo: l=1,mr=4", "m_r is too large"),
        ("Se: p", "no atom is called Se"),
        ("f=0.1,0.1,0.1: s", "no atom is at its site"),
        ("Mo: s(u)", "it has a spin"),
        ("Mo: s: z=1,0,0", "axes are not perpendicular"),
        ("Mo: s: z=0,0,0", "the axis z is zero"),
        ("", "no block of projections"),
    ],
)
def test_refused(tmp_path, line, message):
    with pytest.raises(Wannier90Error, match=message):
        functions(tmp_path, line)


@pytest.mark.parametrize(
    "text, count",
    [
        ("", 0),
        ("1-12", 12),
        ("1 2, 3, 35-40", 3),
        ("2-4", 0),
        ("1:4", 4),
        ("1 - 4, 9", 4),
        ("1;2 3", 3),
        ("4-1", 4),  # as wannier90.x 3.1 takes them
    ],
)
def test_excluded_bands(text, count):
    assert lower_excluded(text) == count


def test_excluded_bands_that_cannot_be_read():
    with pytest.raises(ValueError, match="got 'one', need bands and ranges"):
        lower_excluded("one")
