"""One calculator made of several, with a common neighbor list."""

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import (
    BaseCalculator,
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure

from ase_mlelec.calculators.no_bands import is_refusal
from ase_mlelec.calculators.parameters import StatesParameters, stated
from ase_mlelec.calculators.potential import POTENTIAL_PROPERTIES
from ase_mlelec.calculators.present import PresentStructure
from ase_mlelec.calculators.uncertainty import Uncertainty
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.edges import EdgeCache


class CombinedCalculator(StatesParameters, PresentStructure, Calculator):
    """Calculator with all results and methods of its parts, such as energy and density of states in one step.

        atoms.calc = CombinedCalculator([DeepPotCalculator("energy.safetensors"), DeepDOSCalculator("dos.safetensors")])

    The first part that has a property or a method supplies it. Energy, forces and stress all come from the first part
    that has an energy, so that forces are the gradient of the logged energy. Parts of this package, and their
    potentials, share one neighbor list of the largest cutoff, per device and precision.

    Parameters
    ----------
    parts : sequence of ASE calculators

    Raises
    ------
    CalculatorSetupError
        For an empty list, and for a part that is no calculator.
    """

    def __init__(self, parts: Sequence[BaseCalculator]) -> None:
        super().__init__()
        self.parts: list[Any] = list(parts)
        _check_parts(self.parts)
        _share_neighbor_lists(self, self.parts)
        self._suppliers = _suppliers(self.parts)
        self.implemented_properties = list(self._suppliers)

    @property
    def uncertainty(self) -> Mapping[str, Any]:
        """Standard deviations of the results for the present structure, by name; see MLElecCalculator.

        Each comes from the first part that has it.
        """
        with self._one_call():
            known: dict[str, Any] = {}
            if self._candidates():
                atoms = self._present()
                for part in reversed(self._with_uncertainty()):
                    known |= {} if part.calculation_required(atoms, []) else dict(part.uncertainty)
        return Uncertainty(known, self._find_uncertainty)

    def get_uncertainty(self, name: str, *, atoms: Atoms | None = None) -> Any:
        """Return ``uncertainty[name]`` of a structure, by default of the present one."""
        self._present(atoms)
        return self._find_uncertainty(name)

    def _with_uncertainty(self):
        return [part for part in self.parts if hasattr(type(part), "uncertainty")]

    def _find_uncertainty(self, name):
        with self._one_call():
            atoms, reason = self._live(), KeyError(f"no part has a standard deviation of '{name}'")
            supplier = self._suppliers.get(name)
            for part in self._with_uncertainty():
                if supplier not in (None, part):
                    continue
                try:
                    part._present(atoms)
                    return part.uncertainty[name]
                except (KeyError, CalculatorSetupError) as error:
                    reason = error
            raise reason

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """As in ASE; results that their part no longer has, such as after its own ``set``, are dropped."""
        self.results = {name: value for name, value in self.results.items() if name in self._suppliers[name].results}
        return super().check_state(atoms, tol)

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
        for name in properties:
            self.results[name] = self._suppliers[name].get_property(name, atoms)
        for name, part in self._suppliers.items():  # results that were computed together, such as forces with an energy
            if name in part.results and not part.calculation_required(self.atoms, []):
                self.results.setdefault(name, part.results[name])

    @formerly_positional("properties")
    def each_of(
        self, images: Sequence[Atoms], *, properties: Sequence[str] = tuple(POTENTIAL_PROPERTIES)
    ) -> Iterator[Atoms]:
        """Make each image the present structure in turn, after the parts have evaluated all images together.

        See MLElecCalculator.each_of.
        """
        for image, *_ in zip(
            images, *(part.each_of(images, properties=properties) for part in self.parts if hasattr(part, "each_of"))
        ):
            with self._one_call():
                self.reset()
                self._present(image)
            yield image

    # parameters -------------------------------------------------------------------------------------------------

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Change parameters, such as kpts, of the parts that have them.

        Returns
        -------
        dict
            The parameters that changed.

        Raises
        ------
        CalculatorSetupError
            For names that no part has.
        """
        if not parameters:
            return {}
        with self._one_call():
            users = {name: [part for part in self.parts if name in _settable(part)] for name in parameters}
            foreign = [name for name in parameters if not users[name]]
            if foreign:
                known = dict.fromkeys(name for part in self.parts for name in _settable(part))
                raise CalculatorSetupError(f"got {foreign[0]}; the parts can set {', '.join(known) or 'nothing'}")
            changed = {}
            for name, value in parameters.items():
                for part in users[name]:
                    changed.update(part.set(**{name: value}))
            self.results = {}  # the parts know which of their results still hold
        return changed

    def _stated(self):
        return {"parts": [stated(part) for part in self.parts]}

    def __repr__(self):
        return f"CombinedCalculator([{', '.join(map(repr, self.parts))}])"

    # methods that ASE's calculators all have

    def band_structure(
        self,
        path: str | BandPath | None = None,
        *,
        n_bands: int | None = None,
        window: Sequence[float] | None = None,
        npoints: int = 100,
        atoms: Atoms | None = None,
    ) -> BandStructure:
        """Make the BandStructure of the first part that has bands; see WannierTBCalculator."""
        given = {"path": path, "n_bands": n_bands, "window": window, "atoms": atoms}
        options = {name: value for name, value in given.items() if value is not None}
        return self._with_bands("band_structure")(**options, **({} if npoints == 100 else {"npoints": npoints}))

    def get_spin_polarized(self) -> bool:
        """Tell whether the first part that has bands has them for each spin."""
        return self._with_bands("get_spin_polarized")()

    def _with_bands(self, name):
        """A method of the first part that has bands."""
        for part in self.parts:
            own = getattr(type(part), name, None)
            if own not in (None, getattr(Calculator, name, None)) and not is_refusal(own):
                return self._of_part(part, name)
        raise PropertyNotImplementedError(f"no part has {name}(), because none has bands; add a WannierTBCalculator")

    # methods of the parts ---------------------------------------------------------------------------------------

    def __getattr__(self, name):
        found = [] if name.startswith("_") else [part for part in self.__dict__.get("parts", ()) if hasattr(part, name)]
        if not found:
            raise AttributeError(f"CombinedCalculator and its parts have no '{name}'")
        return self._of_part(next((part for part in found if not is_refusal(getattr(part, name))), found[0]), name)

    def __dir__(self):
        return sorted({*super().__dir__(), *(name for part in self.parts for name in dir(part) if name[0] != "_")})

    def _of_part(self, part, name):
        """Attribute of a part.

        A method with an argument ``atoms`` gets the present structure of this calculator by default, because the part
        may not have seen it yet.
        """
        method = getattr(part, name)
        if not (inspect.ismethod(method) and "atoms" in inspect.signature(method).parameters):
            return method
        place = list(inspect.signature(method).parameters).index("atoms")

        @functools.wraps(method)
        def with_atoms(*arguments, **options):
            with self._one_call():
                if len(arguments) <= place:
                    options["atoms"] = self._live(options.get("atoms"))
                return method(*arguments, **options)

        return with_atoms


def _settable(part):
    """Names that a part's ``set`` acts on."""
    return (
        part.settable
        if hasattr(part, "settable")
        else {*getattr(part, "default_parameters", ()), *(getattr(part, "parameters", None) or ())}
    )


def _check_parts(parts):
    if not parts:
        raise CalculatorSetupError("got an empty list of calculators; give at least one")
    for part in parts:
        if not hasattr(part, "get_property"):
            raise CalculatorSetupError(
                f"got {part!r} of type {type(part).__name__}, needed ASE calculators; make a calculator of it first"
            )


def _suppliers(parts):
    """Part that supplies each ASE property, dict by name; one part supplies energy, forces and stress together."""
    potential = next((part for part in parts if "energy" in part.implemented_properties), None)
    suppliers = {}
    for part in parts:
        for name in part.implemented_properties:
            if part is potential or potential is None or name not in POTENTIAL_PROPERTIES:
                suppliers.setdefault(name, part)
    return suppliers


def _share_neighbor_lists(combined, parts):
    users = [user for part in parts for user in (part, getattr(part, "potential", None)) if hasattr(user, "_cache")]
    caches = {}
    for user in users:
        same = [other._cache for other in users if (other.device, other.dtype) == (user.device, user.dtype)]
        caches.setdefault(
            (user.device, user.dtype), EdgeCache(max(cache.cutoff for cache in same), max(cache.skin for cache in same))
        )
    for user in users:
        user._cache = caches[user.device, user.dtype]
        user._lock = combined._lock  # users of one neighbor list take turns
