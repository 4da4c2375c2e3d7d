"""Standard deviations of the results of calculators, and members drawn from the posterior of a model."""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError

from ase_mlelec.calculators.extrapolation import CHUNK, OnExtrapolation
from ase_mlelec.calculators.force_bars import leverage_and_gradients
from ase_mlelec.calculators.potential import POTENTIAL_PROPERTIES, has_volume, potential_results
from ase_mlelec.calculators.present import PresentStructure
from ase_mlelec.model import Model
from ase_mlelec.threads import map_chunks
from ase_mlelec.uncertainty import (
    contributions,
    deviations_of_atoms,
    deviations_of_forces,
    deviations_of_stress,
    deviations_of_sums,
    leverage_around,
    leverages,
    summed,
    summed_floor,
    without_gauge,
)

N_MEMBERS = 16  # members for results that follow from others, such as the Fermi level
CALIBRATE = "add error bars with 'mlelec calibrate', or give a list of models (a committee)"


class Uncertainty(Mapping):
    """Standard deviations by the name of a result, computed when they are asked for.

    Iteration and ``in`` see what is known already.
    """

    def __init__(self, known: Mapping[str, Any], find: Callable[[str], Any]) -> None:
        self._known, self._find = known, find

    def __getitem__(self, name):
        return self._known[name] if name in self._known else self._find(name)

    def __contains__(self, name):
        return name in self._known

    def __iter__(self):
        return iter(self._known)

    def __len__(self):
        return len(self._known)

    def __repr__(self):
        return repr(dict(self._known))


class HasUncertainty(PresentStructure):
    """Mix-in of calculators with standard deviations of all results.

    A subclass lists its results that follow from others in ``derived``, a dict by name of functions of a calculator.
    """

    derived: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    models: list[Model]
    potential: Any
    _extra: dict[str, Any]
    _uncertainty: dict[str, Any]
    _environments: dict[int, list]
    _geometry: Any
    _reach: Any
    _watched: str
    _environments_by: Any
    device: torch.device
    _keeps_graphs: bool = False  # whether an evaluation leaves in ``_extra["graphs"]`` what bars of forces need
    _keeps_features: bool = False  # whether it leaves there the environments that bars of the energy need

    @property
    def uncertainty(self) -> Mapping[str, Any]:
        """Standard deviations of the results for the present structure, by name; computed when they are asked for.

        They are the spread over a committee, or follow from the posterior of the last layer of a model; both are scaled
        as the model's file says, so that 68 % of the errors on validation data are within one. They are infinite for what
        follows from a density of states that, in a member, has no Fermi level.

        Raises
        ------
        CalculatorSetupError
            For one model whose file has no posterior.
        KeyError
            For other names.
        """
        with self._one_call():
            if self._asked is None and self._candidates():
                self._present()
            return Uncertainty(self._uncertainty, self._find_uncertainty)

    def members(self, n: int = N_MEMBERS, *, atoms: Atoms | None = None) -> list:
        """Return calculators whose differences are the uncertainty of the model.

        Their models share the descriptor of this one and have last layers drawn from the posterior, the same in every
        call. For the present structure they also share its neighbor list and, for electronic quantities, what is
        evaluated before the last layer. The members of a committee are its models.

        Parameters
        ----------
        n : int
            Number of members drawn from a posterior, two or more.
        atoms : ase.Atoms

        Returns
        -------
        list of calculators of the same class

        Raises
        ------
        CalculatorSetupError
            For one model whose file has no posterior.
        """
        self._present(atoms)
        if len(self.models) > 1:
            return [self._as_member([model], {}) for model in self.models]
        if n < 2:
            raise CalculatorSetupError(f"got n={n} members; give two or more")
        self._check_posterior()
        self._evaluate_shared()
        shared = self._shared()
        found = [self._as_member([model], shared) for model in self.models[0].members(n)]
        self._fill(found)
        return found

    def _fill(self, members):
        """Give members the results that are cheaper to compute for all of them together."""

    def _check_posterior(self):
        if not len(self.models[0].posteriors):
            raise CalculatorSetupError(f"the model's file has no posterior, from which error bars follow; {CALIBRATE}")

    def _evaluate_shared(self):
        """Evaluate what members share."""
        if 0 not in self._environments:
            self._evaluate_electronic()

    def _shared(self):
        """What members share for the present structure: attributes by name."""
        geometry = {key: self._extra[key] for key in ("geometry", "centers") if key in self._extra}
        return {"_extra": geometry, "_environments": {0: self._environments[0]} if 0 in self._environments else {}}

    def _as_member(self, models, shared):
        """Copy of this calculator with other models, for the present structure."""
        new = copy.copy(self)
        new.models, new.results, new._beyond = models, {}, copy.copy(self._beyond)
        new._beyond.what = OnExtrapolation.IGNORE
        new._extra, new._environments, new._uncertainty = {}, {}, {}
        new.atoms = None
        with new._one_call():
            new._present(self._live())
            for name, value in shared.items():
                setattr(new, name, dict(value))
        return new

    def get_uncertainty(self, name: str, *, atoms: Atoms | None = None) -> Any:
        """Return ``uncertainty[name]`` of a structure, by default of the present one."""
        self._present(atoms)
        return self._known_uncertainty(name)

    # one name at a time -----------------------------------------------------------------------------------------

    def _find_uncertainty(self, name):
        """Standard deviation of one result for the present structure."""
        with self._one_call():
            self._present()
            return self._known_uncertainty(name)

    def _known_uncertainty(self, name):
        """As ``_find_uncertainty``, in a call that has made its structure the present one."""
        if name not in self._uncertainty:
            self._compute_uncertainty(name)
        return self._uncertainty[name]

    def _compute_uncertainty(self, name):
        """Put the standard deviation of ``name``, and others that come with it, into ``_uncertainty``."""
        if name in POTENTIAL_PROPERTIES and self.potential is not None:
            self._uncertainty[name] = self._of_potential(name)
            return
        if len(self.models) > 1:
            if name in self.implemented_properties and name not in self.derived:
                self.get_property(name, self._live())
        else:
            self._check_posterior()
            self._uncertainty.update(self._from_posterior(name))
        if name not in self._uncertainty and name in self.derived:
            self._uncertainty[name] = self._scaled(name, self._spread(self.derived[name]))
        if name not in self._uncertainty:
            known = dict.fromkeys([*self.implemented_properties, *self._uncertainty, *self.derived])
            raise KeyError(f"no standard deviation of '{name}'; there can be some of {', '.join(known)}")

    def _spread(self, function):
        """Standard deviation over members; infinite where one has no such result, far outside the training data."""
        try:
            return np.std([function(member) for member in self._kept_members()], axis=0)
        except ValueError:  # a density of states that cannot be filled
            return np.full_like(function(self), np.inf)

    def _kept_members(self):
        """The members for results that follow from others."""
        if "members" not in self._extra:
            self._extra["members"] = self.members()
        return self._extra["members"]

    def _of_potential(self, name):
        if not hasattr(type(self.potential), "uncertainty"):
            raise PropertyNotImplementedError(f"the potential has no uncertainty of the {name}; give a model instead")
        self.potential._present(self._live())
        return self.potential.uncertainty[name]

    def _scaled(self, name, spread):
        """Standard deviation of a result from its spread over the members."""
        return spread * self._spread_scale(name)

    def _spread_scale(self, name):
        """Calibrated factor of the spread of a result over the members."""
        first = self.models[0]
        if len(self.models) > 1:
            return float(first.metadata.get("committee_scales", {}).get(name, 1.0))
        known = (part.scales for part in first.posteriors.values() if name in part.scales)
        return next((scales[name] / scales.get("members", 1.0) for scales in known), 1.0)

    def _from_posterior(self, name):
        """Standard deviations of ``name``, and others that come with it, dict; empty where it does not follow directly."""
        if name not in POTENTIAL_PROPERTIES or "energy" not in self.models[0].posteriors:
            return {}
        if name in ("energy", "free_energy", "energies"):
            return self._energy_deviations()
        return self._force_deviations() if name == "forces" else self._stress_deviations()

    def _energy_deviations(self):
        """Standard deviations of energy and atomic energies."""
        head, posterior = self.models[0].heads["energy"], self._energy_posterior()
        total, noise, parts = 0.0, 0.0, []
        scale, floor = posterior.scale("energy"), posterior.floor("energy")
        with torch.no_grad():
            for environment in self._energy_environments():
                of = contributions(head, posterior, environment)
                whole = torch.zeros_like(of.nets)
                total, noise = total + summed(of, whole, 1), noise + summed_floor(of, floor, whole, 1)
                parts.append(deviations_of_atoms(without_gauge(of, posterior), floor=floor))
        energy = scale * float(deviations_of_sums(total, of, noise=noise)[0])
        atoms = scale * torch.cat(parts).double().cpu().numpy()
        return {"energy": energy, "free_energy": energy, "energies": atoms}

    def _energy_posterior(self):
        """Posterior of the energy."""
        return self.models[0].posteriors["energy"]

    def _energy_environments(self) -> Iterator:
        """Environments of all atoms for the energy, chunk by chunk; those of the last evaluation where they are kept."""
        self._keeps_features = True  # from the next structure on; whoever wants bars wants them again
        if "energy_environments" in self._extra:
            yield from self._extra["energy_environments"]
            return
        model, (system, edges) = self.models[0], self._geometry()
        yield from self._environments_by(model, "energy", system, self._reach(model, edges))

    def _force_deviations(self):
        """Standard deviations of forces, from the gradients of a few directions of the posterior."""
        posterior = self._energy_posterior()
        reach, leverage, _ = self._energy_gradients()
        around = leverage_around(leverage, reach, self.models[0].descriptor.cutoff)
        found = deviations_of_forces(
            self._columns(None)["forces"],
            around.cpu(),
            torch.zeros(len(leverage), dtype=torch.long),
            floor=posterior.floor("forces"),
        )
        return {"forces": (posterior.scale("forces") * found).numpy()}

    def _stress_deviations(self):
        """Standard deviations of stress and stresses, from the same gradients; none without a volume."""
        if not has_volume(self.atoms):
            return {}
        posterior, volume = self._energy_posterior(), self.atoms.get_volume()
        scale, noise, columns = (
            posterior.scale("virial"),
            (posterior.floor("virial") / volume) ** 2,
            self._columns(volume),
        )
        of_atoms = scale * deviations_of_stress(columns["stresses"], noise=noise)
        whole = scale * deviations_of_stress(columns["stress"][:, None], noise=len(of_atoms) * noise)[0]
        return {"stresses": of_atoms.numpy(), "stress": whole.numpy()}

    def _columns(self, volume):
        """Results of the changes of the energy, for every direction, dict of Tensor [n, ...]; stress with a volume."""
        reach, leverage, gradients = self._energy_gradients()
        nothing = reach.vec.new_zeros(len(leverage))
        results = [potential_results(nothing, gradient, reach, volume=volume) for gradient in gradients]
        return {name: torch.as_tensor(np.stack([each[name] for each in results])) for name in results[0]}

    def _energy_gradients(self):
        """(edges, leverage [N], derivatives [E, 3] of every direction by the edge vectors, list), evaluated once."""
        self._keeps_graphs = True  # from the next structure on; whoever wants bars wants them again
        if "energy_gradients" not in self._extra:
            model, (system, edges) = self.models[0], self._geometry()
            reach, chunks = self._extra.pop("graphs", (None, None))
            if reach is None:
                reach = edges.up_to(model.descriptor.cutoff)
            evaluated = functools.partial(leverage_and_gradients, model, system)
            found = map_chunks(evaluated, chunks or reach.chunks(CHUNK), device=self.device)
            leverage, *gradients = map(torch.cat, zip(*found))
            self._extra["energy_gradients"] = reach, leverage.double(), gradients
        return self._extra["energy_gradients"]

    def _deviations_of(self, name, labels, weights=None):
        """Standard deviations of the results of atoms and of their sum, from the posterior of the head ``name``.

        Parameters
        ----------
        labels : dict of str
            Name of the result by the label whose scale it has: first of atoms, then of the sum.
        weights : array [N]
            Weights of the atoms in the sum; default one.
        """
        head, posterior = (part[name] for part in (self.models[0].heads, self.models[0].posteriors))
        weight = torch.ones(len(self.atoms)) if weights is None else torch.as_tensor(weights)
        total, noise, atoms, start = 0.0, 0.0, [], 0
        own, of_sum = (posterior.floor(label) for label in labels)
        with torch.no_grad():
            rows, environments = self._environments_of(name)
            weight = weight.to(self.device, self.dtype)[rows]
            for environment in environments:
                of = contributions(head, posterior, environment)
                atoms.append(deviations_of_atoms(of, floor=own))
                part, whole = weight[start : start + len(of.z)], torch.zeros_like(of.nets)
                noise = noise + summed_floor(of, of_sum, whole, 1, part)
                of = of._replace(z=of.z * part[:, None])
                start += len(of.z)
                total = total + summed(of, whole, 1)
            found = self._of_all_atoms(torch.cat(atoms), rows), deviations_of_sums(total, of, noise=noise)[0]
        return {
            result: posterior.scale(label) * value.double().cpu().numpy()
            for (label, result), value in zip(labels.items(), found)
        }

    # leverage ---------------------------------------------------------------------------------------------------

    def get_leverage(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return how far the environment of every atom is from the training data, as the last layer sees it.

        Returns
        -------
        array [N]
            Standard deviation of the contribution of the atom, relative to the mean of its species, in units of the
            largest one in the training data: 1 at their edge, 0 in their middle.

        Raises
        ------
        CalculatorSetupError
            For models without a posterior of the head.
        """
        self._present(atoms)
        name = self._watched
        if name not in self.models[0].posteriors:
            self._check_posterior()
            raise CalculatorSetupError(f"the model's file has no posterior of the {name}; {CALIBRATE}")
        head, posterior = (part[name] for part in (self.models[0].heads, self.models[0].posteriors))
        with torch.no_grad():
            of_energy = name == "energy"
            rows, found = (slice(None), self._energy_environments()) if of_energy else self._environments_of(name)
            parts = [leverages(contributions(head, posterior, environment), posterior) for environment in found]
        return self._of_all_atoms(torch.cat(parts), rows).double().cpu().numpy()

    def _environments_of(self, name) -> Any:
        """(rows, environments, chunk by chunk) of the atoms with an electronic quantity."""
        self._evaluate_shared()
        return slice(None), self._environments[0]

    def _of_all_atoms(self, values, rows):
        """Values [N, ...] of all atoms from those of ``rows``; zero for the others."""
        full = values.new_zeros(len(self.atoms), *values.shape[1:])
        full[rows] = values
        return full
