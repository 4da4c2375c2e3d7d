"""Active learning against random labels: silicon with labels of DFT, looked up in a pool.

A model starts from 20 random snapshots of the 202 to train on in examples/data/silicon.h5. In each round it gets 20 more
from the others: those that ``mlelec active`` asks for by the error bars of forces or of the ADOS, or random ones. The model
is linear in ACE invariants for energy and forces, and has a drawn net for the density of states, both in closed form;
nothing is chosen by the tests, which are looked at once, by this script.

    python benchmarks/active_learning.py FOLDER [--seeds 0 1 2] [--by forces ados random] [--out benchmarks/ACTIVE.md]

FOLDER keeps all models; the same command goes on after an interruption. Beside the report there is a picture.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ase_mlelec.active import learn, parse_active
from ase_mlelec.bundle import load_model
from ase_mlelec.data.frames import Frames, join, read_frames, write_hdf5
from ase_mlelec.train.config import read_config
from ase_mlelec.train.recipe import train

HERE = Path(__file__).parent
DATA = HERE.parent / "examples/data/silicon.h5"
FIRST, STEP, LAST = 20, 20, 80
TRAINING = """\
[data]
files = ["first.h5"]
train = ["train"]
[power_spectrum]
cutoff = 5.5
n_pair = 10
n_radial = 4
l_max = 6
near = 4.0
roughest = 6.0
[energy]
widths = []
[dos]
drawn = 256
[output]
model = "model.safetensors"
"""
SHOWN = {
    "energy_rmse_meV_per_atom": "energy (meV/atom)",
    "forces_rmse_meV_per_A": "force component (meV/Å)",
    "ados_rmse_states_per_eV": "ADOS (states/eV)",
}
COLORS = {"forces": "C1", "ados": "C2", "random": "C0"}  # by the bars of what, or random


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--by", choices=list(COLORS), nargs="+", default=list(COLORS))
    parser.add_argument("--out", type=Path, default=HERE / "ACTIVE.md")
    arguments = parser.parse_args()
    curves = {}
    for seed in arguments.seeds:
        for by in arguments.by:
            curves[by, seed] = curve(arguments.folder / f"{by}-{seed}", by, seed)
    whole = all_labels(arguments.folder / "all")
    draw(arguments.out.with_suffix(".png"), curves, whole)
    arguments.out.write_text("\n".join(report(curves, whole)) + "\n", encoding="utf-8")


def fully_labeled(frames: Frames) -> Frames:
    """Cells of 8 atoms to train on, with all labels."""
    return frames.select("train").where(lambda frame: len(frame.atoms) == 8 and "ados" in frame.labels)


def written(folder: Path, seed: int, n_first: int | None) -> None:
    """Write the first structures (with validation and tests), the pool, and the configuration of the training."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.toml").write_text(TRAINING, encoding="utf-8")
    if (folder / "pool.h5").exists():
        return
    frames = read_frames(DATA)
    pool, held = fully_labeled(frames), frames.select("validation", "test")
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    first, others = order[:n_first], order[n_first:] if n_first else order[:1]
    write_hdf5(folder / "first.h5", join([pool.take(sorted(first)), held]))
    write_hdf5(folder / "pool.h5", Frames(pool.take(sorted(others)).frames, pool.energies, pool.attributes))


def curve(folder: Path, by: str, seed: int) -> list[dict]:
    """Numbers of labels and errors on the tests along the rounds."""
    written(folder, seed, FIRST)
    table = {
        "training": "train.toml",
        "seed": seed,
        "select": {"low": 0.0, "number": STEP, **({"by": by} if by == "random" else {"quantity": by})},
        "label": {"pool": ["pool.h5"]},
        "stop": {"share": 0.0, "labels": LAST - FIRST},
    }
    learn(parse_active(table, folder))
    paths = sorted((folder / "active").glob("round-*/model.safetensors"))
    return [point(path, FIRST + STEP * k) for k, path in enumerate(paths)]


def point(path: Path, labels: int) -> dict:
    """Errors of a model, and its hash."""
    errors = load_model(path).metadata["errors"]["test"]
    found = {key: errors[key] for key in SHOWN}
    return {"labels": labels, "model": hashlib.sha256(path.read_bytes()).hexdigest()[:12], **found}


def all_labels(folder: Path) -> dict:
    """Errors of the same model trained on all labels."""
    written(folder, 0, None)
    path = folder / "model.safetensors"
    if not path.exists():
        train(read_config(folder / "train.toml"))
    return point(path, len(fully_labeled(read_frames(DATA))))


def means(curves: dict, by: str, key: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Numbers of labels, mean of an error over the seeds, and its spread."""
    rows = np.array([[each[key] for each in points] for (kind, _), points in curves.items() if kind == by])
    labels = next([each["labels"] for each in points] for (kind, _), points in curves.items() if kind == by)
    return labels, rows.mean(axis=0), rows.std(axis=0, ddof=1) if len(rows) > 1 else 0 * rows[0]


def draw(path: Path, curves: dict, whole: dict) -> None:
    """Draw the learning curves."""
    titles = SHOWN
    figure = Figure(figsize=(4 * len(titles), 3.6), layout="constrained")
    for ax, (key, title) in zip(figure.subplots(1, len(titles)), titles.items()):
        for by, color in COLORS.items():
            if not any(kind == by for kind, _ in curves):
                continue
            for (kind, _), points in curves.items():
                if kind == by:
                    ax.plot(
                        [p["labels"] for p in points], [p[key] for p in points], "-", color=color, lw=0.7, alpha=0.5
                    )
            labels, mean, spread = means(curves, by, key)
            ax.errorbar(labels, mean, spread, fmt="o-", color=color, capsize=3, label=f"by {by}")
        ax.axhline(whole[key], color="k", ls="--", lw=1, label=f"all {whole['labels']}")
        ax.set(xlabel="labels", title=title)
        ax.legend(frameon=False)
    figure.savefig(path, dpi=120)


def report(curves: dict, whole: dict) -> Sequence[str]:
    """Lines of the report."""
    titles = SHOWN
    seeds = len({seed for _, seed in curves})
    lines = [
        "# Active learning against random labels: silicon",
        "",
        f"`python benchmarks/{Path(__file__).name} FOLDER`: root mean square errors on the 27 test structures of "
        f"`silicon.h5`, mean and standard deviation over {seeds} seeds. Labels of DFT are looked up in a pool of 202 "
        f"structures; each run starts from {FIRST} random ones and gets {STEP} in a round, by the error bars of "
        "forces, of the ADOS, or at random. The tests are looked at once, by this script.",
        "",
        "| labels | by | " + " | ".join(titles.values()) + " |",
        "|---|---|" + "---|" * len(titles),
    ]
    n_points = min(len(points) for points in curves.values())
    for k in range(n_points):
        for by in dict.fromkeys(kind for kind, _ in curves):
            cells = []
            for key in titles:
                labels, mean, spread = means(curves, by, key)
                cells.append(f"{mean[k]:.4g} ± {spread[k]:.2g}")
            lines.append(f"| {labels[k]} | {by} | " + " | ".join(cells) + " |")
    lines.append(f"| {whole['labels']} | all | " + " | ".join(f"{whole[key]:.4g}" for key in titles) + " |")
    hashes = {f"{by} {seed}": [each["model"] for each in points] for (by, seed), points in curves.items()}
    lines += ["", "![learning curves](ACTIVE.png)", "", "Models (SHA-256, 12 digits), by kind and seed:", ""]
    lines += [f"- {name}: {', '.join(found)}" for name, found in hashes.items()]
    return [*lines, f"- all labels: {whole['model']}"]


if __name__ == "__main__":
    main()
