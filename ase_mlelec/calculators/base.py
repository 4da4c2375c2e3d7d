"""MLElecCalculator: everything the calculators share, from ase.Atoms to ASE results.

A subclass names the heads it needs and writes ``evaluate``; device, precision, neighbour list, cache, gradients, Voigt
order, committees, potentials from elsewhere and errors are done here, once.
"""

import functools
import reprlib

import numpy as np
import torch
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.outputs import all_outputs

from ase_mlelec.bundle import load_model
from ase_mlelec.calculators.bands import NoBands
from ase_mlelec.calculators.extrapolation import Extrapolation, WatchesRange, check_choice
from ase_mlelec.calculators.parameters import FIXED, StatedParameters, fingerprint, name_of, plain, stated
from ase_mlelec.calculators.present import torch_as_usual
from ase_mlelec.calculators.slots import NeighborLimits
from ase_mlelec.edges import EdgeCache, Edges
from ase_mlelec.system import System

CHUNK = 256  # centres evaluated at a time: bounds memory and keeps the work in the processor's cache
WATCH_EVERY = 10  # evaluations of a run, between comparisons with the range of the training data
POTENTIAL_PROPERTIES = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]


class MLElecCalculator(NoBands, WatchesRange, Calculator):
    """Base of the calculators of this package.

    Methods take ``atoms=``; without it they answer for the structure that the calculator is attached to as it is now,
    or raise InputError where that is in doubt, see PresentStructure.

    model : name of a shipped model, path, Model, or a list of those = committee (results are means)
    device : torch device; default CUDA when present
    dtype : torch dtype or its name; default the model's own
    skin : float, Å; the neighbour list is kept while no atom can have come into reach
    potential : ASE calculator, or a model as above, that supplies energy, forces and stress
    on_extrapolation : "warn" (once of each kind), "raise" or "ignore" where a structure is unlike the training data:
        atoms closer than any pair of their species there, surroundings of atoms or whole structures beyond its range,
        or more neighbours than the program keeps that the model was imported from

    extrapolations : dict of int by kind ("distance", "density", "atoms", "structure"), evaluations that were beyond

    uncertainty : dict, standard deviation over the committee of everything that was evaluated

    parameters : dict of JSON types that says what makes the numbers: model, fingerprint of its weights, device, dtype,
        temperatures and the like; change it with ``set``

    Raises CalculatorSetupError for models that lack what the calculator needs.
    """

    needs = ()  # heads a model must have
    electronic = ()  # ASE results beyond those of the potential
    settable = ("skin", "on_extrapolation")  # names of properties that ``set`` changes

    def __init__(self, model, *, device=None, dtype=None, skin=0.5, potential=None, on_extrapolation="warn"):
        super().__init__()
        check_choice(on_extrapolation)
        _check_skin(skin)
        self.device = _as_device(device)
        members = model if isinstance(model, (list, tuple)) else [model]
        if not members:
            raise CalculatorSetupError("got an empty list of models; give at least one")
        with torch_as_usual():
            loaded = [load_model(member) for member in members]
            self.dtype = _as_dtype(dtype) or max((member.dtype for member in loaded), key=lambda d: d.itemsize)
            self.models = [member.for_evaluation().to(device=self.device, dtype=self.dtype) for member in loaded]
        self._named = [
            {"model": name_of(member, model), "weights": fingerprint(model)} for member, model in zip(members, loaded)
        ]
        self._check_models()
        self.metadata = self.models[0].metadata
        self.potential = _as_potential(potential, self.device, dtype, skin)
        self._made_potential = self.potential is not potential
        self._uncertainty = {}
        self._cache = EdgeCache(max(member.cutoff for member in self.models), skin)
        self._extra, self._environments = {}, {}
        self._beyond, self._limits = Extrapolation(self.models[0], on_extrapolation), NeighborLimits(self.models)
        self._due, self._steps, self._listed = True, 0, -1
        self.implemented_properties = self._potential_properties() + list(self.electronic)

    def _check_models(self):
        first = self.models[0].species
        for member in self.models:
            missing = [name for name in self.needs if name not in member.heads]
            if missing:
                raise CalculatorSetupError(
                    f"{type(self).__name__} needs a model with '{missing[0]}', this one has "
                    f"{', '.join(member.heads)}; load another model"
                )
            if member.species != first:
                raise CalculatorSetupError(
                    f"the models of a committee know different species: {', '.join(first)} and "
                    f"{', '.join(member.species)}; train them with one list in one order"
                )

    def _potential_properties(self):
        if self.potential is not None:
            return [name for name in POTENTIAL_PROPERTIES if name in self.potential.implemented_properties]
        return list(POTENTIAL_PROPERTIES) if all("energy" in member.heads for member in self.models) else []

    # what a subclass writes -------------------------------------------------------------------------------------

    def evaluate(self, model, system, environment):
        """dict of Tensor: the electronic quantities of one model, from the environments of all atoms."""
        return {}

    # parameters -------------------------------------------------------------------------------------------------

    @property
    def skin(self):
        """float, Å"""
        return self._cache.skin

    @skin.setter
    def skin(self, skin):
        _check_skin(skin)
        self._cache = EdgeCache(self._cache.cutoff, skin)
        if self._made_potential:
            self.potential.skin = skin

    def set(self, **parameters):
        """Change parameters by name; what depends on them is computed anew.  Returns dict of those that changed.

        Raises CalculatorSetupError for unknown names, those that need another calculator, and wrong values; nothing
        is changed then.
        """
        foreign = [name for name in parameters if name not in self.settable]
        if foreign:
            fixed = foreign[0] in FIXED
            raise CalculatorSetupError(
                f"got {foreign[0]}={reprlib.repr(parameters[foreign[0]])}; "
                + (
                    f"{foreign[0]} is fixed: make another {type(self).__name__}"
                    if fixed
                    else f"{type(self).__name__} can set {', '.join(self.settable)}"
                )
            )
        if not parameters:
            return {}
        with self._one_call():
            before, state = self.parameters, dict(self.__dict__)
            try:
                for name, value in parameters.items():
                    setattr(self, name, value)
            except Exception:
                self.__dict__.update(state)
                raise
            return {name: value for name, value in parameters.items() if self.parameters[name] != before[name]}

    def _stated(self):
        """dict: what decides the results."""
        first = (
            self._named[0]
            if len(self._named) == 1
            else {key: [each[key] for each in self._named] for key in self._named[0]}
        )
        potential = {} if self.potential is None else {"potential": stated(self.potential)}
        return {
            **first,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            **potential,
            **{name: getattr(self, name) for name in self.settable},
        }

    @property
    def parameters(self):
        return StatedParameters(plain(self._stated()) if "_named" in self.__dict__ else {})

    @parameters.setter
    def parameters(self, parameters):
        if "_named" in self.__dict__:  # ASE's constructor comes before
            raise CalculatorSetupError("parameters cannot be replaced; change them with calc.set(name=value)")

    def todict(self, skip_default=True):
        """The parameters, as ASE writes them into trajectories and databases."""
        return dict(self.parameters)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={reprlib.repr(v)}' for k, v in self.todict().items())})"

    # ASE's side -------------------------------------------------------------------------------------------------

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        atoms = self._live(atoms)
        if system_changes or self.calculation_required(atoms, []):
            self.reset()
        super().calculate(atoms, properties, system_changes)
        wanted = [name for name in properties if name not in self.results]
        foreign = [name for name in wanted if name not in self.implemented_properties]
        if foreign:
            raise PropertyNotImplementedError(
                f"{type(self).__name__} with this model has no {foreign[0]}; "
                f"it has {', '.join(self.implemented_properties)}"
            )
        if any(name in ("stress", "stresses") for name in wanted) and not has_volume(self.atoms):
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
        self._extra, self._environments, self._uncertainty = {}, {}, {}

    def __getstate__(self):
        """Copies and pickles keep ASE's results; what else was evaluated is evaluated again where it is needed."""
        return {**super().__getstate__(), "_extra": {}, "_environments": {}}

    @property
    def uncertainty(self):
        """dict, standard deviation over the committee of everything that was evaluated for the present structure."""
        with self._one_call():
            if self._asked is None and self._candidates():
                self._present()
            return self._uncertainty

    @uncertainty.setter
    def uncertainty(self, spreads):
        self._uncertainty = spreads

    def each_of(self, images, properties=POTENTIAL_PROPERTIES):
        """Evaluate structures together, then make them the present one in turn: iterator over ``images``.

        Small structures fill the processor only together.  ``properties`` are names of what is going to be asked for;
        those that are not of the potential evaluate the electronic quantities.  What depends on all atoms of a
        structure, such as the Fermi level, is computed when it is asked for.
        """
        asked = [name in POTENTIAL_PROPERTIES for name in properties]
        with self._one_call():
            edges, members, values = self._evaluate_together(images, asked)
        partner = self.potential.each_of(images) if any(asked) and hasattr(self.potential, "each_of") else images
        measured = self._measured()
        ends = np.cumsum([0, *map(len, images)])
        bounds = torch.searchsorted(edges.center, torch.as_tensor(ends, device=self.device)).tolist()
        for k, (image, _) in enumerate(zip(images, partner)):
            atoms, rows = slice(ends[k], ends[k + 1]), slice(bounds[k], bounds[k + 1])
            with self._one_call():
                self.reset()
                self._present(image)
                self._measured().update({name: values[atoms] for name, values in measured.items()})
                if members:
                    self._store_potential(
                        [(energy[atoms], gradient[rows]) for energy, gradient in members], edges.part(atoms, rows)
                    )
                self._store({name: [member[atoms] for member in columns] for name, columns in values.items()})
            yield image

    def _evaluate_together(self, images, asked):
        """(Edges of all, atomic energies and gradients by member, electronic quantities by name and member)."""
        own = self.potential is None and "energy" in self.implemented_properties
        system = System.from_atoms(images, self.dtype, self.device)
        self.models[0].check_species(system.numbers.tolist())
        edges = Edges.build(system, self._cache.cutoff)
        self._check_pairs(system, edges)
        self.reset()
        self._due = True
        members = [
            self._member_potential(k, model, system, edges) for k, model in enumerate(self.models) if own and any(asked)
        ]
        return edges, members, {} if all(asked) else self._member_electronic(system, edges)

    # the model's side -------------------------------------------------------------------------------------------

    def _geometry(self):
        """(System, Edges) of the present atoms, checked."""
        if "geometry" not in self._extra:
            system = System.from_atoms(self.atoms, self.dtype, self.device)
            self.models[0].check_species(self.atoms.numbers)
            edges = self._cache.edges(system)
            # steps of a run are much alike: the range is compared where the neighbours were listed anew, and at times
            self._steps, built = self._steps + 1, self._cache.n_builds
            self._due = built != self._listed or self._steps % WATCH_EVERY == 0
            self._listed = built
            self._check_pairs(system, edges)
            self._extra["geometry"] = system, edges
        return self._extra["geometry"]

    def _check_pairs(self, system, edges):
        self._beyond.check_distances(self.models[0], system, edges)
        self._limits.check(system, edges, self.on_extrapolation)

    def _evaluate_potential(self, wanted):
        system, edges = self._geometry()
        self._store_potential(
            [self._member_potential(k, model, system, edges) for k, model in enumerate(self.models)], edges
        )

    def _store_potential(self, members, edges):
        """ASE's results of the present atoms from atomic energies and dE/dvec of every member."""
        volume = self.atoms.get_volume() if has_volume(self.atoms) else None
        results = [potential_results(energies, gradient, edges, volume) for energies, gradient in members]
        self._store({name: [result[name] for result in results] for name in results[0]})

    def _member_potential(self, k, model, system, edges):
        """Atomic energies [N] and dE/dvec [E, 3], chunk by chunk; keeps the environments for electronic quantities."""
        energies, gradients, environments = [], [], []
        reach, seen = self._reach(model, edges), self._seen("energy", model)
        for _, part in reach.chunks(CHUNK):
            leaf = part.with_vec(part.vec.detach().requires_grad_(True))
            environment = model.descriptor_of("energy")(system, leaf)
            energy = model.evaluate_head("energy", environment, system, leaf)
            gradients.append(torch.autograd.grad(energy.sum(), leaf.vec)[0])
            energies.append(energy.detach())
            seen.add(environment)
            if len(model.heads) > 1 and model.electronic is None:  # kept for the others
                environments.append(_detached(environment))
        if environments:
            self._environments[k] = environments
        self._check_range("energy", seen, system, reach)
        gradient = gradients[0]
        if len(gradients) > 1:
            gradient = torch.cat([part.T for part in gradients], dim=1).T  # stays in planes x, y, z
        if model.cutoff < self._cache.cutoff:
            gradient = torch.zeros_like(edges.vec).index_put((self._near(model, edges),), gradient)
        return torch.cat(energies) if len(energies) > 1 else energies[0], gradient

    def _near(self, model, edges):
        return (edges.distances < model.cutoff).nonzero()[:, 0]

    def _reach(self, model, edges):
        """The edges within the model's own cutoff (members of a committee may differ)."""
        if model.cutoff >= self._cache.cutoff:
            return edges
        return edges.closer_than(model.cutoff)

    def _evaluate_electronic(self):
        """Fill the cache with what ``evaluate`` returns: means over the committee, as numpy arrays."""
        self._store(self._member_electronic(*self._geometry()))

    def _member_electronic(self, system, edges):
        """dict of list of array [N, ...]: what ``evaluate`` returns, by member of the committee."""
        values = {}
        with torch.no_grad():
            for k, model in enumerate(self.models):
                if k not in self._environments:
                    descriptor, reach = model.electronic or model.descriptor, self._reach(model, edges)
                    self._environments[k] = [descriptor(system, part) for _, part in reach.chunks(CHUNK)]
                    self._look_at(self.needs[0], model, self._environments[k], system, reach)
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
                self._uncertainty[name] = np.std(members, axis=0)
            (self.results if name in all_outputs else self._extra)[name] = mean

    def _ask_potential(self, wanted):
        for name in wanted:
            if name in POTENTIAL_PROPERTIES:
                self.results[name] = self.potential.get_property(name, self._live())
        # forces must be the gradient of the energy that is logged
        if "energy" in self.results and "free_energy" in self.implemented_properties:
            self.results.setdefault("free_energy", self.potential.get_property("free_energy", self._live()))


def check_temperature(temperature):
    """Raise CalculatorSetupError unless it is a number in K."""
    if not (np.isscalar(temperature) and np.isreal(temperature) and 0 <= temperature < np.inf):
        raise CalculatorSetupError(f"got electronic_temperature={temperature!r} K; give 0 or more")


def _check_skin(skin):
    if not (np.isscalar(skin) and np.isreal(skin) and 0 <= skin < np.inf):
        raise CalculatorSetupError(f"got skin={skin!r} Å; give 0 or more")


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


def has_volume(atoms):
    """Whether the cell has three vectors that span a volume, whatever directions repeat."""
    return atoms.cell.rank == 3 and atoms.get_volume() > 1e-6 * np.prod(atoms.cell.lengths())


def potential_results(energies, gradient, edges, volume):
    """ASE's results from atomic energies and dE/dvec; sums in float64.

    F_i = sum_ij g_ij - sum_ji g_ji and dE/dε = sum vec ⊗ g, because vec = r_j - r_i deforms as a whole.
    """
    vec, gradient = edges.vec.T.double().contiguous(), gradient.T.double().contiguous()  # planes [3, E]: faster
    forces = gradient.new_zeros(3, len(edges.atoms))
    forces.index_add_(1, edges.center, gradient).index_add_(1, edges.neighbor, gradient, alpha=-1)
    energies = energies.double().cpu().numpy()
    energy = float(energies.sum())
    results = {
        "energy": energy,
        "free_energy": energy,
        "energies": energies,
        "forces": np.ascontiguousarray(forces.cpu().numpy().T),
    }
    if volume is not None:
        first, second = _voigt_components(vec.device)
        sheared = vec.index_select(0, first) * gradient.index_select(0, second)
        sheared = torch.addcmul(sheared, vec.index_select(0, second), gradient.index_select(0, first))
        stresses = sheared.new_zeros(6, len(edges.atoms)).index_add_(1, edges.center, sheared, alpha=0.5 / volume)
        results["stresses"] = np.ascontiguousarray(stresses.cpu().numpy().T)
        results["stress"] = results["stresses"].sum(axis=0)
    return results


@functools.lru_cache
def _voigt_components(device):
    """Tensors [6]: rows and columns of a symmetric matrix in Voigt order."""
    return torch.tensor([0, 1, 2, 1, 0, 0], device=device), torch.tensor([0, 1, 2, 2, 2, 1], device=device)
