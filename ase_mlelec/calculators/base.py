"""MLElecCalculator: everything the calculators share on ASE's side: models, parameters, results, errors.

A subclass names the heads it needs and writes ``evaluate``. How a structure goes through the models is in
``evaluation``, which structure is meant in ``present``, what is told outside of the training data in ``extrapolation``.
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
from ase_mlelec.calculators.extrapolation import Extrapolation, OnExtrapolation, as_choice
from ase_mlelec.calculators.neighbor_limits import NeighborLimits
from ase_mlelec.calculators.no_bands import NoBands
from ase_mlelec.calculators.options import as_device, as_dtype, check_skin
from ase_mlelec.calculators.parameters import FIXED, StatesParameters, fingerprint, name_of, stated
from ase_mlelec.calculators.potential import POTENTIAL_PROPERTIES, has_volume
from ase_mlelec.calculators.present import torch_as_usual
from ase_mlelec.edges import EdgeCache
from ase_mlelec.model import Model

ModelLike = str | os.PathLike | Model


class MLElecCalculator(NoBands, StatesParameters, EvaluatesModels, Calculator):
    """Base of the calculators of this package.

    Methods take ``atoms=``; without it they answer for the structure that the calculator is attached to as it is now,
    or raise InputError where that is in doubt, see PresentStructure.

    Parameters
    ----------
    model : str, path, Model, or a list of those
        Name of a shipped model, or file; several are a committee: results are means.
    device : torch device
        Default: CUDA when present.
    dtype : torch dtype or its name
        Default: the model's own.
    skin : float, Å
        The neighbor list is kept while no atom can have come into reach.
    potential : ASE calculator, or a model as above
        Supplies energy, forces and stress in place of the model.
    on_extrapolation : OnExtrapolation, or its value
        "warn" (once of each kind), "raise" or "ignore" where a structure is unlike the training data: atoms closer
        than any pair of their species there, surroundings of atoms or whole structures beyond its range, or more
        neighbors than the program keeps that the model was imported from.

    Attributes
    ----------
    extrapolations : dict of int
        By kind ("distance", "density", "atoms", "structure"): evaluations that were beyond.
    uncertainty : dict
        Standard deviation over the committee of everything that was evaluated.
    parameters : dict of JSON types
        What makes the numbers: model, fingerprint of its weights, device, dtype, temperatures and the like; change it
        with ``set``.

    Raises
    ------
    CalculatorSetupError
        For models that lack what the calculator needs.
    """

    needs: Sequence[str] = ()  # heads a model must have
    electronic: Sequence[str] = ()  # ASE results beyond those of the potential
    settable: Sequence[str] = ("skin", "on_extrapolation")  # names of properties that ``set`` changes
    potential_class: type["MLElecCalculator"]  # of calculators for models that are given as ``potential``

    def __init__(
        self,
        model: ModelLike | Sequence[ModelLike],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        potential: BaseCalculator | ModelLike | Sequence[ModelLike] | None = None,
        on_extrapolation: str = OnExtrapolation.WARN,
    ):
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
            self.models = [member.for_evaluation().to(device=self.device, dtype=self.dtype) for member in loaded]
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
        self._cache = EdgeCache(max(member.descriptor.cutoff for member in self.models), skin)
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
        return list(POTENTIAL_PROPERTIES) if all("energy" in member.heads for member in self.models) else []

    # parameters -------------------------------------------------------------------------------------------------

    @property
    def skin(self) -> float:
        """float, Å"""
        return self._cache.skin

    @skin.setter
    def skin(self, skin: float):
        check_skin(skin)
        self._cache = EdgeCache(self._cache.cutoff, skin)
        if self._made_potential:
            self.potential.skin = skin

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Change parameters by name; what depends on them is computed anew.

        Returns
        -------
        dict
            Those that changed.

        Raises
        ------
        CalculatorSetupError
            For unknown names, those that need another calculator, and wrong values; nothing is changed then.
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
        # forces must be the gradient of the energy that is logged
        if "energy" in self.results and "free_energy" in self.implemented_properties:
            self.results.setdefault("free_energy", self.potential.get_property("free_energy", self._live()))

    def electronic_results(self) -> dict[str, Any]:
        """Return the ASE results in ``electronic`` by name, for the present atoms."""
        return {}

    def reset(self) -> None:
        """Forget what was evaluated."""
        super().reset()
        self._extra, self._environments, self._uncertainty = {}, {}, {}

    def __getstate__(self):
        """Copies and pickles keep ASE's results; what else was evaluated is evaluated again where it is needed."""
        return {**super().__getstate__(), "_extra": {}, "_environments": {}}

    @property
    def uncertainty(self) -> dict[str, Any]:
        """dict, standard deviation over the committee of everything that was evaluated for the present structure."""
        with self._one_call():
            if self._asked is None and self._candidates():
                self._present()
            return self._uncertainty

    @uncertainty.setter
    def uncertainty(self, spreads: dict[str, Any]):
        self._uncertainty = spreads
