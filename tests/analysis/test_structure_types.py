import sys

import numpy as np
import pytest
from ase.build import bulk

from ase_mlelec.analysis.structure_types import DIAMOND_TYPES, diamond_structure


def test_diamond_and_what_is_none():
    pytest.importorskip("ovito", reason="needs ovito")
    silicon = bulk("Si", cubic=True) * (3, 3, 3)
    silicon.rattle(0.1, rng=np.random.default_rng(0))
    assert {DIAMOND_TYPES[kind] for kind in diamond_structure(silicon)} == {"cubic diamond"}
    assert not diamond_structure(bulk("Cu", cubic=True) * (3, 3, 3)).any()
    del silicon[0]  # next to a vacancy, first and second neighbors of atoms in the crystal
    found = np.bincount(diamond_structure(silicon), minlength=7)
    assert found[1:4].sum() == len(silicon) - found[0] and found[2] + found[0] >= 4 and found[1] > 100


def test_names_are_those_of_ovito():
    modifiers = pytest.importorskip("ovito.modifiers", reason="needs ovito")
    names = [kind.name for kind in modifiers.IdentifyDiamondModifier().structures]
    short = [name.lower().replace(" (", ", ").replace("1st", "first").replace("2nd", "second") for name in names]
    assert short == [f"{name})" if "neighbor" in name else name for name in DIAMOND_TYPES]


def test_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ovito", None)
    monkeypatch.setitem(sys.modules, "ovito.io.ase", None)
    with pytest.raises(ValueError, match=r"needs OVITO .*pip install ase-mlelec\[cna\]"):
        diamond_structure(bulk("Si"))
