"""Every calculator with the structures of scripts, relaxations and damaged files: finite results or errors of ASE."""

import random
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, InputError, PropertyNotImplementedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import judged
from small_bilayers import mx2_bilayer, random_wannier_model
from small_ldos import random_ldos_model
from small_models import WANNIER, random_model
from worker import Worker

from ase_mlelec import (
    CombinedCalculator,
    DeepDOSCalculator,
    DeepPotCalculator,
    DeepWannierCalculator,
    MLDFTCalculator,
    WannierTBCalculator,
)
from ase_mlelec.testing import random_atoms

ERRORS = InputError, PropertyNotImplementedError, CalculationFailed, CalculatorSetupError
OTHERS = ["X", "Ge", "H", "Og", "Si", "O"]
SIZES = [0.0, 1e-12, 1e-3, 0.1, 0.5, 2.0, 10.0, 1e6, 1e200, 1e308, np.nan, np.inf, -1.0]


# changes of a structure, each with random numbers ------------------------------------------------------------------


def some_place(atoms, rng):
    if len(atoms):
        atoms.positions[rng.randrange(len(atoms)), rng.randrange(3)] = rng.choice(SIZES)


def scaled(atoms, rng):
    atoms.set_cell(atoms.cell.array * rng.choice(SIZES), scale_atoms=False)


def compressed(atoms, rng):
    factor = rng.choice([0.05, 0.3, 0.5, 0.8, 1.5, 3.0])
    atoms.set_cell(atoms.cell.array * factor)
    atoms.positions *= factor


def vector(atoms, rng):
    """Zero, another one, turned round, or of another length."""
    cell = atoms.cell.array.copy()
    a, b = rng.sample(range(3), 2)
    cell[a] = rng.choice(
        [
            lambda: 0 * cell[a],
            lambda: cell[b],
            lambda: -cell[a],
            lambda: cell[a] * rng.choice([1e-3, 1e7]),
            lambda: cell[a] + 30 * cell[b],
        ]
    )()
    atoms.set_cell(cell)


def no_cell(atoms, rng):
    atoms.cell = None


def directions(atoms, rng):
    atoms.pbc = [rng.random() < 0.5 for _ in range(3)]


def on_top(atoms, rng):
    if len(atoms) > 1:
        a, b = rng.sample(range(len(atoms)), 2)
        atoms.positions[a] = atoms.positions[b] + rng.choice([0.0, 1e-9, 1e-3, 0.05, 0.3, 0.7])


def species(atoms, rng):
    if len(atoms):
        atoms.symbols[rng.randrange(len(atoms))] = rng.choice(OTHERS)


def number(atoms, rng):
    if len(atoms):
        atoms.numbers[rng.randrange(len(atoms))] = rng.choice([0, -1, 119, 999])


def fewer(atoms, rng):
    del atoms[rng.choice([slice(None), slice(1, None), slice(0, 1)])]


def more(atoms, rng):
    if len(atoms):
        atoms += atoms[rng.randrange(len(atoms)) :]


def elsewhere(atoms, rng):
    """Whole cells away, or all together somewhere else."""
    atoms.positions += rng.choice([1e3, 1e9, 1e15, -50.0]) * rng.choice([np.ones(3), np.array([0, 0, 1.0])])


def same_place(atoms, rng):
    atoms.positions[:] = rng.choice([0.0, 1.0])


CHANGES = [
    some_place,
    scaled,
    compressed,
    vector,
    no_cell,
    directions,
    on_top,
    species,
    number,
    fewer,
    more,
    elsewhere,
    same_place,
    compressed,
    directions,
]
NUMBER = st.integers(0, 2**24 - 1)
EDITS = st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=3)


def changed(atoms, edits):
    atoms = atoms.copy()
    for choice, seed in edits:
        with np.errstate(all="ignore"):
            CHANGES[choice % len(CHANGES)](atoms, random.Random(seed))
    return atoms


# the calculators -----------------------------------------------------------------------------------------------------


def spectra(calculator, atoms):
    return [calculator.get_ados(atoms), calculator.get_total_dos(atoms), calculator.get_fermi_level(atoms=atoms)]


def wannier(calculator, atoms):
    return [calculator.get_property(name, atoms) for name in ("dipole", "energy", "forces")]


def usual(calculator, atoms):
    return [calculator.get_property(name, atoms) for name in ("energy", "forces", "stress")]


def first(calculator, atoms):
    """Without the stress, which molecules and slabs do not have."""
    return [calculator.get_property(name, atoms) for name in ("energy", "forces")]


SILICA, MOS2 = random_atoms("Si3O2", cell=[4.7, 6.0, 5.5]), mx2_bilayer((0.2, 0.1))
ALUMINA = random_atoms("Al2O", cell=[4.2, 4.0, 4.4])
CALCULATORS = {
    "deep_pot": (lambda: DeepPotCalculator(random_model()), SILICA, usual),
    "deep_pot_skin": (lambda: DeepPotCalculator(random_model(), skin=0.5), SILICA, first),
    "deep_dos": (lambda: DeepDOSCalculator(random_model(0, ("energy", "dos"))), SILICA, spectra),
    "deep_wannier": (
        lambda: DeepWannierCalculator(random_model(0, ("energy", "dipole"), metadata=WANNIER)),
        SILICA,
        wannier,
    ),
    "ml_dft": (lambda: MLDFTCalculator(random_ldos_model()), ALUMINA, first),
    "wannier_tb": (
        lambda: WannierTBCalculator(random_wannier_model()),
        MOS2,
        lambda calculator, atoms: [
            calculator.get_eigenvalues(atoms=atoms),
            calculator.get_hamiltonian(atoms).eigenvalues([[0.1, 0.2, 0]]),
        ],
    ),
    "combined": (
        lambda: CombinedCalculator([DeepPotCalculator(random_model()), DeepDOSCalculator(random_model(1, ("dos",)))]),
        SILICA,
        first,
    ),
}


@pytest.mark.parametrize("name", CALCULATORS)
def test_changed_structures(name, fuzz):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        make, atoms, ask = CALCULATORS[name]
        calculator = make()

    def check(found):
        for array in found:
            assert np.size(array), "an empty array"

    worker = Worker(lambda structure: judged(lambda: ask(calculator, structure), (), ERRORS, check))
    try:
        verdict = worker(atoms)
        assert verdict.finding is None and verdict.outcome == "read", verdict

        @settings(
            max_examples=fuzz.inputs,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(EDITS)
        def test(edits):
            fuzz.take(worker(changed(atoms, edits)), edits)

        test()
    finally:
        worker.close()
    fuzz.check()


def test_no_atoms_at_all():
    with pytest.raises(InputError, match="empty Atoms object"):
        DeepPotCalculator(random_model()).get_property("energy", Atoms())
