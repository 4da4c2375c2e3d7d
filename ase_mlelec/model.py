"""Model: a descriptor and named heads, which are saved, loaded and evaluated together."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

import torch
from ase.calculators.calculator import InputError
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from ase_mlelec.descriptors.base import Descriptor, Environment, species_table
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import Blocks, FittingNets, Head, HeadOfPairs
from ase_mlelec.heads.scalar import ScalarHead
from ase_mlelec.heads.spectrum import SpectrumHead
from ase_mlelec.hot_energies import HotEnergies, check_hot
from ase_mlelec.linear_energy import HasLinearEnergy
from ase_mlelec.long_range import LongRange
from ase_mlelec.model_file.write import save_model
from ase_mlelec.nets import precision_of
from ase_mlelec.safety import RepulsiveCore, TrainingRange
from ase_mlelec.system import System
from ase_mlelec.uncertainty import Posterior, seed_of


class Model(HasLinearEnergy, torch.nn.Module):
    """A descriptor and heads that share it; some heads may have a second descriptor.

    Parameters
    ----------
    descriptor : Descriptor
    heads : dict of Head
        Heads by the name of their quantity.
    metadata : dict, optional
        JSON types: conventions and provenance of the numbers.
    electronic : Descriptor, optional
        Descriptor of all heads except the energy; default ``descriptor``. A smaller one suits electronic quantities with
        few data.
    pairs : Descriptor, optional
        Descriptor, with a longer cutoff, of heads whose quantity belongs to pairs of atoms; default ``descriptor``.
    core : RepulsiveCore, optional
        Repulsive core of the energy; default none.
    ranges : dict of TrainingRange, optional
        Ranges of the training data for "descriptor", "electronic" and "hamiltonian"; without a range there are no
        warnings.
    posteriors : dict of Posterior, optional
        Posteriors of the last layers of heads, by the name of the head; without one there are no error bars.
    long_range : LongRange, optional
        Long range of the energy, which is added to the sum of the energy head; default none.
    hot : HotEnergies, optional
        Energies at other temperatures of the electrons; default none.

    Raises
    ------
    ValueError
        Where descriptors differ in species, for a long range of other species, and hot energies of another size.
    """

    heads: Any  # ModuleDict of Head
    ranges: Any  # ModuleDict of TrainingRange
    hot: Any  # HotEnergies or None
    posteriors: Any  # ModuleDict of Posterior
    _species_of_number: Tensor

    def __init__(
        self,
        descriptor: Descriptor,
        heads: Mapping[str, Head],
        metadata: Mapping[str, Any] | None = None,
        electronic: Descriptor | None = None,
        core: RepulsiveCore | None = None,
        ranges: Mapping[str, TrainingRange] | None = None,
        pairs: Descriptor | None = None,
        posteriors: Mapping[str, Posterior] | None = None,
        long_range: LongRange | None = None,
        hot: HotEnergies | None = None,
    ):
        super().__init__()
        if any(other is not None and other.species != descriptor.species for other in (electronic, pairs)):
            raise ValueError("got descriptors of different species; give all the same")
        self.descriptor, self.electronic, self.pairs = descriptor, electronic, pairs
        self.heads = torch.nn.ModuleDict(heads)
        self.register_buffer("_species_of_number", species_table(descriptor.species), persistent=False)
        self.core, self.ranges = core, torch.nn.ModuleDict(ranges or {})
        self.posteriors = torch.nn.ModuleDict(posteriors or {})
        if long_range is not None:
            long_range.check(descriptor.species, self.heads)
        if hot is not None:
            check_hot(hot, self.heads)
        self.long_range, self.hot = long_range, hot
        self.metadata = dict(metadata or {})
        self._linear = self._linear_bars = None
        self.evaluation_only = False  # a copy with rearranged arrays, which a file does not describe

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that the model knows, tuple of str."""
        return self.descriptor.species

    @property
    def reach(self) -> float:
        """Cutoff of the edges for quantities of atoms, Å; descriptors with a shorter one leave out the others."""
        return max(self.descriptor.cutoff, self.electronic.cutoff if self.electronic else 0.0)

    @property
    def cutoff(self) -> float:
        """Cutoff of the edges for all heads, Å; quantities of atoms need only edges within ``reach``."""
        return max(self.reach, self.pairs.cutoff if self.pairs else 0.0)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def __repr__(self) -> str:
        name = self.metadata.get("name")
        size = sum(parameter.numel() for parameter in self.parameters())
        return (
            f"Model({f'{name}: ' if name else ''}{', '.join(self.heads)} of {', '.join(self.species)}, "
            f"{self.cutoff:g} Å, {size} parameters)"
        )

    def descriptor_of(self, quantity: str) -> Descriptor:
        """Descriptor of the head of a quantity."""
        if self.pairs is not None and quantity in self.heads and self.is_of_pairs(quantity):
            return self.pairs
        return self.descriptor if quantity == "energy" or self.electronic is None else self.electronic

    def check_species(self, numbers: Tensor) -> None:
        """Raise InputError for atomic numbers that the model does not know."""
        known = {atomic_numbers[symbol] for symbol in self.species}
        foreign = sorted(set(numbers.tolist()) - known)
        if foreign:
            names = (chemical_symbols[z] if 0 <= z < len(chemical_symbols) else f"number {z}" for z in foreign)
            raise InputError(
                f"got species {', '.join(names)}; the model knows "
                f"{', '.join(self.species)}; use or train a model with all species of the structure"
            )

    def is_center(self, numbers: Tensor, *quantities: str) -> Tensor:
        """Mask [N] of the atoms (atomic numbers [N]) that have one of the quantities.

        All atoms have it unless its head restricts the species.
        """
        chosen = set()
        for head in (self.heads[name] for name in quantities):
            chosen |= set(getattr(head, "centers", range(len(self.species))))
        wanted = torch.tensor([atomic_numbers[self.species[k]] for k in sorted(chosen)], device=numbers.device)
        return torch.isin(numbers, wanted)

    def forward(self, system: System, edges: Edges, quantities: Iterable[str] | None = None) -> dict:
        """Evaluate quantities (default: all), dict of Tensor [C, ...] by name; quantities of pairs of atoms as Blocks.

        Parameters
        ----------
        edges
            All pairs within the cutoffs of the descriptors of these quantities, at most ``cutoff``.

        Raises
        ------
        InputError
            For models in half precision and for edges with a shorter cutoff.

        Notes
        -----
        The result has the precision of the model. Energies are those of the energy head, with the core and without
        ``long_range``.
        """
        names = list(self.heads.keys() if quantities is None else quantities)
        system, edges = self._in_own_precision(system, edges)
        seen, found = {}, {}
        for name in names:
            source = self.descriptor_of(name)
            if source not in seen:
                seen[source] = source(system, edges.up_to(source.cutoff).to(precision_of(source)))
            found[name] = self.evaluate_head(name, self._for_head(name, seen[source]), system, edges)
        return found

    def environment(self, quantity: str, system: System, edges: Edges) -> Environment:
        """Environment of the centers of ``edges`` for a head, by its descriptor; each of both has its own precision."""
        descriptor = self.descriptor_of(quantity)
        return self._for_head(quantity, descriptor(system, edges.to(precision_of(descriptor))))

    def _for_head(self, quantity, environment):
        return environment if self.is_of_pairs(quantity) else environment.to(precision_of(self.heads[quantity]))

    def is_of_pairs(self, name: str) -> bool:
        """Whether a quantity belongs to pairs of atoms."""
        return isinstance(self.heads[name], HeadOfPairs)

    def _in_own_precision(self, system, edges):
        dtype = self.dtype
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"got a model of {dtype}, need float32 or float64; use model.to(torch.float32)")
        if system.positions.dtype == edges.vec.dtype == dtype:
            return system, edges
        return system.to(dtype), edges.with_vec(edges.vec.to(dtype))

    def evaluate_head(self, name: str, environment: Environment, system: System, edges: Edges) -> Tensor | Blocks:
        """Evaluate one quantity from the environment of its descriptor.

        Returns Tensor [C, ...] for the centers of ``edges``, or Blocks of pairs of atoms; energies include the core.
        """
        values = self.heads[name](environment, edges)
        return self._with_core(values, system, edges) if name == "energy" else values

    def energy_by_features(self, environment: Environment, edges: Edges) -> tuple[Tensor, Tensor] | None:
        """Atomic energies [C], and derivatives of their sum by the features [C, F], without a graph.

        None where the head has no such way, and where the core may act.
        """
        head = self.heads["energy"]
        if not hasattr(head, "with_slopes") or not (self.core is None or self.core.is_idle(edges)):
            return None
        return head.with_slopes(environment)

    def _with_core(self, energies, system, edges):
        if self.core is None:
            return energies
        reference = getattr(self.heads["energy"], "reference", energies.new_zeros(len(self.species)))
        return self.core(energies, reference, system, edges.to(energies.dtype))

    def species_index(self, numbers: Tensor) -> Tensor:
        """Indices [N] in ``species`` of atomic numbers [N]."""
        return self._species_of_number.index_select(0, numbers)

    def range_of(self, quantity: str) -> TrainingRange | None:
        """TrainingRange of the descriptor of a quantity, or None where the model has none."""
        name = (
            quantity
            if quantity == "hamiltonian"
            else "electronic"
            if self.descriptor_of(quantity) is self.electronic
            else "descriptor"
        )
        return self.ranges[name] if name in self.ranges else None

    def save(self, path: str | PathLike) -> None:
        """Write the one-file model (see ase_mlelec.model_file)."""
        save_model(self, path)

    def members(self, n: int) -> Iterator["Model"]:
        """Iterate over n models whose heads are drawn from the posteriors, with the calibrated scale of their sums.

        They share all parts but the heads with this model, and the mean of their last layers is that of this model.
        """
        changes = {
            name: posterior.changes(n, scale=posterior.scale("members"), seed=seed_of(name))
            for name, posterior in self.posteriors.items()
        }
        of_energy = self.posteriors["energy"] if self.hot is not None and "energy" in self.posteriors else None
        hot = [self.hot] * n if of_energy is None else self.hot.members(of_energy, n, seed=seed_of("energy"))
        for k in range(n):
            drawn = {name.partition("/")[0] for name in changes}
            heads = {name: _with_own_last(head) if name in drawn else head for name, head in self.heads.items()}
            for name, each in changes.items():  # a Hamiltonian has several last layers: "hamiltonian/onsite_C"
                head, _, layer = name.partition("/")
                heads[head].change_last(each[k], *([layer] if layer else []))
            new = self.with_heads(heads)
            new.hot = hot[k]
            yield new

    def with_heads(self, heads: Mapping[str, Head]) -> "Model":
        """Model with other heads and no posteriors, which shares all other parts with this one."""
        new = Model(self.descriptor, heads, self.metadata, self.electronic, self.core, dict(self.ranges), self.pairs)
        new.long_range, new.hot = self.long_range, self.hot
        new.evaluation_only = self.evaluation_only
        return new

    def at_temperature(self, temperature: float) -> "Model":
        """Model with the energies at another temperature of the electrons, K, which shares all other parts with this one.

        Where nothing is known of other temperatures it is this model.
        """
        if self.hot is None:
            return self
        head = _with_own_last(self.heads["energy"])
        head.change_last(self.hot.change(temperature)[:, :, None])
        new = copy.copy(self)
        new._modules = {**self._modules, "heads": torch.nn.ModuleDict({**self.heads, "energy": head})}
        return new

    def for_evaluation(self, dtype: torch.dtype | None = None) -> "Model":
        """Frozen copy that is faster to evaluate; embedding nets become Chebyshev series where the descriptor can.

        Parameters
        ----------
        dtype : torch dtype, optional
            Precision of descriptors and nets; default: as they are. The last layer of the energy is in float64 beside it,
            because it adds a small number to the large energy of an atom. So are an energy that is linear in the features
            and its descriptor: small energies are differences of large terms there, and there is no net.
        """
        heads, core, ranges, posteriors = (
            copy.deepcopy(part) for part in (dict(self.heads), self.core, dict(self.ranges), dict(self.posteriors))
        )
        descriptor, electronic, pairs = map(_compressed, (self.descriptor, self.electronic, self.pairs))
        model = Model(descriptor, heads, self.metadata, electronic, core, ranges, pairs, posteriors)  # type: ignore[arg-type]
        model.hot = copy.deepcopy(self.hot)
        model.long_range = self.long_range
        model.eval().requires_grad_(False)
        for module in model.heads.modules():
            if isinstance(module, FittingNets):
                module.fold()
        model._condense()
        model.evaluation_only = True
        if dtype is not None:
            model._change_precision(dtype)
        return model

    def _condense(self):
        """Give descriptors fewer features that say the same, where all that reads them is linear in them first."""
        for place in ("descriptor", "electronic"):
            descriptor = getattr(self, place)
            heads = [head for name, head in self.heads.items() if self.descriptor_of(name) is descriptor]
            plain = all(type(head) in (ScalarHead, SpectrumHead) and head.nets.can_condense() for head in heads)
            fast = descriptor.condensed() if heads and plain and hasattr(descriptor, "condensed") else None
            if fast is not None:
                readers = [head.nets for head in heads] + ([self.ranges[place]] if place in self.ranges else [])
                for reader in readers:
                    reader.condense(fast.shortened)
                setattr(self, place, fast)

    def _change_precision(self, dtype):
        """Move all to ``dtype``, but what the energy needs in float64 to that."""
        aside = [
            (holder, name, holder[name]) for holder, name in self._parts_in_double() if holder.get(name) is not None
        ]
        for holder, name, _ in aside:
            holder[name] = None  # keeps its place
        self.to(dtype)
        for holder, name, part in aside:
            holder[name] = part.double()

    def _parts_in_double(self):
        """Parts that the energy needs in float64: (dict of parts, name) of each."""
        head = self.heads["energy"] if "energy" in self.heads else None
        nets = getattr(head, "nets", None)
        if not isinstance(nets, FittingNets):
            return []
        parts: list[tuple[dict, str]] = [(self._modules, "core"), (self._modules, "hot")]
        if len(nets.hidden[0]):
            parts += [(nets._modules, "last"), (nets._buffers, "bias"), (nets._buffers, "scale")]
            return parts + [(head._buffers, "corrections"), (head._buffers, "lengths")]
        of_pairs = (name for name in self.heads if self.is_of_pairs(name))
        if not any(self.descriptor_of(name) is self.descriptor for name in of_pairs):
            parts += [
                (self.heads._modules, "energy"),
                (self.posteriors._modules, "energy"),
                (self._modules, "descriptor"),
            ]
        return parts


def _with_own_last(head):
    """Copy of a head that shares everything but its last layer; of heads of pairs of atoms a whole copy."""
    if isinstance(head, HeadOfPairs):
        return copy.deepcopy(head)
    new = owner = copy.copy(head)
    new._modules = dict(head._modules)
    if "nets" in new._modules:
        new._modules["nets"] = owner = copy.copy(head.nets)
        owner._modules = dict(head.nets._modules)
    owner._modules["last"] = copy.deepcopy(owner._modules["last"])
    return new


def _compressed(descriptor):
    """Copy that is faster to evaluate, where the descriptor offers one."""
    fast = descriptor.compressed() if hasattr(descriptor, "compressed") else descriptor
    fast = copy.deepcopy(descriptor) if fast is descriptor else fast
    if hasattr(fast, "settle"):
        fast.settle()
    return fast
