"""Calculator of the total free energy, forces and stress from the local density of states on a grid."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed, CalculatorSetupError, InputError
from ase.spectrum.doscollection import GridDOSCollection
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from ase_mlelec import processes
from ase_mlelec.calculators.base import MLElecCalculator, ModelLike
from ase_mlelec.calculators.extrapolation import OnExtrapolation
from ase_mlelec.calculators.ldos_integrals import (
    LDOSIntegrals,
    check_ldos_models,
    check_periodic,
    close_pairs,
    far_from_training,
    held_apart,
    repulsion,
    slopes_through,
)
from ase_mlelec.calculators.ldos_points import GridLDOS
from ase_mlelec.calculators.ldos_prediction import PredictsLDOS
from ase_mlelec.calculators.parameters import check_temperature
from ase_mlelec.calculators.spectra import total_dos
from ase_mlelec.calculators.uncertainty import N_MEMBERS
from ase_mlelec.io.cube import write_cube
from ase_mlelec.physics import fermi
from ase_mlelec.system import System
from ase_mlelec.threads import map_chunks

OWN_PROPERTIES = ["energy", "free_energy", "forces", "stress"]
MOST_POINTS = 10**6  # grid points per atom; crystals have 50 to 1000
TERMS = ("band", "entropy", "hartree", "xc", "xc_potential", "ion_ion", "total")


class MLDFTCalculator(PredictsLDOS):
    """Calculator of the total (Mermin) free energy A of electrons and ions from the local density of states (LDOS).

    Forces and stress are exact derivatives of A. The grid spacing is that of the training data, as nearly as whole
    numbers of points allow. The memory per grid point and member of a committee is as many numbers as the last hidden
    layer has (or the LDOS, where it is narrower), in the precision of the model. Where these are more than 2^29 numbers
    in all, only about six numbers per grid point are kept; another temperature, and forces, then evaluate the grid again.
    Forces and stress take a few dozen numbers per grid point more.

    Fingerprints, nets and energies are evaluated in float64, whatever the precision of the model, because the whitening
    of the fingerprints enlarges small differences: in float32 the energy of four atoms jumped by 2e-6 eV between two
    positions. The derivatives for forces and stress are evaluated in the precision of the model.

    The members of a committee must have the same kind of fingerprints and data. ``uncertainty`` has the spread of ASE's
    results, the terms, the DOS and the density.

    Parameters
    ----------
    model, device, dtype, skin, potential, on_extrapolation
        See MLElecCalculator.
    electronic_temperature : float, K
        Default: the temperature of the model. It can be changed between evaluations without a new prediction.
        ``on_extrapolation`` decides what is done where states above those of the model miss more than 2 meV per atom.
    fermi_level : float, eV
        Fixed Fermi level. Default: solved for the number of electrons of every structure.

    Raises
    ------
    CalculatorSetupError
        For models without the LDOS, valence charges or a temperature.

    References
    ----------
    Ellis et al. 2021, Eq. (9).
    """

    needs = ("ldos",)
    evaluates_together = False  # one grid uses the processor well alone
    electronic = ("fermi_level",)
    settable = ("electronic_temperature", "fermi_level", *MLElecCalculator.settable)
    atoms_came_first = ("get_fermi_level",)
    instead_of_bands = "it has a density of states and no bands; call get_dos() or get_fermi_level()"

    def __init__(
        self,
        model: ModelLike | Sequence[ModelLike],
        *,
        electronic_temperature: float | None = None,
        fermi_level: float | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        potential: BaseCalculator | ModelLike | Sequence[ModelLike] | None = None,
        on_extrapolation: str = OnExtrapolation.WARN,
    ) -> None:
        super().__init__(
            model, device=device, dtype=dtype, skin=skin, potential=potential, on_extrapolation=on_extrapolation
        )
        self.fermi_level = fermi_level
        if electronic_temperature is None:
            electronic_temperature = self.metadata.get("electronic_temperature_K")
        if electronic_temperature is None:
            raise CalculatorSetupError(
                "got no electronic temperature, and the model's header has none; choose one "
                "with electronic_temperature=... (K)"
            )
        self.electronic_temperature = electronic_temperature

    def _check_models(self):
        super()._check_models()
        check_ldos_models(self.models)

    @property
    def fermi_level(self) -> float | None:
        """Fixed Fermi level, eV, or None where it is solved for; see get_fermi_level."""
        return self._fixed_mu

    @fermi_level.setter
    def fermi_level(self, mu: float | None) -> None:
        if mu is not None and not (np.isscalar(mu) and np.isreal(mu)):
            raise CalculatorSetupError(f"got fermi_level={mu!r} eV; give a number, or None to solve for it")
        with self._one_call():
            self._fixed_mu: Any = mu
            self._drop_electronic()

    def _drop_electronic(self):
        """Drop the results that depend on temperature or Fermi level."""
        kept = {
            key: self._extra[key] for key in ("coordinates", "means", "features", "own", "world") if key in self._extra
        }
        self.results, self._extra, self._uncertainty = {}, kept, {}

    @property
    def energies(self) -> NDArray:
        """Energy grid [S] of LDOS and DOS of the present atoms, eV, on the absolute scale of the DFT code.

        It is relative_energies plus get_energy_zero(), which depends on the mean density of the structure.
        """
        return self.relative_energies + (self.get_energy_zero() if self._candidates() else 0.0)

    @property
    def relative_energies(self) -> NDArray:
        """Energy grid [S] of LDOS and DOS, eV, relative to get_energy_zero(); the same for all structures."""
        return self.models[0].heads["ldos"].energies.cpu().numpy()

    def get_energy_zero(self, atoms: Atoms | None = None) -> float:
        """Return the zero of ``relative_energies``, eV, see EnergyZero.

        In the result file of a trajectory, "energy_grid" is relative to this zero.
        """
        self._present(atoms)
        return self.models[0].heads["ldos"].zero.level(self.atoms.symbols, self.atoms.get_volume())

    def grid(self, atoms: Atoms | None = None) -> tuple[int, int, int]:
        """Return (G1, G2, G3), the numbers of grid points along the cell vectors."""
        atoms = self._present(atoms)
        shape = tuple(max(1, round(float(length) / self.metadata["grid_spacing_A"])) for length in atoms.cell.lengths())
        if math.prod(shape) > MOST_POINTS * len(atoms):
            raise InputError(
                f"the grid of {' x '.join(map(str, shape))} points has more than {MOST_POINTS:g} for "
                "every atom; check the cell (other units?)"
            )
        return shape

    # results ----------------------------------------------------------------------------------------------------

    def get_ldos(self, atoms: Atoms | None = None) -> NDArray:
        """Return the local density of states, array [G1, G2, G3, S], 1/(eV Å^3)."""
        self._predict(atoms)
        if "coordinates" not in self._extra or processes.world() > 1:
            ldos = GridLDOS(self.models, self._structure(), self.grid(), self.dtype).ldos()
            return ldos.cpu().numpy().reshape(*self.grid(), -1)
        total: Any = None
        for model, coordinates in zip(self.models, self._extra["coordinates"]):
            matrix, offset = (tensor.to(self.dtype) for tensor in model.heads["ldos"].basis())
            ldos = torch.addmm(offset, coordinates, matrix)
            total = ldos if total is None else total.add_(ldos)
        return total.div_(len(self.models)).cpu().numpy().reshape(*self.grid(), -1)

    def get_total_dos(self, atoms: Atoms | None = None) -> NDArray:
        """Return the density of states of the whole structure, array [S], states/eV."""
        self._integrate(atoms)
        return self._extra["dos"].copy()

    def get_dos(self, atoms: Atoms | None = None) -> GridDOSCollection:
        """Return a collection of one entry, the density of states of the whole structure (info: label)."""
        total = self.get_total_dos(atoms)
        return total_dos(self.energies, total, self.atoms.get_chemical_formula())

    def get_density(self, atoms: Atoms | None = None) -> NDArray:
        """Return the density of the valence electrons, array [G1, G2, G3], e/Å^3."""
        self._integrate(atoms)
        return self._extra["density"].copy()

    def write_density(self, path: str | os.PathLike, *, atoms: Atoms | None = None) -> None:
        """Write the density of the valence electrons as a cube file."""
        density = self.get_density(atoms)
        write_cube(path, self.atoms, density)

    def get_fermi_level(self, temperature: float | None = None, *, atoms: Atoms | None = None) -> float:
        """Return the Fermi level, eV, at a temperature in K (default: ``electronic_temperature``)."""
        found = self.get_terms(atoms)["fermi_level"]
        if temperature is None or self._fixed_mu is not None:
            return found
        check_temperature(temperature)
        mu = [
            fermi.fermi_level(self.relative_energies, dos, self._n_electrons(), float(temperature))
            for dos in self._extra["member_dos"]
        ]
        return float(np.mean(mu)) + self.get_energy_zero()

    def get_terms(self, atoms: Atoms | None = None) -> dict[str, float]:
        """Return the terms of A in eV: band, entropy (-TS), hartree, xc, xc_potential, ion_ion, total; and fermi_level.

        Where atoms are within the repulsive core of the model, there is a term repulsion, too.
        """
        self._integrate(atoms)
        return dict(self._extra["terms"])

    @property
    def terms(self) -> dict[str, float]:
        """get_terms() of the present atoms."""
        return self.get_terms()

    # evaluation -------------------------------------------------------------------------------------------------

    def _potential_properties(self):
        return super()._potential_properties() if self.potential is not None else list(OWN_PROPERTIES)

    def _evaluate_potential(self, wanted):
        terms = self.get_terms()
        self.results.update(energy=terms["total"], free_energy=terms["total"])
        if "forces" in wanted or "stress" in wanted:
            self._differentiate()

    def electronic_results(self) -> dict[str, Any]:
        """Return the Fermi level."""
        return {"fermi_level": self.get_fermi_level()}

    def _structure(self):
        check_periodic(self.atoms)
        self._geometry()  # checks species and distances
        if self._due and self._watched not in self._measured():
            self._measure_range()
        system = System.from_atoms(self.atoms, torch.float64, self.device)
        return system if self._close_pairs() is None else replace(system, positions=self._held_apart(system).detach())

    def _hint(self):
        """Likely cause of an LDOS that is not physical, for error messages."""
        return far_from_training(self._measured().get(self._watched))

    def _close_pairs(self):
        """Edges of the pairs that are closer than any pair in the training data, or None."""
        if "close" not in self._extra:
            self._extra["close"] = close_pairs(self.models[0].core, self._geometry()[1])
        return self._extra["close"]

    def _held_apart(self, system):
        """Positions [N, 3], Å, with close pairs moved apart."""
        return held_apart(system, self._close_pairs(), self.models[0].core)

    def _undo(self, gradient, cell_gradient):
        """(dA/dpositions [N, 3], dA/dstrain [3, 3]) from the gradients by the moved-apart positions and by the cell."""
        system = System.from_atoms(self.atoms, torch.float64, self.device)
        positions, strain = system.positions.requires_grad_(True), torch.zeros_like(system.cell, requires_grad=True)
        strained = replace(system, positions=positions).strained(strain)
        apart = strained.positions if self._close_pairs() is None else self._held_apart(strained)
        value = (apart * gradient).sum() + (strained.cell[0] * cell_gradient).sum()
        of_positions, of_strain = torch.autograd.grad(value, (positions, strain))
        return of_positions, of_strain[0]

    def _integrate(self, atoms=None):
        """Terms, DOS and density of the present atoms at the present temperature."""
        self._predict(atoms)
        if "terms" in self._extra:
            return
        with torch.no_grad():  # gradients are needed for forces alone, and would double the memory
            members = list(self._integrals())
        columns = {name: [member.terms[name].item() for member in members] for name in (*TERMS, "fermi_level")}
        repulsion = self._repulsion()
        if repulsion:
            columns["repulsion"] = [result["energy"] for result in repulsion]
            columns["total"] = np.add(columns["total"], columns["repulsion"]).tolist()
        self._extra["terms"] = {name: float(np.mean(values)) for name, values in columns.items()}
        spectra = {name: [getattr(member, name).cpu().numpy() for member in members] for name in ("dos", "density")}
        # a single density is not copied: it may be large
        self._extra |= {name: v[0] if len(v) == 1 else np.mean(v, axis=0) for name, v in spectra.items()}
        self._extra["member_dos"] = spectra["dos"]
        self._check_reach(self.energies, self._extra["dos"], self._extra["terms"]["fermi_level"])
        if len(members) > 1:
            columns["energy"] = columns["free_energy"] = columns.pop("total")
            self._uncertainty.update({name: np.std(values, axis=0) for name, values in (columns | spectra).items()})

    def _evaluate_shared(self):
        self._predict(self._live())

    def _shared(self, n=1):
        """As in the base class, with fingerprints, and with coordinates of the LDOS for n models of one descriptor."""
        names = ["geometry", "measured", "close", "features", "own", "world"]
        extra = {key: self._extra[key] for key in names if key in self._extra}
        if self.models[0].heads["ldos"].is_low_rank() and "coordinates" in self._extra:
            extra |= {key: n * self._extra[key] for key in ("coordinates", "means")}
        return {"_extra": extra}

    def _from_posterior(self, name):
        """Spread of a committee of members, which share the fingerprints."""
        if "ldos" not in self.models[0].posteriors:
            return super()._from_posterior(name)
        self._evaluate_shared()
        if "committee" not in self._extra:
            members = list(self.models[0].members(N_MEMBERS))
            self._extra["committee"] = self._as_member(members, self._shared(N_MEMBERS))
        committee = self._extra["committee"]
        with committee._one_call():
            committee._present(self._live())
            committee._integrate()
            if name in ("forces", "stress"):
                committee._differentiate()
        return {name: value * self._spread_scale(name) for name, value in committee._uncertainty.items()}

    def _repulsion(self):
        """Energy, forces and stress of the repulsive core, dict for every member; empty where no atoms are within it."""
        system = System.from_atoms(self.atoms, torch.float64, self.device)
        return repulsion(self.models, system, self._cache.edges(system), volume=self.atoms.get_volume())

    def _integrals(self):
        """Iterate over the members, each as LDOSIntegrals."""
        for model, points, mean in zip(self.models, self._points(), self._extra["means"]):
            try:
                yield LDOSIntegrals(
                    model.heads["ldos"],
                    points=points,
                    mean=mean,
                    shape=self.grid(),
                    system=self._structure(),
                    symbols=self.atoms.get_chemical_symbols(),
                    metadata=self.metadata,
                    temperature=self.electronic_temperature,
                    fermi_level=self._fixed_mu,
                )
            except ValueError as error:
                raise CalculationFailed(f"{error}{self._hint()}") from None

    def _differentiate(self):
        """Forces and stress: explicit derivatives of A, and derivatives through the LDOS, chunk by chunk."""
        system, shape = self._structure(), self.grid()
        gradients = [member.gradients() for member in self._integrals()]
        positions, cell = system.positions.requires_grad_(True), system.cell.requires_grad_(True)
        descriptor, heads = self.models[0].descriptor, [model.heads["ldos"] for model in self.models]
        grid = GridLDOS(self.models, system, shape, self.dtype)

        def slopes(piece):
            features = descriptor.of_chunk(system, piece[0], self.dtype, piece[1])
            return slopes_through(heads, features, gradients, piece[0].indices, (positions, cell))

        for g in gradients if processes.rank() else ():  # the first process adds what all of them have
            g |= {name: torch.zeros_like(g[name]) for name in ("positions", "cell")}
        chunks = grid.chunks(self._extra.get("features", []))
        for found in map_chunks(slopes, chunks, device=self.device):
            for g, (of_positions, of_cell) in zip(gradients, found):
                g["positions"] = g["positions"] + of_positions
                g["cell"] = g["cell"] + of_cell[0]
        processes.sum_up(*(g[name] for g in gradients for name in ("positions", "cell")))
        forces, stresses = [], []
        for g in gradients:
            gradient, strain = self._undo(g["positions"], g["cell"])
            stress = ((strain + strain.T) / 2 / self.atoms.get_volume()).cpu().numpy()
            forces.append(-gradient.cpu().numpy())
            stresses.append(full_3x3_to_voigt_6_stress(stress))
        for k, result in enumerate(self._repulsion()):
            forces[k], stresses[k] = forces[k] + result["forces"], stresses[k] + result["stress"]
        self._store({"forces": forces, "stress": stresses})
