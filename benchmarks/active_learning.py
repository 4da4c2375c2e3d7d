"""Active learning against random labels, which are looked up in a pool.

    python benchmarks/active_learning.py FOLDER [--cases silicon dynamics mgo] [--seeds 0 1 2] [--out benchmarks/ACTIVE.md]

A model starts from some random structures of a pool and gets more in each round: those that ``mlelec active`` asks for, by
the name of the quantity, or random ones, up to half of the pool at most. The cases:

silicon
    Labels of DFT: the 202 cells of 8 atoms to train on in examples/data/silicon.h5. Pool and tests are of one kind.
dynamics
    Labels of the model ``si``, which stands in for a program: 160 consecutive frames of a crystal at 300 K, every 5 fs, and
    40 of the same cells as above, which are liquids and strained or hot crystals for the most part. The tests are those
    of silicon.
mgo
    Labels of DFT: the 105 structures to train on in examples/data/mgo.h5. Gaps are those of the density of states.

Energies are linear in ACE invariants with the settings that a model has by default, densities of states are drawn nets,
both in closed form; nothing is chosen by the tests. FOLDER keeps all models; the same command goes on after an
interruption. Beside the report there is a picture of every case.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.langevin import Langevin
from matplotlib.figure import Figure
from mgo import gap_of_label

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.active import learn, parse_active
from ase_mlelec.bundle import load_model
from ase_mlelec.data.frames import Frame, Frames, join, read_frames, read_hdf5, write_hdf5
from ase_mlelec.train.config import read_config
from ase_mlelec.train.recipe import train

HERE = Path(__file__).parent
DATA = HERE.parent / "examples/data"
WITH_ENERGY = """\
[data]
files = ["first.h5"]
train = ["train"]
[power_spectrum]
cutoff = 6.0
[energy]
widths = []
[dos]
[output]
model = "model.safetensors"
"""
SPECTRA_ALONE = WITH_ENERGY.replace("[energy]\nwidths = []\n", "")
SHOWN = {
    "energy_rmse_meV_per_atom": "energy (meV/atom)",
    "forces_rmse_meV_per_A": "force component (meV/Å)",
    "ados_rmse_states_per_eV": "ADOS (states/eV)",
}
GAPS = {"gap": "gap, to the labels (eV)", "gap_of_levels": "gap, to the levels (eV)"}
COLORS = {"forces": "C1", "ados": "C2", "gap": "C3", "random": "C0"}


@dataclass(frozen=True)
class Case:
    """A pool, the ways to choose from it, and what is shown.

    Attributes
    ----------
    title : str
    frames : callable(folder) -> (Frames of the pool, Frames with validation and tests)
    training : str
        TOML.
    first, step, last : int
        Labels at the start, of a round, and in the end.
    ways : tuple of str
        Quantities whose error bars ask, and "random".
    shown : dict of str
        Titles of the errors.
    more : callable(path of a model) -> dict
        Further errors on the tests.
    """

    title: str
    frames: Callable
    training: str
    first: int
    step: int
    last: int
    ways: tuple[str, ...]
    shown: dict[str, str]
    more: Callable = lambda path: {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=HERE / "ACTIVE.md")
    arguments = parser.parse_args()
    lines = [*HEAD]
    for name in arguments.cases:
        case, folder, curves = CASES[name], arguments.folder / name, {}
        for seed in arguments.seeds:
            for by in case.ways:
                curves[by, seed] = curve(case, folder / f"{by}-{seed}", by, seed)
        whole = all_labels(case, folder / "all")
        picture = arguments.out.with_name(f"{arguments.out.stem}_{name}.png")
        lines += report(case, curves, whole, picture)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def silicon(folder: Path) -> tuple[Frames, Frames]:
    """Cells of 8 atoms to train on, with all labels; validation and tests."""
    frames = read_frames(DATA / "silicon.h5")
    pool = frames.select("train").where(lambda frame: len(frame.atoms) == 8 and "ados" in frame.labels)
    return pool, frames.select("validation", "test")


def dynamics(folder: Path) -> tuple[Frames, Frames]:
    """Mostly frames of one run, with labels of the model ``si``; validation and tests of silicon with its labels."""
    path = folder.parent / "dynamics.h5"
    if not path.exists():
        calc = DeepDOSCalculator(load_model("si"), on_extrapolation="ignore")
        atoms = bulk("Si", cubic=True)
        atoms.calc = calc
        rng = np.random.default_rng(0)
        atoms.set_momenta(rng.normal(size=(8, 3)) * np.sqrt(atoms.get_masses()[:, None] * units.kB * 300))
        dyn, run = Langevin(atoms, 2.5 * units.fs, temperature_K=300, friction=0.01 / units.fs, rng=rng), []
        dyn.attach(lambda: run.append(Frame(atoms.copy(), group="train")), interval=2)
        dyn.run(500)
        pool, held = silicon(folder)
        some = sorted(rng.permutation(len(pool))[:40].tolist())
        frames = [*run[-160:], *pool.take(some), *held]
        labeled = [Frame(f.atoms, labels_of(calc, f.atoms), f"{k}", f.group) for k, f in enumerate(frames)]
        write_hdf5(path, Frames(labeled, pool.energies, pool.attributes))
    frames = read_hdf5(path)
    return frames.select("train"), frames.select("validation", "test")


def labels_of(calc: DeepDOSCalculator, atoms) -> dict:
    """Labels of a structure by a model."""
    atoms = atoms.copy()
    found = {name: calc.get_property(name, atoms) for name in ("energy", "forces")}
    return found | {"ados": calc.get_ados(atoms=atoms)}


def mgo(folder: Path) -> tuple[Frames, Frames]:
    """Structures to train on; validation and tests."""
    frames = read_frames(DATA / "mgo.h5")
    return frames.select("train"), frames.select("validation", "test")


def gaps(path: Path) -> dict[str, float]:
    """Root mean square errors of gaps on the tests, eV, against those of labels and levels; 0 where the model has none."""
    calc, frames = DeepDOSCalculator(load_model(path), on_extrapolation="ignore"), read_frames(DATA / "mgo.h5")
    known, rows = frames.attributes["electronic_levels"], []
    for frame in frames.select("test"):
        levels = dict(zip(known["columns"], known[frame.name]))
        vbm, cbm = (levels[name] for name in known["columns"][1:3])
        rows.append([calc.get_band_gap(frame.atoms)[0], gap_of_label(calc, frame), cbm - vbm])
    found, *wanted = np.nan_to_num(np.array(rows)).T
    return {key: float(np.sqrt(np.mean((found - right) ** 2))) for key, right in zip(GAPS, wanted)}


CASES = {
    "silicon": Case(
        "Silicon, a pool like the tests", silicon, WITH_ENERGY, 20, 27, 101, ("forces", "ados", "random"), SHOWN
    ),
    "dynamics": Case(
        "Silicon, frames of dynamics for the most part",
        dynamics,
        WITH_ENERGY,
        20,
        10,
        60,
        ("forces", "ados", "random"),
        SHOWN,
    ),
    "mgo": Case(
        "Magnesium oxide, gap",
        mgo,
        SPECTRA_ALONE,
        20,
        11,
        53,
        ("gap", "random"),
        {"ados_rmse_states_per_eV": SHOWN["ados_rmse_states_per_eV"]} | GAPS,
        gaps,
    ),
}


def written(case: Case, folder: Path, seed: int, n_first: int | None) -> int:
    """Write the first structures (with validation and tests), the pool, and the training; number of all in the pool."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.toml").write_text(case.training, encoding="utf-8")
    pool, held = case.frames(folder)
    if not (folder / "pool.h5").exists():
        order = np.random.default_rng(seed).permutation(len(pool)).tolist()
        first, others = order[:n_first], order[n_first:] if n_first else order[:1]
        write_hdf5(folder / "first.h5", join([pool.take(sorted(first)), held]))
        write_hdf5(folder / "pool.h5", Frames(pool.take(sorted(others)).frames, pool.energies, pool.attributes))
    return len(pool)


def curve(case: Case, folder: Path, by: str, seed: int) -> list[dict]:
    """Numbers of labels and errors on the tests along the rounds."""
    written(case, folder, seed, case.first)
    table = {
        "training": "train.toml",
        "seed": seed,
        "select": {"low": 0.0, "number": case.step, **({"by": by} if by == "random" else {"quantity": by})},
        "label": {"pool": ["pool.h5"]},
        "stop": {"share": 0.0, "labels": case.last - case.first},
    }
    if by == "random" and "forces" not in case.ways:
        table["select"]["quantity"] = "ados"
    learn(parse_active(table, folder))
    paths = sorted((folder / "active").glob("round-*/model.safetensors"))
    return [point(case, path, min(case.first + case.step * k, case.last)) for k, path in enumerate(paths)]


def point(case: Case, path: Path, labels: int) -> dict:
    """Errors of a model, and its hash."""
    errors = load_model(path).metadata["errors"]["test"] | case.more(path)
    found = {key: errors[key] for key in case.shown}
    return {"labels": labels, "model": hashlib.sha256(path.read_bytes()).hexdigest()[:12], **found}


def all_labels(case: Case, folder: Path) -> dict:
    """Errors of the same model trained on all labels."""
    labels, path = written(case, folder, 0, None), folder / "model.safetensors"
    if not path.exists():
        train(read_config(folder / "train.toml"))
    return point(case, path, labels)


def errors_of(case: Case, curves: dict) -> dict[str, tuple[list[int], np.ndarray]]:
    """Numbers of labels [k] and errors [seeds, k, q] of every way, along the rounds that all runs have."""
    n, found = min(map(len, curves.values())), {}
    for way in case.ways:
        own = [points[:n] for (by, _), points in curves.items() if by == way]
        errors = np.array([[[each[key] for key in case.shown] for each in points] for points in own])
        found[way] = ([each["labels"] for each in own[0]], errors)
    return found


def mean_and_spread(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the seeds, the first axis."""
    return errors.mean(axis=0), errors.std(axis=0, ddof=1) if len(errors) > 1 else 0 * errors[0]


def draw(path: Path, titles: Sequence[str], curves: dict, whole: tuple[int, Sequence[float]]) -> None:
    """Draw learning curves, for each of q errors beside those with all labels.

    Parameters
    ----------
    path : Path
    titles : sequence of str [q]
    curves : dict of way to (labels [k], errors [seeds, k, q])
    whole : (number of all labels, errors [q])
    """
    figure = Figure(figsize=(4 * len(titles), 3.6), layout="constrained")
    for q, (ax, title) in enumerate(zip(figure.subplots(1, len(titles)), titles)):
        for way, (labels, errors) in curves.items():
            ax.plot(labels, errors[:, :, q].T, "-", color=COLORS[way], lw=0.7, alpha=0.5)
            mean, spread = mean_and_spread(errors[:, :, q])
            ax.errorbar(labels, mean, spread, fmt="o-", color=COLORS[way], capsize=3, label=way)
        ax.axhline(whole[1][q], color="k", ls="--", lw=1, label=f"all {whole[0]}")
        ax.set(xlabel="labels", title=title)
        ax.legend(frameon=False)
    figure.savefig(path, dpi=100)


def table(titles: Sequence[str], curves: dict, whole: tuple[int, Sequence[float]]) -> Iterator[str]:
    """Lines of the table of what ``draw`` draws; the first structures, which all ways share, are random."""
    yield "| labels | by | " + " | ".join(titles) + " |"
    yield "|---|---|" + "---|" * len(titles)
    for k, labels in enumerate(curves["random"][0]):
        for way, (_, errors) in curves.items() if k else [("random", curves["random"])]:
            cells = " | ".join(f"{mean:.4g} ± {spread:.2g}" for mean, spread in zip(*mean_and_spread(errors[:, k])))
            yield f"| {labels} | {way} | {cells} |"
    yield f"| {whole[0]} | all | " + " | ".join(f"{error:.4g}" for error in whole[1]) + " |"


def report(case: Case, curves: dict, whole: dict, picture: Path) -> Iterator[str]:
    """Draw the picture of a case; lines of the report on it."""
    of_all, titles = (whole["labels"], [whole[key] for key in case.shown]), list(case.shown.values())
    draw(picture, titles, errors_of(case, curves), of_all)
    yield from ("", f"## {case.title}", "", *table(titles, errors_of(case, curves), of_all))
    yield from ("", f"![learning curves]({picture.name})", "", "Models (SHA-256, 12 digits), by kind and seed:", "")
    for (by, seed), points in curves.items():
        yield f"- {by} {seed}: {', '.join(each['model'] for each in points)}"
    yield f"- all labels: {whole['model']}"


HEAD = (
    "# Active learning against random labels",
    "",
    "`python benchmarks/active_learning.py FOLDER`, whose text describes the cases: root mean square errors on the tests,",
    "mean and standard deviation over the seeds.",
)

if __name__ == "__main__":
    main()
