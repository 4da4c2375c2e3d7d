"""The configuration of a training in TOML, with strict keys.

[data]
files = ["silicon.h5"]          # relative to the configuration file

[energy]                        # the heads wanted; an empty section takes the defaults below
forces = [100, 10]

[dos]

[output]
model = "si.safetensors"
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from ase_mlelec.io.checks import printable
from ase_mlelec.train.config_reader import build, read_table

Pair = tuple[float, float]


def _given():
    """Field for the names of the keys that a file has: what it asks for itself is not left out in silence."""
    return field(default=(), metadata={"key": False}, compare=False, repr=False)


@dataclass(frozen=True)
class KeysConfig:
    """What labels are called in files that ASE reads, where it is not what ``ase_mlelec.data.images`` looks for, e.g.
    energy = "REF_energy"; group is what tells the groups of frames, e.g. "config_type".
    """

    energy: str = ""
    forces: str = ""
    stress: str = ""
    virial: str = ""
    dipole: str = ""
    polarizability: str = ""
    summed_dipole: str = ""
    atomic_dipole: str = ""
    atomic_polarizability: str = ""
    dos: str = ""
    ados: str = ""
    group: str = ""

    @property
    def given(self):
        """dict, label -> key, of those that are given."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if getattr(self, entry.name)}


@dataclass(frozen=True)
class DataConfig:
    """files : data sets, relative to the configuration file; beside one of Hamiltonians, others serve [energy] alone
    train, validation, test : groups of frames; a frame without group trains, those of other groups are left out
    support : groups of frames that train [energy] as well, such as close pairs and compressed structures: they teach
        repulsion, but are no part of what the model is meant for (see Model.ranges), nor of the scale of its energies
    validation_fraction : share of the training frames that is held out at random where no frame is in ``validation``
    keys : names of labels in files of other programs, [data.keys]
    """

    files: tuple[str, ...]
    train: tuple[str, ...] = ("train",)
    validation: tuple[str, ...] = ("validation",)
    test: tuple[str, ...] = ("test",)
    support: tuple[str, ...] = ()
    validation_fraction: float = 0.1
    keys: KeysConfig = field(default_factory=KeysConfig)

    def __post_init__(self):
        if not self.files:
            raise ValueError("data.files: got an empty list; name at least one data set")
        if not self.train:
            raise ValueError("data.train: got an empty list; name at least one group of frames")
        twice = sorted({*self.support} & {*self.train, *self.validation, *self.test})
        if twice:
            raise ValueError(
                f"data.support: got {twice[0]}, which is in data.train, validation or test too; name it once"
            )
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"data.validation_fraction: got {self.validation_fraction:g}, need 0 <= fraction < 1")


@dataclass(frozen=True)
class DescriptorConfig:
    """Arguments of DeepPotSE; n_basis = 0 stands for embedding nets, no sel for one by the volume of the cutoff."""

    cutoff: float = 6.0
    smooth: float = 1.8
    widths: tuple[int, ...] = (24,)
    n_axis: int = 8
    l_max: int = 3
    n_basis: int = 16
    sel: tuple[int, ...] = ()
    one_side: bool = True
    n_products: int = 0


@dataclass(frozen=True)
class PowerSpectrumConfig:
    """Arguments of PowerSpectrum, for energies that are linear in the features ([energy] widths = []).

    inner : Å; 0: nine tenths of the shortest distance in the training data
    """

    cutoff: float = 6.0
    inner: float = 0.0
    n_pair: int = 12
    n_radial: int = 5
    l_max: int = 8
    near: float = 4.5
    roughest: float = 9.0
    roughest_5: float = 0.0


@dataclass(frozen=True)
class EnergyConfig:
    """widths : of the fitting nets; [] for energies that are linear in the features, on the descriptor as it is drawn:
        in closed form, with the last prefactors and no steps.  For data too few for a net
    ridge : of that closed form (see ase_mlelec.train.linear)
    coarse : data sets of a less converged calculation, relative to the configuration file, for the closed form; one of
        Hamiltonians may be in data.files as well, for these alone.  coarse_ridge : on what their energy differs by
    far : data sets of structures far from those that the model is for, whose errors count ``far_weight``, for the
        closed form
    relevance : rounds in which the closed form finds a ridge for each group of features, for widths = []; with some
        twenty structures errors grew, with 165 they fell by 6 %
    energy, forces, virial : prefactors of the loss at the first and the last step; [0, 0] leaves the label out
        Frames without a label have no part in its term; a term for which no frame has one is left out where the
        prefactors are these defaults, and refused where the file gives them
    strong_force : eV/Å; labels beyond it count less (see EnergyLoss); none by default
    core : whether the model gets a repulsive core below the shortest distances of its data (see ase_mlelec.safety)
    learning_rate : at the first and the last step
    """

    widths: tuple[int, ...] = (64, 64)
    energy: Pair = (0.1, 10.0)
    forces: Pair = (100.0, 10.0)
    virial: Pair = (1.0, 5.0)
    strong_force: float | None = None
    core: bool = True
    ridge: float = 1e-7
    coarse: tuple[str, ...] = ()
    coarse_ridge: float = 1e-4
    far: tuple[str, ...] = ()
    far_weight: float = 0.3
    relevance: int = 0
    steps: int = 4000
    learning_rate: Pair = (5e-3, 5e-6)
    batch_size: int = 4
    given: tuple[str, ...] = _given()

    def __post_init__(self):
        _check_training("energy", self, (*self.energy, *self.forces, *self.virial))
        for name in ("ridge", "coarse_ridge", "far_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"energy.{name}: got {getattr(self, name):g}, need more than 0")
        if self.relevance < 0 or (self.relevance and self.widths):
            raise ValueError(
                f"energy.relevance: got {self.relevance} with widths = {list(self.widths)}; need 0 or "
                "more, and 0 for nets"
            )
        for name in ("coarse", "far"):
            if getattr(self, name) and self.widths:
                raise ValueError(
                    f"energy.{name}: got {', '.join(getattr(self, name))} for nets; it is for widths = [] alone"
                )


@dataclass(frozen=True)
class DOSConfig:
    """widths : of the fitting nets
    atomic, total, cumulative : weights of the loss; atomic = 0 trains on the total DOS alone
    learning_rate : at the first and the last step
    """

    widths: tuple[int, ...] = (128, 128)
    atomic: float = 1.0
    total: float = 0.0
    cumulative: float = 0.0
    steps: int = 2000
    learning_rate: Pair = (2e-3, 2e-6)
    batch_size: int = 8
    given: tuple[str, ...] = _given()

    def __post_init__(self):
        _check_training("dos", self, (self.atomic, self.total, self.cumulative))


@dataclass(frozen=True)
class DipoleConfig:
    """centers : species whose atoms have a vector (or tensor), e.g. ["O"]
    widths : of the fitting nets
    atomic, total : weights of the loss; atomic = 0 trains on the sums over structures alone
    learning_rate : at the first and the last step
    """

    centers: tuple[str, ...]
    widths: tuple[int, ...] = (64, 64)
    atomic: float = 1.0
    total: float = 0.0
    steps: int = 2000
    learning_rate: Pair = (3e-3, 3e-6)
    batch_size: int = 4
    given: tuple[str, ...] = _given()
    section: ClassVar[str] = "dipole"

    def __post_init__(self):
        if not self.centers:
            raise ValueError(f"{self.section}.centers: got an empty list; name the species that have a {self.section}")
        _check_training(self.section, self, (self.atomic, self.total))


@dataclass(frozen=True)
class PolarizabilityConfig(DipoleConfig):
    """As DipoleConfig."""

    section: ClassVar[str] = "polarizability"


@dataclass(frozen=True)
class BispectrumConfig:
    """Arguments of Bispectrum; cutoffs and weights of single species are not in a configuration file."""

    twojmax: int = 10
    cutoff: float = 4.67637
    rmin0: float = 0.0
    n_radial: int = 0


@dataclass(frozen=True)
class LDOSConfig:
    """widths, activation : of the net
    ldos, density, dos, band_energy : weights of the loss (see LDOSLoss)
    scaling : of the LDOS, "maximum" or "spread"; fingerprints : "elements" or "components" (see standardise_ldos)
    dos_weight : of the DOS of a snapshot beside its LDOS when the last layer is refitted
    hold : how strongly the refit is held at the layer that the descent found (see refit_last_layer)
    force_weight, energy_weight : of the forces of the DFT code and of the free energies of its LDOS in a second refit
        (see ase_mlelec.train.ldos.label_refit); 0: without
    batch_size, batch_points : snapshots per step, and points of each of them; 0: all
    learning_rate : at the first epoch, and the one at which training ends
    schedule : "plateau" or "cosine" (see fit_ldos)
    patience : of "plateau", epochs without progress before the learning rate is halved
    """

    widths: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    ldos: float = 1.0
    density: float = 0.0
    dos: float = 0.0
    band_energy: float = 0.0
    scaling: str = "maximum"
    fingerprints: str = "elements"
    dos_weight: float = 100.0
    hold: float = 0.0
    force_weight: float = 0.0
    energy_weight: float = 0.0
    epochs: int = 400
    learning_rate: Pair = (2e-3, 1e-5)
    schedule: str = "plateau"
    patience: int = 10
    batch_size: int = 2
    batch_points: int = 0

    def __post_init__(self):
        _check_counts("ldos", self, ("epochs", "patience"))
        for name, choices in (
            ("scaling", ("maximum", "spread")),
            ("fingerprints", ("elements", "components")),
            ("schedule", ("plateau", "cosine")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"ldos.{name}: got '{getattr(self, name)}', need one of {', '.join(choices)}; correct it"
                )
        for name in ("dos_weight", "hold", "force_weight", "energy_weight", "batch_points"):
            if getattr(self, name) < 0:
                raise ValueError(f"ldos.{name}: got {getattr(self, name):g}, need 0 or more; correct it")
        _check_training("ldos", self, (self.ldos, self.density, self.dos, self.band_energy))


@dataclass(frozen=True)
class HamiltonianConfig:
    """cutoff : Å, of hopping; environment, n_radial : cutoff (Å) and radial functions of LocalFrame
    spectrum : cutoff (Å) of a power spectrum for on-site blocks beside it; 0: without
    third : distance (Å) from both atoms of a pair within which others change its hopping; 0: they do not, as for data of
        a few structures
    widths : of the nets of pairs
    onsite, intra_near, intra_long, inter_near, inter_long : weights of the loss; near is below 6 Å
    levels : weight of the levels within 1 eV of the Fermi level or the gap, nearer ones more, for data with numbers of
        electrons
    learning_rate : at the first and the last step
    """

    cutoff: float = 12.0
    environment: float = 6.0
    n_radial: int = 6
    spectrum: float = 0.0
    third: float = 0.0
    widths: tuple[int, ...] = (48, 32)
    onsite: float = 1.0
    intra_near: float = 1.0
    intra_long: float = 1.0
    inter_near: float = 1.0
    inter_long: float = 1.0
    levels: float = 1.0
    steps: int = 2000
    learning_rate: Pair = (3e-3, 3e-6)
    batch_size: int = 4

    def __post_init__(self):
        if self.third and not 3.5 <= self.third <= self.cutoff:
            raise ValueError(f"hamiltonian.third: got {self.third:g} Å, need 0, or 3.5 to the cutoff, {self.cutoff:g}")
        _check_training("hamiltonian", self, tuple(self.weights.values()))

    @property
    def weights(self):
        """dict of float by category."""
        names = ("onsite", "intra_near", "intra_long", "inter_near", "inter_long", "levels")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class OutputConfig:
    """model : the model file, relative to the configuration file; checkpoints and learning curves go next to it"""

    model: str

    def __post_init__(self):
        if not self.model.endswith(".safetensors"):
            raise ValueError(f"output.model: got '{self.model}', need a name that ends in .safetensors; rename it")


@dataclass(frozen=True)
class Config:
    """A training: data, descriptor, heads that are wanted (at least one), output, and the seed of everything random.

    The first head of energy, dos, dipole and polarizability is trained together with the descriptor, the others then on
    the descriptor as it is.  With ``electronic`` all but the energy have that descriptor instead, which the first of
    them is trained with; it is for data that are too few for the descriptor of the energy.  The LDOS head has data and
    a descriptor (bispectrum) of its own, the Hamiltonian data of its own, on which the energy may be trained as well.

    power_spectrum : in the place of ``descriptor``, for energies and spectra that have no directions

    committee : number of models, alike but for the seed, which is ``seed`` of the first; those of several have -0, -1
        ... at the end of their names
    start : a model file, relative to the configuration file, or the name of a shipped model, from whose parameters and
        normalisation all heads (not the LDOS) start: fine-tuning, with the same settings of descriptors and heads
    """

    data: DataConfig
    output: OutputConfig
    descriptor: DescriptorConfig = field(default_factory=DescriptorConfig)
    power_spectrum: PowerSpectrumConfig | None = None
    electronic: DescriptorConfig | None = None
    energy: EnergyConfig | None = None
    dos: DOSConfig | None = None
    dipole: DipoleConfig | None = None
    polarizability: PolarizabilityConfig | None = None
    bispectrum: BispectrumConfig = field(default_factory=BispectrumConfig)
    ldos: LDOSConfig | None = None
    hamiltonian: HamiltonianConfig | None = None
    seed: int = 0
    committee: int = 1
    start: str = ""
    folder: Path = field(default=Path("."), metadata={"key": False})  # what relative paths start from

    def __post_init__(self):
        if self.committee < 1:
            raise ValueError(f"committee: got {self.committee}, need at least 1")
        others = [name for name in ("energy", "dos", "dipole", "polarizability") if getattr(self, name) is not None]
        if not others and self.ldos is None and self.hamiltonian is None:
            raise ValueError(
                "got none of the sections [energy], [dos], [dipole], [polarizability], [ldos] and "
                "[hamiltonian]; add at least one"
            )
        twice = sorted(set(self.energy.far) & {*self.data.files, *self.energy.coarse}) if self.energy else []
        if twice:
            raise ValueError(
                f"energy.far: got {', '.join(twice)}, which data.files or energy.coarse names too; name it once"
            )
        if self.power_spectrum is not None and self.descriptor != DescriptorConfig():
            raise ValueError("got [power_spectrum] beside [descriptor]; leave one out")
        directed = [name for name in ("dipole", "polarizability") if name in others]
        if self.power_spectrum is not None and directed and self.electronic is None:
            raise ValueError(
                f"got [power_spectrum] for [{directed[0]}], but it has no directions; add [electronic], "
                "the descriptor of that, or leave it out"
            )
        _check_fixed_features(self.power_spectrum or PowerSpectrumConfig(), self.bispectrum)
        for name in ("descriptor", "electronic"):
            _check_descriptor(name, getattr(self, name))
        if self.electronic is not None:
            self._check_electronic(others)
        beside = [name for name in (*others, "ldos") if name != "energy" and getattr(self, name) is not None]
        if self.hamiltonian is not None and beside:
            raise ValueError(f"got [hamiltonian] beside [{beside[0]}]; train them apart, their data differ")
        if self.ldos is not None and self.start:
            raise ValueError(f"start: got '{self.start}' beside [ldos], which is trained from scratch; leave one out")
        if self.ldos is not None and others:
            raise ValueError(f"got [ldos] beside [{others[0]}]; train them apart, their data differ")

    @property
    def cutoff(self):
        """float, Å, of the descriptor"""
        return (self.power_spectrum or self.descriptor).cutoff

    def _check_electronic(self, heads):
        if "energy" not in heads or len(heads) == 1:
            raise ValueError(
                "got [electronic] without [energy] and a head beside it; put the settings into [descriptor]"
            )
        if self.electronic.cutoff != self.cutoff:
            raise ValueError(
                f"electronic.cutoff: got {self.electronic.cutoff:g}, the descriptor has {self.cutoff:g} "
                "Å; give both the same"
            )


def _check_descriptor(section, config):
    """What DeepPotSE asks of numbers that are in range one by one."""
    if config is None:
        return
    if not config.smooth < config.cutoff:
        raise ValueError(f"{section}.smooth: got {config.smooth:g} Å, need less than the cutoff, {config.cutoff:g}")
    last = config.widths[-1] if config.widths else 0
    for name in ("n_axis", "n_products"):
        if getattr(config, name) > last:
            raise ValueError(
                f"{section}.{name}: got {getattr(config, name)}, need at most the last of the widths, {last}"
            )
    if config.n_products and config.l_max < 2:
        raise ValueError(
            f"{section}.n_products: got {config.n_products} with l_max = {config.l_max}, need 0, or l_max of 2 or 3"
        )


def _check_fixed_features(power_spectrum, bispectrum):
    """What PowerSpectrum and Bispectrum ask of numbers that are in range one by one."""
    if power_spectrum.n_radial > power_spectrum.n_pair:
        raise ValueError(
            f"power_spectrum.n_radial: got {power_spectrum.n_radial}, need at most n_pair, {power_spectrum.n_pair}"
        )
    for section, config, name in (("power_spectrum", power_spectrum, "inner"), ("bispectrum", bispectrum, "rmin0")):
        if not getattr(config, name) < config.cutoff:
            raise ValueError(
                f"{section}.{name}: got {getattr(config, name):g} Å, need less than the cutoff, {config.cutoff:g}"
            )


def _check_training(section, config, weights):
    if min(weights) < 0 or not any(weights):
        raise ValueError(
            f"{section}: got the loss weights {', '.join(f'{w:g}' for w in weights)}, need none below 0 "
            "and one above; correct them"
        )
    if min(config.learning_rate) <= 0:
        raise ValueError(f"{section}.learning_rate: got {list(config.learning_rate)}, need two numbers above 0")
    _check_counts(section, config, [name for name in ("steps", "batch_size") if hasattr(config, name)])


def _check_counts(section, config, names):
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{section}.{name}: got {getattr(config, name)}, need at least 1")


def read_config(path):
    """Config of a TOML file.

    Raises ValueError, with the name of the file, for a missing file, a mistake in the TOML, an unknown or missing key,
    a wrong type, or a value out of range (see ase_mlelec.train.config_ranges).
    """
    path = Path(path)
    try:
        return parse_config(read_table(path), path.parent)
    except (OSError, ValueError) as error:  # tomllib's errors are ValueErrors
        raise ValueError(f"{path}: {printable(error, 1000)}") from None


def parse_config(table, folder="."):
    """Config of nested dicts, as tomllib returns them; relative paths start from ``folder``.

    Raises ValueError for an unknown or missing key, a wrong type, or a value out of range.
    """
    return build(Config, table, folder=Path(folder))
