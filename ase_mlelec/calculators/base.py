"""MLElecCalculator: everything the calculators share, from ase.Atoms to ASE results.

A subclass names the heads it needs and writes ``evaluate``; device, precision, neighbour list, cache, gradients, Voigt
order, committees, potentials from elsewhere and errors are done here, once.
"""
import warnings

import numpy as np
import torch
from ase.calculators.calculator import (Calculator, CalculationFailed, CalculatorSetupError, InputError,
                                        PropertyNotImplementedError, all_changes)
from ase.outputs import all_outputs

from ase_mlelec.bundle import load_model
from ase_mlelec.edges import EdgeCache, Edges
from ase_mlelec.system import System

CHUNK = 256         # centres evaluated at a time: bounds memory and keeps the work in the processor's cache
POTENTIAL_PROPERTIES = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]


class MLElecCalculator(Calculator):
    """Base of the calculators of this package.

    model : name of a shipped model, path, Model, or a list of those = committee (results are means)
    device : torch device; default CUDA when present
    dtype : torch dtype or its name; default the model's own
    skin : float, Å; the neighbour list is kept while no atom can have come into reach
    potential : ASE calculator, or a model as above, that supplies energy, forces and stress
    on_extrapolation : "warn", "raise" or "ignore" when atoms are closer than any in the training data

    uncertainty : dict, standard deviation over the committee of everything that was evaluated

    Raises CalculatorSetupError for models that lack what the calculator needs.
    """
    needs = ()              # heads a model must have
    electronic = ()         # ASE results beyond those of the potential

    def __init__(self, model, *, device=None, dtype=None, skin=0.5, potential=None, on_extrapolation="warn"):
        super().__init__()
        if on_extrapolation not in ("warn", "raise", "ignore"):
            raise CalculatorSetupError(f"got on_extrapolation={on_extrapolation!r}; choose 'warn', 'raise' or 'ignore'")
        if not skin >= 0:
            raise CalculatorSetupError(f"got skin={skin} Å; give 0 or more")
        self.device = _as_device(device)
        members = model if isinstance(model, (list, tuple)) else [model]
        if not members:
            raise CalculatorSetupError("got an empty list of models; give at least one")
        loaded = [load_model(member) for member in members]
        self.dtype = _as_dtype(dtype) or max((member.dtype for member in loaded), key=lambda d: d.itemsize)
        self.models = [member.for_evaluation().to(device=self.device, dtype=self.dtype) for member in loaded]
        self._check_models()
        self.metadata = self.models[0].metadata
        self.potential = _as_potential(potential, self.device, dtype, skin)
        self.on_extrapolation = on_extrapolation
        self.uncertainty = {}
        self._cache = EdgeCache(max(member.cutoff for member in self.models), skin)
        self._extra, self._environments, self._warned = {}, {}, False
        self.implemented_properties = self._potential_properties() + list(self.electronic)

    def _check_models(self):
        first = self.models[0].species
        for member in self.models:
            missing = [name for name in self.needs if name not in member.heads]
            if missing:
                raise CalculatorSetupError(f"{type(self).__name__} needs a model with '{missing[0]}', this one has "
                                           f"{', '.join(member.heads)}; load another model")
            if member.species != first:
                raise CalculatorSetupError(f"the models of a committee know different species: {', '.join(first)} and "
                                           f"{', '.join(member.species)}; train them with one list in one order")

    def _potential_properties(self):
        if self.potential is not None:
            return [name for name in POTENTIAL_PROPERTIES if name in self.potential.implemented_properties]
        return list(POTENTIAL_PROPERTIES) if all("energy" in member.heads for member in self.models) else []

    # what a subclass writes -------------------------------------------------------------------------------------

    def evaluate(self, model, system, environment):
        """dict of Tensor: the electronic quantities of one model, from the environments of all atoms."""
        return {}

    # ASE's side -------------------------------------------------------------------------------------------------

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if system_changes:
            self.reset()
        super().calculate(atoms, properties, system_changes)
        wanted = [name for name in properties if name not in self.results]
        foreign = [name for name in wanted if name not in self.implemented_properties]
        if foreign:
            raise PropertyNotImplementedError(f"{type(self).__name__} with this model has no {foreign[0]}; "
                                              f"it has {', '.join(self.implemented_properties)}")
        if any(name in ("stress", "stresses") for name in wanted) and self.atoms.cell.rank < 3:
            raise PropertyNotImplementedError("stress needs a cell with three vectors; set it with atoms.set_cell(...)")
        if self.potential is None and any(name in POTENTIAL_PROPERTIES for name in wanted):
            self._evaluate_potential(wanted)
        elif any(name in POTENTIAL_PROPERTIES for name in wanted):
            self._ask_potential(wanted)
        if any(name in self.electronic for name in wanted):
            self.results.update(self.electronic_results())

    def electronic_results(self):
        """dict of the ASE results in ``electronic``, for the present atoms."""
        return {}

    def reset(self):
        super().reset()
        self._extra, self._environments, self.uncertainty = {}, {}, {}

    def _present(self, atoms):
        """Make ``atoms`` (default: the last ones) the present structure, dropping results of another."""
        atoms = atoms if atoms is not None else self.atoms
        if atoms is None:
            raise InputError("no structure yet; pass atoms= or evaluate the energy first")
        if self.calculation_required(atoms, []):
            self.reset()
            self.atoms = atoms.copy()
        return self.atoms

    def each_of(self, images, properties=POTENTIAL_PROPERTIES):
        """Evaluate structures together, then make them the present one in turn: iterator over ``images``.

        Small structures fill the processor only together.  ``properties`` are names of what is going to be asked for;
        those that are not of the potential evaluate the electronic quantities.  What depends on all atoms of a
        structure, such as the Fermi level, is computed when it is asked for.
        """
        asked = [name in POTENTIAL_PROPERTIES for name in properties]
        own = self.potential is None and "energy" in self.implemented_properties
        system = System.from_atoms(images, self.dtype, self.device)
        self.models[0].check_species(system.numbers.tolist())
        edges = Edges.build(system, self._cache.cutoff)
        self._check_distances(edges)
        self.reset()
        members = [self._member_potential(k, model, system, edges) for k, model in enumerate(self.models)
                   if own and any(asked)]
        values = {} if all(asked) else self._member_electronic(system, edges)
        partner = self.potential.each_of(images) if any(asked) and hasattr(self.potential, "each_of") else images
        ends = np.cumsum([0, *map(len, images)])
        bounds = torch.searchsorted(edges.center, torch.as_tensor(ends, device=self.device)).tolist()
        for k, (image, _) in enumerate(zip(images, partner)):
            atoms, rows = slice(ends[k], ends[k + 1]), slice(bounds[k], bounds[k + 1])
            self.reset()
            self.atoms = image.copy()
            if members:
                self._store_potential([(energy[atoms], gradient[rows]) for energy, gradient in members],
                                      edges.part(atoms, rows))
            self._store({name: [member[atoms] for member in columns] for name, columns in values.items()})
            yield image

    # the model's side -------------------------------------------------------------------------------------------

    def _geometry(self):
        """(System, Edges) of the present atoms, checked."""
        if "geometry" not in self._extra:
            system = System.from_atoms(self.atoms, self.dtype, self.device)
            self.models[0].check_species(self.atoms.numbers)
            edges = self._cache.edges(system)
            self._check_distances(edges)
            self._extra["geometry"] = system, edges
        return self._extra["geometry"]

    def _check_distances(self, edges):
        shortest = self.metadata.get("shortest_distance_A")
        if self.on_extrapolation == "ignore" or shortest is None or len(edges.vec) == 0 or self._warned:
            return
        found = float(edges.distances.min())
        if found < 0.9 * shortest:
            message = (f"atoms are {found:.2f} Å apart, the closest in the training data are {shortest:.2f} Å: "
                       "the model extrapolates; check the run or train on such structures")
            if self.on_extrapolation == "raise":
                raise CalculationFailed(message)
            warnings.warn(message, stacklevel=5)
            self._warned = True

    def _evaluate_potential(self, wanted):
        system, edges = self._geometry()
        self._store_potential([self._member_potential(k, model, system, edges) for k, model in enumerate(self.models)],
                              edges)

    def _store_potential(self, members, edges):
        """ASE's results of the present atoms from atomic energies and dE/dvec of every member."""
        volume = self.atoms.get_volume() if self.atoms.cell.rank == 3 else None
        results = [_potential_results(energies, gradient, edges, volume) for energies, gradient in members]
        self._store({name: [result[name] for result in results] for name in results[0]})

    def _member_potential(self, k, model, system, edges):
        """Atomic energies [N] and dE/dvec [E, 3], chunk by chunk; keeps the environments for electronic quantities."""
        energies, gradients, environments = [], [], []
        for _, part in self._reach(model, edges).chunks(CHUNK):
            leaf = part.with_vec(part.vec.detach().requires_grad_(True))
            environment = model.descriptor_of("energy")(system, leaf)
            energy = model.heads["energy"](environment, leaf)
            gradients.append(torch.autograd.grad(energy.sum(), leaf.vec)[0])
            energies.append(energy.detach())
            if len(model.heads) > 1 and model.electronic is None:       # kept for the others
                environments.append(_detached(environment))
        if environments:
            self._environments[k] = environments
        gradient = torch.cat([part.T for part in gradients], dim=1).T     # stays in planes x, y, z
        if model.cutoff < self._cache.cutoff:
            gradient = torch.zeros_like(edges.vec).index_put((self._near(model, edges),), gradient)
        return torch.cat(energies), gradient

    def _near(self, model, edges):
        return (edges.distances < model.cutoff).nonzero()[:, 0]

    def _reach(self, model, edges):
        """The edges within the model's own cutoff (members of a committee may differ)."""
        if model.cutoff >= self._cache.cutoff:
            return edges
        near = self._near(model, edges)
        return type(edges)(edges.center[near], edges.neighbor[near], edges.shift[near], edges.vec[near], edges.atoms)

    def _evaluate_electronic(self):
        """Fill the cache with what ``evaluate`` returns: means over the committee, as numpy arrays."""
        self._store(self._member_electronic(*self._geometry()))

    def _member_electronic(self, system, edges):
        """dict of list of array [N, ...]: what ``evaluate`` returns, by member of the committee."""
        values = {}
        with torch.no_grad():
            for k, model in enumerate(self.models):
                if k not in self._environments:
                    descriptor = model.electronic or model.descriptor
                    self._environments[k] = [descriptor(system, part)
                                             for _, part in self._reach(model, edges).chunks(CHUNK)]
                parts = [self.evaluate(model, system, environment) for environment in self._environments[k]]
                for name in parts[0]:
                    value = torch.cat([part[name] for part in parts]).double().cpu().numpy()
                    values.setdefault(name, []).append(value)
        return values

    def _store(self, values):
        """Means over members into results (ASE's names) or the private cache; spreads into ``uncertainty``."""
        for name, members in values.items():
            mean = members[0] if len(members) == 1 else np.mean(members, axis=0)
            if not np.isfinite(mean).all():
                raise CalculationFailed(f"the model gave a {name} that is not finite; check structure and model")
            if len(members) > 1:
                self.uncertainty[name] = np.std(members, axis=0)
            (self.results if name in all_outputs else self._extra)[name] = mean

    def _ask_potential(self, wanted):
        for name in wanted:
            if name in POTENTIAL_PROPERTIES:
                self.results[name] = self.potential.get_property(name, self.atoms)
        # forces must be the gradient of the energy that is logged
        if "energy" in self.results and "free_energy" in self.implemented_properties:
            self.results.setdefault("free_energy", self.potential.get_property("free_energy", self.atoms))


def _as_device(device):
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise CalculatorSetupError(f"got device={device!r}; choose 'cpu', 'cuda' or 'cuda:0'") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise CalculatorSetupError(f"got device={device!r}, but torch finds no CUDA device; choose 'cpu'")
    return found


def _as_dtype(dtype):
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (None, torch.float32, torch.float64) or (found is None and dtype is not None):
        raise CalculatorSetupError(f"got dtype={dtype!r}; choose 'float32' or 'float64'")
    return found


def _as_potential(potential, device, dtype, skin):
    if potential is None or hasattr(potential, "get_property"):
        return potential
    from ase_mlelec.calculators.deep_pot import DeepPotCalculator
    return DeepPotCalculator(potential, device=device, dtype=dtype, skin=skin)


def _detached(environment):
    frame = None if environment.frame is None else environment.frame.detach()
    return type(environment)(environment.features.detach(), environment.species, frame)


def _potential_results(energies, gradient, edges, volume):
    """ASE's results from atomic energies and dE/dvec; sums in float64.

    F_i = sum_ij g_ij - sum_ji g_ji and dE/dε = sum vec ⊗ g, because vec = r_j - r_i deforms as a whole.
    """
    vec, gradient = edges.vec.T.double().contiguous(), gradient.T.double().contiguous()      # planes [3, E]: faster
    forces = gradient.new_zeros(3, len(edges.atoms))
    forces.index_add_(1, edges.center, gradient).index_add_(1, edges.neighbor, -gradient)
    energies = energies.double()
    energy = float(energies.sum())
    results = {"energy": energy, "free_energy": energy, "energies": energies.cpu().numpy(),
               "forces": forces.T.contiguous().cpu().numpy()}
    if volume is not None:
        diagonal = vec * gradient
        sheared = [(vec[a] * gradient[b] + vec[b] * gradient[a]) / 2 for a, b in ((1, 2), (0, 2), (0, 1))]
        voigt = torch.cat([diagonal, torch.stack(sheared)]) / volume
        stresses = voigt.new_zeros(6, len(edges.atoms)).index_add_(1, edges.center, voigt)
        results["stresses"] = stresses.T.contiguous().cpu().numpy()
        results["stress"] = results["stresses"].sum(axis=0)
    return results
