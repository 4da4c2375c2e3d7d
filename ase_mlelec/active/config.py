"""The configuration of active learning in TOML, with strict keys as that of a training."""

from collections.abc import Mapping
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from ase_mlelec.quantities import DIPOLE
from ase_mlelec.train.config import Config, read_config
from ase_mlelec.train.config.base import Name, Names, Section, SettingError, Text
from ase_mlelec.train.config.files import parsed
from ase_mlelec.train.config.mistakes import one_line

Kelvin = Annotated[float, Field(gt=0, le=1e5)]
Pressure = Annotated[float, Field(ge=-1000, le=1e5)]
Strain = Annotated[float, Field(gt=-0.5, le=1)]
Minutes = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

WAYS = ("pool", "calculator", "function", "command", "manual")
HEADS = {  # of a quantity of [select]
    "forces": "energy",
    "energy": "energy",
    "ados": "dos",
    "dos": "dos",
    "fermi_level": "dos",
    "gap": "dos",
    DIPOLE: DIPOLE,
}
if TYPE_CHECKING:
    Quantity = str
else:
    Quantity = Literal[tuple(HEADS)]


class ExploreConfig(Section):
    """Exploration: molecular dynamics with the model of the round, and structures that are taken as they are.

    It is not used with a pool, whose structures are explored instead. Every run has one temperature and one pressure or
    strain; all their combinations are used in turn.
    """

    start: Names = ()
    """Files with structures in which molecular dynamics starts, relative to this file; default: the structures that the
    training has at the beginning. Take cells that one label can afford."""
    structures: Names = ()
    """Files with structures that are candidates as they are, such as surfaces, defects or compressed cells."""
    temperatures: Annotated[tuple[Kelvin, ...], Field(min_length=1, max_length=1000, strict=False)] = (300.0,)
    """Temperatures, K. Go somewhat beyond those at which the model will be used."""
    pressures: Annotated[tuple[Pressure, ...], Field(max_length=1000, strict=False)] = ()
    """Pressures, GPa, at which the volume follows; []: at constant volume."""
    strains: Annotated[tuple[Strain, ...], Field(min_length=1, max_length=1000, strict=False)] = (0.0,)
    """Linear strains of the cells at the start of runs, such as [-0.03, 0, 0.03]."""
    runs: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Runs in a round; 0: none; default: one for each combination of temperature, pressure and strain."""
    steps: Count = 1000
    """Steps of a run. Later runs of a model that holds are the longest that are worth their time: some ps."""
    timestep: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Time step, fs: 1 to 2 for most solids, 0.5 with hydrogen."""
    every: Count = 20
    """Steps between two frames whose error bars are looked at; frames of less than some 20 fs are alike."""
    potential: Text = ""
    """Model, by its name or file, that moves the atoms where the learned model has no energy."""


class SelectConfig(Section):
    """Selection of structures for labels, by the standard deviations of one quantity."""

    quantity: Quantity = "forces"
    """Quantity whose error bar decides: "forces", largest of all atoms, eV/Å; "energy", eV/atom; "ados", root mean square
    over the energies, largest of all atoms, states/eV; "dos", the same of the whole per atom; "fermi_level" and "gap", eV;
    and the dipole, e Å."""
    low: Annotated[float, Field(ge=0, le=1e6)]
    """Lower trust level, in the unit of ``quantity``: below it the model is trusted. Take the error that is acceptable; the
    report shows the scores of all frames."""
    high: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Upper trust level: a run of molecular dynamics ends at the first frame above it, which is not labeled; default: ten
    times ``low``."""
    number: Count = 10
    """Labels in a round. Few are more efficient in labels, many in trainings; a tenth of the present data is a good
    choice."""
    by: Literal["bars", "random"] = "bars"
    """"bars": those of the candidates whose labels lower the error bars of all explored structures most; "random": any of
    the explored ones, for comparison."""
    closest: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Frames with atoms closer than this share of the shortest distance of their species in the training data are
    unphysical, and end a run."""
    extrapolation: Annotated[float, Field(gt=1, le=1e6)] | None = None
    """Frames with an atom beyond this ``get_extrapolation()`` are unphysical, and end a run; default: no limit."""

    @property
    def highest(self) -> float:
        """The upper trust level."""
        return 10 * self.low if self.high is None else self.high

    @model_validator(mode="after")
    def _check_levels(self):
        if self.low >= self.highest and not (self.low == 0 and self.high is None):
            raise SettingError("high", f"got {self.highest:g}, need more than low, {self.low:g}")
        return self


class LabelConfig(Section):
    """Labels: exactly one of ``pool``, ``calculator``, ``function``, ``command`` and ``manual``.

    Every structure has a folder of its own. A label that fails is noted there in ``failed.txt`` and skipped; without this
    file it is tried again.
    """

    pool: Names = ()
    """Data sets in which the labels are looked up. Structures of their test and validation groups are left out."""
    calculator: Text = ""
    """ASE calculator, such as "ase.calculators.espresso:Espresso"."""
    options: dict[str, Any] = Field(default={})
    """Arguments of the calculator."""
    profile: dict[str, Any] = Field(default={})
    """Arguments of its profile, such as command = "pw.x" and pseudo_dir = "...", where the calculator has one."""
    function: Text = ""
    """Python function "module:name"; it gets ase.Atoms and a folder (pathlib.Path), and returns Atoms with labels, as a
    calculator or as ``info`` and ``arrays``. Modules next to this file are found."""
    command: Text = ""
    """Shell command that runs in the folder of a structure, and leaves ``result`` there. "sbatch --wait job.sh" waits for a
    queue."""
    manual: bool = False
    """Whether the folders are only written: label them, and start the same command again, which takes the results."""
    structure: Name = "structure.extxyz"
    """Name of the file of the structure in the folder, from which ASE tells the format, such as "POSCAR"."""
    result: Text = ""
    """File in the folder with the labels, such as "OUTCAR" or "pw.out"; default: the folder as a whole, which reads runs of
    pw.x and projwfc.x, or "result.extxyz" in it."""
    files: Names = ()
    """Files that are copied to each folder, relative to this file."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Labels at the same time."""
    longest: Minutes | None = None
    """Time after which a label is given up, minutes; default: none."""
    minutes: Minutes | None = None
    """Time that one label takes, minutes, for the estimate of ``--dry-run`` before there are any."""

    @property
    def way(self) -> str:
        """Which of WAYS is used."""
        return next(name for name in WAYS if getattr(self, name))

    @model_validator(mode="after")
    def _check_way(self):
        given = [name for name in WAYS if getattr(self, name)]
        if len(given) != 1:
            shown = " and ".join(given) or "none of them"
            raise SettingError("", f"got {shown}, need exactly one of {', '.join(WAYS)}")
        for name in ("options", "profile"):
            if getattr(self, name) and self.way != "calculator":
                raise SettingError(name, f"got one beside {self.way}; it is for 'calculator', leave it out")
        for name in ("calculator", "function"):
            value = getattr(self, name)
            if value and (value.count(":") != 1 or not all(part.strip() for part in value.split(":"))):
                example = "ase.calculators.emt:EMT" if name == "calculator" else "my_labels:label"
                raise SettingError(name, f"got '{value}', need module:name, such as {example}")
        return self


class TrainConfig(Section):
    """How the model is trained again."""

    warm: bool | None = None
    """Whether gradient descent starts from the model of the round before; default: where all heads are trained by gradient
    descent. Heads in closed form are always solved anew, which is exact."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the steps, or of ``minutes``, of a training that starts from the model before."""


class StopConfig(Section):
    """When active learning ends: at the first of these."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of the explored frames above the lower trust level, at or below which the model has learned enough. Frames that
    runs did not reach because they ended early count as above."""
    rounds: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Rounds of labels."""
    labels: Count | None = None
    """Labels in all rounds together; default: no limit."""


class ActiveConfig(Section):
    """Active learning: a training, exploration, selection, labels, and an end."""

    training: Name
    """Configuration of the training (TOML), relative to this file; its [data] are the first structures. Some ten to twenty
    that differ are enough to start."""
    folder: Name = "active"
    """Folder for models, structures, labels and reports of all rounds, relative to this file. The same command goes on in
    it."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of all random numbers except those of the training."""
    explore: ExploreConfig = ExploreConfig()
    select: SelectConfig
    label: LabelConfig
    train: TrainConfig = TrainConfig()
    stop: StopConfig = StopConfig()

    _path: Path = PrivateAttr(default=Path("."))
    _training: Any = PrivateAttr(default=None)

    @property
    def parent(self) -> Path:
        """Folder from which relative paths start."""
        return self._path

    @property
    def work(self) -> Path:
        """Folder of all rounds."""
        return self._path / self.folder

    def folder_of(self, n: int) -> Path:
        """Folder of round n."""
        return self.work / f"round-{n:02d}"

    @property
    def trained(self) -> Config:
        """Configuration of the training."""
        return self._training


@cache
def json_schema() -> dict:
    """JSON schema of a configuration of active learning."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ActiveConfig.model_json_schema()}


def read_active(path: str | PathLike) -> ActiveConfig:
    """Read the configuration of active learning, and that of its training.

    Raises
    ------
    ValueError
        For a missing file, a mistake in the TOML, an unknown or missing key, a wrong type, or a value out of range; the
        message names the file.
    """
    return parsed(path, parse_active)


def parse_active(table: Mapping[str, Any], folder: str | PathLike = ".") -> ActiveConfig:
    """Make the configuration of active learning from nested dicts; ``folder`` is where relative paths start.

    Raises
    ------
    ValueError
        As in ``read_active``, and for quantities and files that are not there.
    """
    try:
        config = ActiveConfig.model_validate(table)
    except ValidationError as error:
        raise ValueError(one_line(error, table, json_schema())) from None
    config._path = Path(folder)
    config._training = read_config(config.parent / config.training)
    _check(config)
    return config


def _check(config):
    """Raise ValueError for settings that contradict the training, and files that are missing."""
    training, explore, label = config.trained, config.explore, config.label
    if training.ldos or training.hamiltonian:
        name = "ldos" if training.ldos else "hamiltonian"
        raise ValueError(f"training: {config.training} has [{name}], whose labels are not made here; leave it out")
    head = head_of(config.select.quantity)
    if training.section(head) is None:
        have = ", ".join(f"[{row.name}]" for row in training.wanted)
        raise ValueError(
            f"select.quantity: got {config.select.quantity}, which needs [{head}], but {config.training} has {have}; "
            "choose another quantity or add the section"
        )
    moves = explore.runs != 0 and not label.pool
    if moves and training.energy is None and not explore.potential:
        raise ValueError(
            f"explore.potential: {config.training} has no [energy] that moves the atoms; name a model, or set runs = 0"
        )
    if explore.runs == 0 and not explore.structures and not label.pool:
        raise ValueError("explore: got runs = 0 and no structures; give one of them")
    for key, names in (
        ("explore.start", explore.start),
        ("explore.structures", explore.structures),
        ("label.pool", label.pool),
        ("label.files", label.files),
    ):
        for name in names:
            if not (config.parent / name).exists():
                raise ValueError(f"{key}: {config.parent / name}: no such file; correct the name")


def head_of(quantity: str) -> str:
    """Name of the head that a quantity of [select] comes from."""
    return HEADS[quantity]
