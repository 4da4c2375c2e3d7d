"""Tables of all quantities that can be learned, and of all labels of data sets, one row each.

Readers and writers of data, the normalization of new models, losses, errors, model files, the command line and figures
read these tables. ``add`` adds a quantity of another package, ``added`` does so within a context.

Index letters of shapes: N atoms, S energies of a grid, 3 Cartesian components.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from ase_mlelec import units
from ase_mlelec.measures import Measure, mean_absolute, relative_to_spread


class SampleKind(Enum):
    """Kind of object to which one value belongs."""

    STRUCTURE = "structure"
    ATOM = "atom"
    POINT = "point"  # of a grid in space
    PAIR = "pair"  # of atoms


@dataclass(frozen=True)
class Label:
    """Label that structures of a data set may have.

    Parameters
    ----------
    name : str
    shape : str
        Index letters of the shape; labels by atom begin with N.
    unit : str
    noun : str
        Name with an article, for messages: "an energy".
    keys : tuple of str
        Keys of the label in files of other programs, in the order of precedence, in upper or lower case. Default:
        ``name``.
    parts, words : tuple of str
        Parts of other keys, and whole words in other keys, that may mean the label. Such keys are not read; a warning
        names them.
    ase : str
        Name of the label among the results of an ASE calculator, if any.
    deepmd : tuple of str
        Names of the files of the label in data of deepmd-kit.
    largest : float
        Largest plausible value, in ``unit``; for extensive labels per atom.
    intensive : bool
        Whether a label of a structure is no sum over parts of the structure.
    becomes : str
        Label into which this one is converted when it is read, if any; data sets then hold the converted label.
    """

    name: str
    shape: str
    unit: str
    noun: str
    keys: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    ase: str = ""
    deepmd: tuple[str, ...] = ()
    largest: float = 1e7
    intensive: bool = False
    becomes: str = ""

    def __post_init__(self):
        if not self.keys:
            object.__setattr__(self, "keys", (self.name,))

    @property
    def kind(self) -> SampleKind:
        """Kind of object to which one value belongs."""
        return SampleKind.ATOM if self.shape.startswith("N") else SampleKind.STRUCTURE

    @property
    def of_atoms(self) -> bool:
        """Whether the label has a row for every atom."""
        return self.kind is SampleKind.ATOM

    @property
    def extensive(self) -> bool:
        """Whether the label is additive for structures that are far from each other."""
        return not self.of_atoms and not self.intensive

    @property
    def on_grid(self) -> bool:
        """Whether the label is a spectrum on the energy grid of its data set."""
        return "S" in self.shape


@dataclass(frozen=True)
class Quantity:
    """Quantity that a head predicts.

    Parameters
    ----------
    name : str
        Name of the quantity, of its head in a model, and of its section in a configuration.
    title, unit : str
        Title and unit in tables and at the axes of figures.
    kind : SampleKind
        Kind of object to which one row of the head's values belongs.
    shape : str
        Index letters of one row.
    atomic, total : str
        Label of the rows, and label of their sum over a structure, where the sum has a meaning. Quantities of atoms need
        at least one of the two.
    gradients : tuple of str
        Labels that are derivatives of the quantity.
    slopes : str
        Label of the derivatives of the sum by the positions of the atoms, for sums of vectors.
    ase : str
        Name of the quantity among the results of an ASE calculator, if any.
    symmetric : bool
        Whether the values are symmetric matrices, which are compared with the symmetric part of their labels.
    deepmd : str
        Name of the fitting net of the quantity in models of deepmd-kit.
    measures : tuple of Measure
    note : str
        Convention, such as a sign or a zero of energy.
    """

    name: str
    title: str
    unit: str
    kind: SampleKind = SampleKind.ATOM
    shape: str = ""
    atomic: str = ""
    total: str = ""
    gradients: tuple[str, ...] = ()
    slopes: str = ""
    ase: str = ""
    symmetric: bool = False
    deepmd: str = ""
    measures: tuple[Measure, ...] = ()
    note: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels for training and comparison."""
        return tuple(name for name in (self.atomic, self.total, *self.gradients, self.slopes) if name)

    @property
    def extensive(self) -> bool:
        """Whether the sum over the atoms of a structure has a meaning."""
        return bool(self.total)

    @property
    def axis(self) -> str:
        """Title of the axis of a figure."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


_LABELS = (
    Label(
        "energy",
        "",
        "eV",
        "an energy",
        ("free_energy", "energy"),
        ("energy", "toten"),
        ("e", "etot", "epot", "ekin"),
        "energy",
        ("energy",),
    ),
    Label("forces", "N3", "eV/Å", "forces", ("forces", "force"), ("force",), ("f", "frc"), "forces", ("force",)),
    Label("stress", "33", "eV/Å^3", "a stress", parts=("stress",), ase="stress", intensive=True, becomes="virial"),
    # -dE/d(strain)
    Label("virial", "33", "eV", "a stress", ("virial", "virials"), ("virial",), deepmd=("virial",)),
    Label("ados", "NS", "states/eV", "an ADOS", words=("ados",), deepmd=("atom_dos", "atomic_dos"), largest=1e6),
    Label("dos", "S", "states/eV", "a DOS", words=("dos",), deepmd=("dos",), largest=1e6),
    # of charges; a head learns the displacements of Wannier centroids from their atoms, whose sum is summed_dipole
    Label("dipole", "3", "e Å", "a dipole", parts=("dipole",), words=("mu",), ase="dipole", largest=1e5),
    Label("atomic_dipole", "N3", "Å", "atomic vectors", deepmd=("atomic_dipole", "atom_dipole"), largest=1e5),
    Label("summed_dipole", "3", "Å", "a sum of vectors", deepmd=("dipole",), largest=1e5),
    # Z[i, a, b], derivative of the component a of the dipole by the coordinate b of the atom i
    Label(
        "born_charges",
        "N33",
        "e",
        "Born charges",
        ("born_effective_charges", "born_charges", "bec", "becs"),
        ("born",),
        ("bec", "becs", "zeff"),
        largest=1e4,
    ),
    # the same derivatives of summed_dipole, which follow from Born charges
    Label("summed_dipole_slopes", "N33", "", "derivatives of a sum of vectors", largest=1e4),
    Label(
        "atomic_polarizability",
        "N33",
        "Å^3",
        "atomic polarizabilities",
        deepmd=("atomic_polarizability", "atom_polarizability"),
    ),
    Label(
        "polarizability",
        "33",
        "Å^3",
        "a polarizability",
        ("polarizability", "pol"),
        ("polariz",),
        ("pol", "alpha"),
        deepmd=("polarizability",),
    ),
)
LABELS: dict[str, Label] = {label.name: label for label in _LABELS}


def _charge_of_vectors(metadata):
    """Charge, e, that converts a sum of displacements to a dipole, or None where the metadata have no charges."""
    charges = set((metadata.get("electrons_per_centre") or {}).values())
    return charges.pop() / metadata.get("functions_per_vector", 1) if len(charges) == 1 else None


def _elements(category, title):
    """Measures of the elements of one category of a Hamiltonian."""
    return (
        Measure(f"hamiltonian_{category}_mae_meV", f"{title}, mean absolute", "meV"),
        Measure(f"hamiltonian_{category}_r2", f"{title}, R2", ""),
    )


_ENERGY = (
    Measure("energy_mae_meV_per_atom", "energy, mean absolute", "meV/atom", "energy", mean_absolute, "atom", 1000),
    Measure("energy_rmse_meV_per_atom", "energy, root mean square", "meV/atom", "energy", per="atom", scale=1000),
    Measure("forces_mae_meV_per_A", "force component, mean absolute", "meV/Å", "forces", mean_absolute, scale=1000),
    Measure("forces_rmse_meV_per_A", "force component, root mean square", "meV/Å", "forces", scale=1000),
    Measure(
        "stress_rmse_GPa", "stress component, root mean square", "GPa", "virial", per="volume", scale=1 / units.GPA
    ),
)
_DOS = (
    Measure("ados_rmse_states_per_eV", "ADOS, root mean square", "states/eV", "ados"),
    Measure("ados_rmse_over_std", "ADOS, relative to its spread over the atoms", "", "ados", relative_to_spread),
    Measure(
        "dos_rmse_states_per_eV_per_atom", "total DOS per atom, root mean square", "states/eV/atom", "dos", per="atom"
    ),
)
_VECTORS = (
    Measure("atomic_dipole_rmse_A", "atomic vector component, root mean square", "Å", "atomic_dipole"),
    Measure("summed_dipole_rmse_A", "sum of the vectors, component, root mean square", "Å", "summed_dipole"),
    Measure("dipole_rmse_e_A", "dipole component, root mean square", "e Å", "summed_dipole", scale=_charge_of_vectors),
    Measure(
        "born_charges_rmse_e",
        "Born charge component, root mean square",
        "e",
        "summed_dipole_slopes",
        scale=_charge_of_vectors,
    ),
)
_TENSORS = (
    Measure(
        "atomic_polarizability_rmse_A3",
        "atomic polarizability component, root mean square",
        "Å^3",
        "atomic_polarizability",
    ),
    Measure("polarizability_rmse_A3", "polarizability component, root mean square", "Å^3", "polarizability"),
)
_LDOS = (
    Measure("ldos_rmse", "LDOS, root mean square", "1/(eV Å^3)"),
    Measure("density_mape_percent", "density, mean absolute percentage", "%"),
    Measure("band_energy_mae_meV_per_atom", "band energy, mean absolute", "meV/atom"),
    Measure("free_energy_mae_meV_per_atom", "total free energy, mean absolute", "meV/atom"),
)
_HAMILTONIAN = (
    *_elements("all", "Hamiltonian elements"),
    Measure("hamiltonian_all_large_mae_meV", "elements above 1 meV, mean absolute", "meV"),
    *_elements("onsite", "on-site elements"),
    *_elements("intra_near", "within layers below 6 Å"),
    *_elements("intra_long", "within layers beyond 6 Å"),
    *_elements("inter", "between layers"),
    Measure("hamiltonian_inter_large_mae_meV", "between layers, elements above 1 meV", "meV"),
    *_elements("inter_near", "between layers below 6 Å"),
    *_elements("inter_long", "between layers beyond 6 Å"),
    Measure("bands_mae_meV", "all bands on a mesh, mean absolute", "meV"),
)
_SPIN = "including spin degeneracy"
_QUANTITIES = (
    Quantity(
        "energy",
        "energy",
        "eV",
        total="energy",
        gradients=("forces", "virial"),
        ase="energy",
        deepmd="ener",
        measures=_ENERGY,
    ),
    Quantity("dos", "DOS", "states/eV", SampleKind.ATOM, "S", "ados", "dos", deepmd="dos", measures=_DOS, note=_SPIN),
    Quantity(
        "dipole",
        "displacement of Wannier centroids",
        "Å",
        SampleKind.ATOM,
        "3",
        "atomic_dipole",
        "summed_dipole",
        slopes="summed_dipole_slopes",
        ase="dipole",
        deepmd="dipole",
        measures=_VECTORS,
    ),
    Quantity(
        "polarizability",
        "polarizability",
        "Å^3",
        SampleKind.ATOM,
        "33",
        "atomic_polarizability",
        "polarizability",
        symmetric=True,
        deepmd="polar",
        measures=_TENSORS,
    ),
    Quantity("ldos", "LDOS", "1/(eV Å^3)", SampleKind.POINT, "S", measures=_LDOS),
    Quantity("hamiltonian", "Hamiltonian", "eV", SampleKind.PAIR, measures=_HAMILTONIAN),
)
QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _QUANTITIES}
DIPOLE = QUANTITIES["dipole"].ase  # of charges and displacements together: result of a calculator, column of a run
# Name of a quantity -> class of its head, of its loss: filled in by the modules that define these.
HEADS: dict[str, type] = {}
LOSSES: dict[str, type] = {}


def data_labels() -> dict[str, Label]:
    """The labels that data sets hold, by name."""
    return {name: label for name, label in LABELS.items() if not label.becomes}


def unit_of(name: str) -> str:
    """Unit of a label or of a result of a calculator; "" where the table has no such name."""
    rows = (row for row in LABELS.values() if name in (row.name, row.ase, *row.keys))
    return next((row.unit for row in rows), "")


def add(quantity: Quantity, *, labels: tuple[Label, ...] = (), head: type, loss: type) -> None:
    """Add a quantity, until the end of the program.

    Parameters
    ----------
    quantity : Quantity
    labels : tuple of Label
        Labels of the quantity that are not in the table.
    head : subclass of ase_mlelec.heads.base.Head
    loss : class of losses, see ase_mlelec.train.losses

    Raises
    ------
    ValueError
        For names that are taken, labels that do not exist, and a head of another quantity.
    """
    mine = {label.name: label for label in labels}
    taken = sorted(({quantity.name} & QUANTITIES.keys()) | (mine.keys() & LABELS.keys()))
    if taken:
        raise ValueError(f"quantity '{quantity.name}': there is a '{taken[0]}' already; choose another name")
    wanted = {*quantity.labels, *(measure.label for measure in quantity.measures if measure.label)}
    unknown = sorted(wanted - mine.keys() - LABELS.keys())
    if unknown or not quantity.labels:
        raise ValueError(
            f"quantity '{quantity.name}': got {f'the label {unknown[0]!r}' if unknown else 'no label'}, need one of "
            f"{', '.join([*mine, *LABELS])}; give a Label of it in labels"
        )
    if getattr(head, "quantity", None) != quantity.name:
        raise ValueError(f"quantity '{quantity.name}': got a head of another; set quantity in its class")
    LABELS.update(mine)
    QUANTITIES[quantity.name], HEADS[quantity.name], LOSSES[quantity.name] = quantity, head, loss


@contextmanager
def added(quantity: Quantity, *, labels: tuple[Label, ...] = (), head: type, loss: type) -> Iterator[Quantity]:
    """Context manager that adds a quantity; parameters and errors are as in ``add``."""
    add(quantity, labels=labels, head=head, loss=loss)
    try:
        yield quantity
    finally:
        for table in QUANTITIES, HEADS, LOSSES:
            del table[quantity.name]
        for label in labels:
            del LABELS[label.name]
