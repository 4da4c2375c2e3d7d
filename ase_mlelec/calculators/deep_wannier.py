"""Calculator of Wannier centroids, dipole, polarization, Born charges and polarizability."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    BaseCalculator,
    CalculatorSetupError,
    InputError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.calculators.polarizability import StaticPolarizabilityCalculator
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.calculators.base import MLElecCalculator, ModelLike
from ase_mlelec.calculators.electric_field import TENSORS, VECTORS, AnswersField
from ase_mlelec.calculators.extrapolation import OnExtrapolation
from ase_mlelec.calculators.potential import has_volume
from ase_mlelec.descriptors.base import Environment
from ase_mlelec.model import Model
from ase_mlelec.physics.symmetry import equivalent_atoms
from ase_mlelec.quantities import DIPOLE, QUANTITIES
from ase_mlelec.system import System

VALUES = {"displacements": VECTORS, "atomic_polarizability": TENSORS}
SLOPES = QUANTITIES[VECTORS].slopes  # label behind Born charges
IN_A_FIELD = ("energy", "free_energy", "forces")


class DeepWannierCalculator(AnswersField, MLElecCalculator):
    """Calculator of Wannier centroids, and of dipole, polarization and Born charges, which follow from them.

    The polarizability is there where the model has it; energy, forces and stress where the model or ``potential`` has
    them. Electrons count as points at the Wannier centroids w, and the dipole is

        M = sum_i Z_i r_i - sum_c Q_c w_c,   w_c = r_c + d_c / k

    d are the vectors of the model. Z and Q are ``valence_charges`` and ``electrons_per_centre`` in its metadata, dicts by
    symbol in e (for water {"O": 6, "H": 1} and {"O": 8}). k is ``functions_per_vector``, the number of Wannier functions
    whose displacements are summed in d; by default it is 1, and d is the mean displacement.

    A centroid stays with its atom. The dipole therefore depends on whether an atom is inside or outside of the cell: it
    changes by charge times cell vector when an atom moves to a periodic image. The dipole of a charged structure refers
    to the origin.

    Parameters
    ----------
    model, device, dtype, skin, potential, on_extrapolation
        See MLElecCalculator.
    electric_field : array [3], V/Å
        Macroscopic field F, which can be changed between evaluations; default none. In a field the energy is E - M.F, the
        forces are its negative gradient, -dE/dr + Z* F, and there are no atomic energies and no stress.
    field_order : int
        1: as above. 2, for models with a polarizability A: the energy is E - M.F - F.A.F/2, and the dipole, its negative
        derivative by the field, contains the induced one, M + A.F; Born charges are derivatives of that dipole.

    Raises
    ------
    CalculatorSetupError
        For models without charges.

    References
    ----------
    Zhang et al. 2020, Eqs. (1)-(5) and (6).
    """

    derived: ClassVar = {
        "born_effective_charges": lambda calc: calc.get_born_charges(),
        "dielectric_tensor": lambda calc: calc.get_dielectric_tensor(),
    }
    settable = ("electric_field", "field_order", *MLElecCalculator.settable)
    instead_of_bands = (
        "it has the centroids of the electrons, but no levels; use a WannierTBCalculator for bands, a "
        "DeepDOSCalculator for densities of states"
    )

    def __init__(
        self,
        model: ModelLike | Sequence[ModelLike],
        *,
        electric_field: ArrayLike | None = None,
        field_order: int = 1,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        potential: BaseCalculator | ModelLike | Sequence[ModelLike] | None = None,
        on_extrapolation: str = OnExtrapolation.WARN,
    ) -> None:
        self._field: NDArray | None = None
        self._order = 1
        super().__init__(
            model, device=device, dtype=dtype, skin=skin, potential=potential, on_extrapolation=on_extrapolation
        )
        self.field_order = field_order
        self.electric_field = electric_field

    @property
    def electric_field(self) -> NDArray | None:
        """Electric field [3], V/Å, or None."""
        return None if self._field is None else self._field.copy()

    @electric_field.setter
    def electric_field(self, field: ArrayLike | None) -> None:
        if field is not None:
            field = np.array(field, dtype=float)
            if field.shape != (3,) or not np.isfinite(field).all():
                raise CalculatorSetupError(f"got electric_field={field.tolist()}, need three numbers in V/Å")
            if VECTORS not in self.models[0].heads:
                raise CalculatorSetupError("got electric_field for a model without dipoles; load one that has them")
        with self._one_call():
            self._field = field
            self.reset()
        self.implemented_properties = self._potential_properties() + list(self.electronic)
        if self.electronic:
            self.implemented_properties.append("born_effective_charges")

    @property
    def field_order(self) -> int:
        """Order in the field to which the energy is known, 1 or 2."""
        return self._order

    @field_order.setter
    def field_order(self, order: int) -> None:
        if order not in (1, 2) or isinstance(order, bool):
            raise CalculatorSetupError(f"got field_order={order!r}, need 1 or 2")
        if order == 2 and not {VECTORS, TENSORS} <= {*self.models[0].heads}:
            raise CalculatorSetupError(
                f"got field_order=2 for a model of {', '.join(self.models[0].heads)}; load one that has '{VECTORS}' and "
                f"'{TENSORS}'"
            )
        with self._one_call():
            self._order = order
            self.reset()

    @property
    def electronic(self) -> tuple[str, ...]:  # type: ignore[override]  # depends on the model
        """ASE results in addition to energy, forces and stress."""
        return (DIPOLE, "polarization") if VECTORS in self.models[0].heads else ()

    # results ----------------------------------------------------------------------------------------------------

    def get_centroids(self, atoms: Atoms | None = None) -> NDArray:
        """Return the Wannier centroids [n, 3], Å, of the atoms that have one, in the order of the atoms."""
        self._present(atoms)
        displacements = self._evaluated("displacements", VECTORS)
        return (self.atoms.positions + displacements)[self._charges()[1] > 0]

    def get_polarizability(self, atoms: Atoms | None = None) -> NDArray:
        """Return the electronic polarizability [3, 3], Å^3, of the structure (of the cell, where it is periodic)."""
        self._present(atoms)
        return self._evaluated("polarizability", TENSORS).copy()

    def get_dielectric_tensor(self, atoms: Atoms | None = None) -> NDArray:
        """Return the electronic dielectric tensor [3, 3], 1 + 4 pi polarizability/volume."""
        polarizability = self.get_polarizability(atoms)
        return np.eye(3) + 4 * np.pi * polarizability / self._volume("dielectric tensor")

    def get_born_charges(self, atoms: Atoms | None = None) -> NDArray:
        """Return ASE's ``born_effective_charges``: Z[i, a, b] = dM_a/dr_ib, the force along b per field along a.

        Their sum over the atoms is exactly the charge of the structure times the unit matrix (acoustic sum rule).

        Returns
        -------
        array [N, 3, 3], e
        """
        return self.get_property("born_effective_charges", self._present(atoms))

    def write_born(
        self, path: str | os.PathLike, *, dielectric: ArrayLike | None = None, atoms: Atoms | None = None
    ) -> None:
        """Write phonopy's BORN file: dielectric tensor, and Born charges of the symmetry-inequivalent atoms.

        Parameters
        ----------
        path : path
        dielectric : array [3, 3]
            Default: ``get_dielectric_tensor``, from the polarizability of the model.
        atoms : ase.Atoms
            The primitive cell that phonopy uses.
        """
        charges = self.get_born_charges(atoms)
        tensor = self.get_dielectric_tensor() if dielectric is None else np.asarray(dielectric, dtype=float)
        found = equivalent_atoms(self.atoms.cell.array, self.atoms.get_scaled_positions(), self.atoms.numbers)
        if found is None:
            raise InputError("got a crystal without symmetry, not even the identity; check cell and positions")
        inequivalent = np.unique(found)
        rows = [" ".join(f"{x:.10f}" for x in row.ravel()) for row in (tensor, *charges[inequivalent])]
        Path(path).write_text("\n".join([f"{units.COULOMB:.6f}", *rows, ""]), encoding="utf-8")

    # evaluation -------------------------------------------------------------------------------------------------

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results`` with the properties of a structure; called by ASE."""
        atoms = self._live(atoms)
        others = [name for name in properties if name != "born_effective_charges"]
        super().calculate(atoms, others, system_changes)
        if "polarization" in properties:
            self._volume("polarization")
        if "born_effective_charges" in properties and "born_effective_charges" not in self.results:
            self._store(
                {"born_effective_charges": [self._slopes(model, np.eye(3)).transpose(1, 0, 2) for model in self.models]}
            )

    def electronic_results(self) -> dict[str, Any]:
        """Evaluate dipole and polarization."""
        self._evaluated("displacements", VECTORS)
        return {}  # _store has put them into ``results``

    def evaluate(self, model: Model, system: System, environment: Environment) -> dict[str, Tensor]:
        """Return displacements [C, 3], Å, and atomic polarizabilities [C, 3, 3], Å^3, where the model has them."""
        values = {name: model.heads[head](environment, None) for name, head in VALUES.items() if head in model.heads}
        if "displacements" in values:
            values["displacements"] = values["displacements"] / self.metadata.get("functions_per_vector", 1)
        return values

    def _evaluated(self, name, head):
        if head not in self.models[0].heads:
            raise CalculatorSetupError(
                f"the model has no {head}, only {', '.join(self.models[0].heads)}; load one that has it"
            )
        if name not in self._extra:
            self._evaluate_electronic()
        return self._extra[name]

    def _member_electronic(self, system, edges):
        """As in the base class, but environments that are not yet known are computed for the centers alone."""
        values = {}
        with torch.no_grad():
            for k, model in enumerate(self.models):
                rows, environments = slice(None), self._environments.get(k)
                if environments is None:
                    rows, environments = self._centers(k, model, system, edges)
                parts = [self.evaluate(model, system, environment) for environment in environments]
                for name in parts[0]:
                    value = torch.cat([part[name] for part in parts]).double()
                    full = value.new_zeros(len(system.numbers), *value.shape[1:])
                    full[rows] = value
                    values.setdefault(name, []).append(full.cpu().numpy())
        return values

    def _centers(self, k, model, system, edges):
        """Rows of the centers and their environments, chunk by chunk; those of a first model are kept."""
        if k == 0 and "centers" in self._extra:
            return self._extra["centers"]
        own = [head for head in VALUES.values() if head in model.heads]
        rows = model.is_center(system.numbers, *own).nonzero()[:, 0]
        centers = self._reach(model, edges).at_centers(rows)
        environments = list(self._environments_by(model, own[0], system, centers))
        self._look_at(VECTORS, model, environments, system, centers)
        if k == 0:
            self._extra["centers"] = rows, environments
        return rows, environments

    def _evaluate_shared(self):
        if 0 not in self._environments and "centers" not in self._extra:
            self._evaluate_electronic()

    def _environments_of(self, name):
        """As in the base class, but (rows of the centers, environments)."""
        self._evaluate_shared()
        return self._extra["centers"] if 0 not in self._environments else (slice(None), self._environments[0])

    def _from_posterior(self, name):
        """As in the base class, with displacements, dipole, polarization and polarizabilities."""
        of_vectors, of_tensors = ("displacements", DIPOLE, "polarization"), ("atomic_polarizability", "polarizability")
        posteriors = self.models[0].posteriors
        if name in of_tensors and TENSORS in posteriors:
            return self._deviations_of(TENSORS, dict(zip(of_tensors, of_tensors)))
        if name not in of_vectors or VECTORS not in posteriors:
            return super()._from_posterior(name)
        share = self.metadata.get("functions_per_vector", 1)
        labels = {"atomic_dipole": "displacements", "summed_dipole": DIPOLE}
        found = self._deviations_of(VECTORS, labels, self._charges()[1] / share)
        found["displacements"] = found["displacements"] / share
        if has_volume(self.atoms):
            found["polarization"] = found[DIPOLE] / self.atoms.get_volume()
        return found

    def _spread_scale(self, name):
        """As in the base class; the scale of Born charges is that of the derivatives of which they consist."""
        return super()._spread_scale(SLOPES if name == "born_effective_charges" else name)

    def _store(self, values):
        """Store results, dipole and polarization, and the energy and forces of the field, member by member."""
        if "displacements" in values:
            charge, electrons = self._charges()
            values[DIPOLE] = [charge @ self.atoms.positions - electrons @ d for d in values["displacements"]]
            if self._order == 2 and self._field is not None:
                tensors = values["atomic_polarizability"]
                induced = [each.sum(axis=0) @ self._field / units.COULOMB for each in tensors]
                values[DIPOLE] = [sum(pair) for pair in zip(values[DIPOLE], induced)]
            if has_volume(self.atoms):
                values["polarization"] = [dipole / self.atoms.get_volume() for dipole in values[DIPOLE]]
        if "atomic_polarizability" in values:
            values["polarizability"] = [member.sum(axis=0) for member in values["atomic_polarizability"]]
        if self._field is not None and "energy" in values:
            work = [self._work(model) for model in self.models]
            values = {name: [value + term[name] for value, term in zip(values[name], work)] for name in IN_A_FIELD}
        super()._store(values)

    def _ask_potential(self, wanted):
        known = set(self.results)
        super()._ask_potential(wanted)
        if self._field is not None:
            work = [self._work(model) for model in self.models]
            for name in self.results.keys() - known:
                self.results[name] = self.results[name] + np.mean([term[name] for term in work], axis=0)

    # what is needed ---------------------------------------------------------------------------------------------

    def _check_models(self):
        super()._check_models()
        first = self.models[0]
        if not any(head in first.heads for head in VALUES.values()):
            raise CalculatorSetupError(
                f"DeepWannierCalculator needs a model with '{VECTORS}' or '{TENSORS}', this "
                f"one has {', '.join(first.heads)}; load another model"
            )
        for name in VALUES.values():
            if len({member.heads[name].centers if name in member.heads else None for member in self.models}) > 1:
                raise CalculatorSetupError(
                    f"the models of a committee have '{name}' of different species; train them on the same"
                )
        if VECTORS in first.heads:
            _check_charges(first)

    def _potential_properties(self):
        found = super()._potential_properties()
        return found if self._field is None else [name for name in found if name in IN_A_FIELD]

    def _charges(self):
        """Arrays [N], e: charge of ion and electrons at each atom, and charge of its electrons (0 without a centroid)."""
        ions, electrons = self.metadata["valence_charges"], self.metadata["electrons_per_centre"]
        symbols = self.atoms.get_chemical_symbols()
        bound = np.array([float(electrons.get(symbol, 0)) for symbol in symbols])
        return np.array([float(ions[symbol]) for symbol in symbols]) - bound, bound

    def _volume(self, what):
        if not has_volume(self.atoms):
            raise PropertyNotImplementedError(
                f"{what} needs a cell with three vectors; set it with atoms.set_cell(...)"
            )
        return self.atoms.get_volume()


def _check_charges(model):
    centers = [model.species[k] for k in model.heads[VECTORS].centers]
    for key, needed in ("valence_charges", model.species), ("electrons_per_centre", centers):
        found = model.metadata.get(key) or {}
        missing = [symbol for symbol in needed if not found.get(symbol)]
        if missing:
            raise CalculatorSetupError(
                f"the model's metadata have no {key} of {', '.join(missing)}; set "
                f"model.metadata['{key}'] = {{'{missing[0]}': ...}}, in e"
            )
    if set(model.metadata["electrons_per_centre"]) - set(centers):
        raise CalculatorSetupError(
            f"electrons_per_centre names {', '.join(model.metadata['electrons_per_centre'])}, "
            f"the centers of the model are {', '.join(centers)}; correct the metadata"
        )


class StaticPolarizability(StaticPolarizabilityCalculator):
    """Polarizability of a DeepWannierCalculator for ASE's Raman tools, in their unit e^2 Å^2/eV.

    ``StaticRamanCalculator(atoms, StaticPolarizability, {"calculator": calculator}).run()`` uses it.
    """

    def __init__(self, calculator: DeepWannierCalculator) -> None:
        self.calculator = calculator

    def __call__(self, atoms: Atoms, *args, **kwargs):
        return self.calculator.get_polarizability(atoms) / units.COULOMB
