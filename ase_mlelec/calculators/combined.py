"""CombinedCalculator: several calculators as one, with one neighbour list."""
import functools
import inspect

from ase.calculators.calculator import Calculator, CalculatorSetupError, PropertyNotImplementedError, all_changes

from ase_mlelec.calculators.base import POTENTIAL_PROPERTIES
from ase_mlelec.edges import EdgeCache


class CombinedCalculator(Calculator):
    """One calculator with all results and methods of its parts: energy, density of states and more in the same step.

        atoms.calc = CombinedCalculator([DeepPotCalculator("energy.safetensors"), DeepDOSCalculator("dos.safetensors")])

    The first part that has a property or a method supplies it.  Energy, forces and stress come from one and the same
    part, the first that has an energy, so that forces are the gradient of what is logged.  Parts of this package, and
    their potentials, share one neighbour list of the largest cutoff, per device and precision.

    parts : list of ASE calculators

    Raises CalculatorSetupError for an empty list and for what is no calculator.
    """

    def __init__(self, parts):
        super().__init__()
        self.parts = list(parts)
        _check_parts(self.parts)
        _share_neighbour_lists(self.parts)
        self._suppliers = _suppliers(self.parts)
        self.implemented_properties = list(self._suppliers)

    @property
    def uncertainty(self):
        """dict, the spread over committees of everything that was evaluated, by the first part that has it."""
        spreads = [getattr(part, "uncertainty", {}) for part in reversed(self.parts)]
        return {name: value for spread in spreads for name, value in spread.items()}

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if system_changes:
            self.reset()
        super().calculate(atoms, properties, system_changes)
        for name in properties:
            self.results[name] = self._suppliers[name].get_property(name, self.atoms)
        for name, part in self._suppliers.items():      # what came along, such as forces with an energy
            if name in part.results and not part.calculation_required(self.atoms, []):
                self.results.setdefault(name, part.results[name])

    def each_of(self, images, properties=POTENTIAL_PROPERTIES):
        """Make each image the present one in turn, after its parts evaluated all together; see MLElecCalculator."""
        for image, *_ in zip(images, *(part.each_of(images, properties) for part in self.parts
                                       if hasattr(part, "each_of"))):
            self.reset()
            self.atoms = image.copy()
            yield image

    def set(self, **parameters):
        """Change parameters, such as kpts, of the parts that have bands."""
        changed = super().set(**parameters)
        for part in self.__dict__.get("parts", ()) if parameters else ():
            if hasattr(part, "get_hamiltonian"):
                part.set(**parameters)
        return changed

    def band_structure(self, *arguments, **options):
        """ase BandStructure of the first part that has one of its own; ASE's calculators all have the method.

        Raises PropertyNotImplementedError where no part has.
        """
        for part in self.parts:
            if getattr(type(part), "band_structure", Calculator.band_structure) is not Calculator.band_structure:
                return self._at_present_atoms(part.band_structure)(*arguments, **options)
        raise PropertyNotImplementedError("no part has a band structure; add a WannierTBCalculator")

    def __getattr__(self, name):
        if not name.startswith("_"):
            for part in self.__dict__.get("parts", ()):
                if hasattr(part, name):
                    return self._at_present_atoms(getattr(part, name))
        raise AttributeError(f"CombinedCalculator and its parts have no '{name}'")

    def __dir__(self):
        return sorted({*super().__dir__(), *(name for part in self.parts for name in dir(part) if name[0] != "_")})

    def _at_present_atoms(self, method):
        """A part's method with ``atoms`` defaulting to ours: the part itself may not have seen them yet."""
        if not (inspect.ismethod(method) and "atoms" in inspect.signature(method).parameters):
            return method

        @functools.wraps(method)
        def with_atoms(*args, **kwargs):
            given = inspect.signature(method).bind_partial(*args, **kwargs)
            if given.arguments.get("atoms") is None:
                given.arguments["atoms"] = self.atoms
            return method(*given.args, **given.kwargs)
        return with_atoms


def _check_parts(parts):
    if not parts:
        raise CalculatorSetupError("got an empty list of calculators; give at least one")
    for part in parts:
        if not hasattr(part, "get_property"):
            raise CalculatorSetupError(f"got {part!r} of type {type(part).__name__}, needed ASE calculators; "
                                       "make a calculator of it first")


def _suppliers(parts):
    """dict: name of an ASE property -> the part that supplies it; the potential's names stay together."""
    potential = next((part for part in parts if "energy" in part.implemented_properties), None)
    suppliers = {}
    for part in parts:
        for name in part.implemented_properties:
            if part is potential or potential is None or name not in POTENTIAL_PROPERTIES:
                suppliers.setdefault(name, part)
    return suppliers


def _share_neighbour_lists(parts):
    users = [user for part in parts for user in (part, getattr(part, "potential", None)) if hasattr(user, "_cache")]
    caches = {}
    for user in users:
        same = [other._cache for other in users if (other.device, other.dtype) == (user.device, user.dtype)]
        caches.setdefault((user.device, user.dtype), EdgeCache(max(cache.cutoff for cache in same),
                                                               max(cache.skin for cache in same)))
    for user in users:
        user._cache = caches[user.device, user.dtype]
