"""Base class of the calculators: models, parameters, results and errors as ASE expects them.

A subclass names the heads that it needs and writes ``evaluate``. The module ``evaluation`` sends a structure through the
models, ``present`` finds the structure of a call, and ``extrapolation`` compares structures with the training data.
"""

import os
import reprlib
from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import (
    BaseCalculator,
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)

from ase_mlelec.bundle import load_model
from ase_mlelec.calculators.evaluation import EvaluatesModels
from ase_mlelec.calculators.extrapolation import Extrapolation, NeighborLimits, OnExtrapolation, as_choice
from ase_mlelec.calculators.no_bands import NoBands
from ase_mlelec.calculators.parameters import (
    FIXED,
    StatesParameters,
    as_device,
    as_dtype,
    check_skin,
    fingerprint,
    name_of,
    stated,
)
from ase_mlelec.calculators.potential import POTENTIAL_PROPERTIES, has_volume
from ase_mlelec.calculators.present import torch_as_usual
from ase_mlelec.calculators.uncertainty import HasUncertainty
from ase_mlelec.edges import EdgeCache
from ase_mlelec.model import Model

ModelLike = str | os.PathLike | Model


class MLElecCalculator(NoBands, StatesParameters, HasUncertainty, EvaluatesModels, Calculator):
    """Base of the calculators of this package.

    Methods take ``atoms=``. Without it they answer for the structure that the calculator is attached to, in its present
    state, or raise InputError where this structure is in doubt, see PresentStructure.

    Parameters
    ----------
    model : str, path, Model, or a list of these
        Name of a shipped model, file, or Model. Several models are a committee, whose results are means.
    device : torch device
        Default: CUDA when present.
    dtype : torch dtype or its name
        Precision of descriptors and nets. Default: the dtype of the model. Geometry, the last layer of energies, sums, and
        energies that are linear in the features are in float64 in any case.
    skin : float, Å
        The neighbor list reaches this far beyond the cutoff, and is built again when an atom may have crossed the skin.
    potential : ASE calculator, or a model as above
        Supplies energy, forces and stress in place of the model.
    on_extrapolation : OnExtrapolation, or its value
        "warn" (once of each kind), "raise" or "ignore" for structures unlike the training data: atoms closer than any
        pair of their species in the data, environments or whole structures outside the range of the data, and, for
        imported models, more neighbors than the original program keeps.

    Attributes
    ----------
    extrapolations : dict of int
        Number of evaluations outside the training data, by kind ("distance", "density", "atoms", "structure",
        "electronic temperature").
    uncertainty : mapping
        Standard deviations of all results, see HasUncertainty.
    parameters : dict of JSON types
        Everything that decides the results: model, fingerprint of its weights, device, dtype, temperatures and so on;
        the method ``set`` changes it.

    Raises
    ------
    CalculatorSetupError
        For models without a head that the calculator needs.
    """

    needs: Sequence[str] = ()  # heads that a model must have
    electronic: Sequence[str] = ()  # ASE results in addition to energy, forces and stress
    settable: Sequence[str] = ("skin", "on_extrapolation")  # names of properties that ``set`` changes
    potential_class: type["MLElecCalculator"]  # calculator class for models given as ``potential``

    def __init__(
        self,
        model: ModelLike | Sequence[ModelLike],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        potential: BaseCalculator | ModelLike | Sequence[ModelLike] | None = None,
        on_extrapolation: str = OnExtrapolation.WARN,
    ) -> None:
        super().__init__()
        chosen = as_choice(on_extrapolation)
        check_skin(skin)
        self.device = as_device(device)
        members: Sequence[Any] = model if isinstance(model, (list, tuple)) else [model]
        if not members:
            raise CalculatorSetupError("got an empty list of models; give at least one")
        with torch_as_usual():
            loaded = [load_model(member) for member in members]
            self.dtype = as_dtype(dtype) or max((member.dtype for member in loaded), key=lambda d: d.itemsize)
            self.models = [member.for_evaluation(self.dtype).to(self.device) for member in loaded]
        self._named = [
            {"model": name_of(member, model), "weights": fingerprint(model)} for member, model in zip(members, loaded)
        ]
        self._check_models()
        self.metadata = self.models[0].metadata
        self.potential = potential
        self._made_potential = not (potential is None or hasattr(potential, "get_property"))
        if self._made_potential:
            self.potential = self.potential_class(self.potential, device=self.device, dtype=dtype, skin=skin)
        self._uncertainty: dict[str, Any] = {}
        self._cache = EdgeCache(max(member.reach for member in self.models), skin)
        self._extra: dict[str, Any] = {}
        self._environments: dict[int, list] = {}
        self._beyond, self._limits = Extrapolation(self.models[0], what=chosen), NeighborLimits(self.models)
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
        if not all("energy" in member.heads for member in self.models):
            return []
        far = any(member.long_range for member in self.models)
        return [name for name in POTENTIAL_PROPERTIES if not (far and name == "stresses")]

    # parameters -------------------------------------------------------------------------------------------------

    @property
    def skin(self) -> float:
        """Distance, Å, by which the neighbor list exceeds the cutoff."""
        return self._cache.skin

    @skin.setter
    def skin(self, skin: float) -> None:
        check_skin(skin)
        self._cache = EdgeCache(self._cache.cutoff, skin)
        if self._made_potential:
            self.potential.skin = skin

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Change parameters by name; results that depend on them are computed again.

        Returns
        -------
        dict
            The parameters that changed.

        Raises
        ------
        CalculatorSetupError
            For unknown names, names that need another calculator, and wrong values; no parameter changes then.
        """
        for name, value in parameters.items():
            if name not in self.settable:
                remedy = (
                    f"{name} is fixed: make another {type(self).__name__}"
                    if name in FIXED
                    else f"{type(self).__name__} can set {', '.join(self.settable)}"
                )
                raise CalculatorSetupError(f"got {name}={reprlib.repr(value)}; {remedy}")
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
        one = len(self._named) == 1
        named = self._named[0] if one else {key: [each[key] for each in self._named] for key in self._named[0]}
        return {
            **named,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            **({} if self.potential is None else {"potential": stated(self.potential)}),
            **{name: getattr(self, name) for name in self.settable},
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={reprlib.repr(v)}' for k, v in self.todict().items())})"

    # ASE's side -------------------------------------------------------------------------------------------------

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results`` with the properties of a structure; called by ASE."""
        atoms = self._live(atoms)
        if system_changes or self.calculation_required(atoms, []):
            self.reset()
        if self.atoms is None:
            self.atoms = atoms.copy()  # as ase's Calculator, which looks for the folder of its files as well
        wanted = [name for name in properties if name not in self.results]
        foreign = [name for name in wanted if name not in self.implemented_properties]
        if foreign:
            raise PropertyNotImplementedError(
                f"{type(self).__name__} with this model has no {foreign[0]}; "
                f"it has {', '.join(self.implemented_properties)}"
            )
        if any(name in ("stress", "stresses") for name in wanted) and not has_volume(self.atoms):
            raise PropertyNotImplementedError("stress needs a cell with three vectors; set it with atoms.set_cell(...)")
        of_potential = [name for name in wanted if name in POTENTIAL_PROPERTIES]
        if of_potential and self.potential is None:
            self._evaluate_potential(of_potential)
        elif of_potential:
            self._ask_potential(of_potential)
        if any(name in self.electronic for name in wanted):
            self.results.update(self.electronic_results())

    def _ask_potential(self, wanted):
        for name in wanted:
            self.results[name] = self.potential.get_property(name, self._live())
        # forces must be the gradient of the energy that a trajectory logs
        if "energy" in self.results and "free_energy" in self.implemented_properties:
            self.results.setdefault("free_energy", self.potential.get_property("free_energy", self._live()))

    def electronic_results(self) -> dict[str, Any]:
        """Return the ASE results named in ``electronic`` for the present atoms."""
        return {}

    def reset(self) -> None:
        """Drop all results."""
        super().reset()
        self._extra, self._environments, self._uncertainty = {}, {}, {}

    def __getstate__(self):
        """Copies and pickles keep ASE's results; other results are evaluated again on demand."""
        return {**super().__getstate__(), "_extra": {}, "_environments": {}}
