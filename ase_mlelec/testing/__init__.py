"""Contract tests: what every descriptor, head, model and calculator must obey, for other packages to inherit.

Write a pytest class that inherits a contract and makes the object; everything else is inherited::

    from ase_mlelec.testing import CalculatorContract, random_atoms

    class TestMyCalculator(CalculatorContract):
        def make_model(self, seed=0):
            return my_small_model(seed)                         # float64; seeds make different members of a committee
        def make_calculator(self, model, **options):
            return MyCalculator(model, **options)               # options: dtype, skin, ...
        def make_atoms(self):
            return random_atoms("Si4O3", cell=[6, 7, 8])        # every call the same, at least two atoms

``HabitsContract`` needs the same three: what people do with ASE's calculators beside asking for energies, such as
changing structures and sharing calculators. ``DescriptorContract`` needs ``make_descriptor`` and ``make_atoms``, and
so does ``EnvironmentContract``, for modules that need more than edges; ``HeadContract`` needs ``make_head`` and
``make_environment``, ``HeadOfPairsContract`` ``make_head``, ``make_descriptor`` and ``make_atoms``, ``ModelContract``
``make_model`` and ``make_atoms``. Structures should have no symmetry; run each contract with a cell smaller than the
cutoff, a slab and a molecule as well.
Needs pytest (extra ``test``).
"""

from ase_mlelec.testing.calculators import CalculatorContract, counted, turn
from ase_mlelec.testing.descriptors import DescriptorContract, EnvironmentContract, ForceDescriptorContract
from ase_mlelec.testing.habits import HabitsContract
from ase_mlelec.testing.models import HeadContract, HeadOfPairsContract, ModelContract, assert_same_model, load_again
from ase_mlelec.testing.structures import (
    assert_close,
    assert_continuous,
    doubled,
    five_point,
    pair_at_cutoff,
    random_atoms,
    random_rotation,
    shifted_by_cells,
    turned,
)

__all__ = [
    "CalculatorContract",
    "DescriptorContract",
    "EnvironmentContract",
    "ForceDescriptorContract",
    "HabitsContract",
    "HeadContract",
    "HeadOfPairsContract",
    "ModelContract",
    "assert_close",
    "assert_continuous",
    "assert_same_model",
    "counted",
    "doubled",
    "five_point",
    "load_again",
    "pair_at_cutoff",
    "random_atoms",
    "random_rotation",
    "shifted_by_cells",
    "turn",
    "turned",
]
