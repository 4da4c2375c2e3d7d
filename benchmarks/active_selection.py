"""What a selection of labels is worth, apart from all else: learning curves from rows that are computed once.

    python benchmarks/active_selection.py FOLDER [--cases silicon dynamics mgo] [--out benchmarks/ACTIVE_SELECTION.md]

Models that are linear in their weights are fitted to some of the structures of a pool, as a training fits them: energies and
forces with weights and ridge by some of the structures, densities of states with a ridge by cross-validation. In every
round, the next structures are random, or those of ``most_informative`` by the rows of energies and forces, or of densities
of states. ``active_learning.py`` has the same cases with whole trainings, which take a hundred times as long. The cases,
of cells of 8 atoms:

silicon
    Labels of DFT: 202 structures to train on in examples/data/silicon.h5, of the same kinds as the 27 tests.
dynamics
    Labels of the model ``si``: 160 consecutive frames of a crystal at 300 K and 40 of the structures above; same tests.
mgo
    Labels of DFT: 100 structures to train on in examples/data/mgo.h5, 40 tests at other pressures. Roots of the density of
    states are fitted; gaps are compared with those of the labels.

Nothing is chosen by the tests. Rows are kept in FOLDER.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from active_learning import draw, dynamics, mgo, silicon, table
from hashes import models_line
from numpy.typing import NDArray

from ase_mlelec.active.selection import most_informative
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors.ace.former import from_power_spectrum
from ase_mlelec.heads import ScalarHead, SpectrumHead
from ase_mlelec.model import Model
from ase_mlelec.physics.gap import gap_of_dos
from ase_mlelec.train.block_ridge import BlockRidge, BlockSums, blocks_of
from ase_mlelec.train.choice import SumsByLabel, choose, solved
from ase_mlelec.train.drawn_nets import DrawnNet
from ase_mlelec.train.energy_rows import plain_rows
from ase_mlelec.train.recipes.distances import inner_distance
from ase_mlelec.train.recipes.linear_energy import BLOCK, FOLDS
from ase_mlelec.train.roots import roots_of
from ase_mlelec.train.standardize import standardize, standardize_heads

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
MOVES = 8  # displacements along which a selection looks at forces
RIDGE = 1e-7  # of energies in the selection
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)  # of densities of states, to choose from
ELECTRONS = 3.967  # for each atom of MgO, that projections hold below the gap
READERS = {"silicon": silicon, "dynamics": dynamics, "mgo": mgo}
ROUNDS = {"silicon": (20, 47, 74, 101), "dynamics": (20, 30, 40, 60), "mgo": (20, 30, 40, 50)}  # labels
TITLES = {
    "energy": "energy (meV/atom)",
    "forces": "force component (meV/Å)",
    "ados": "ADOS (states/eV)",
    "gap": "gap (eV)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", choices=list(READERS), nargs="+", default=list(READERS))
    parser.add_argument("--out", type=Path, default=HERE / "ACTIVE_SELECTION.md")
    arguments = parser.parse_args()
    lines, notes = [*HEAD, models_line("si")], notes_of(arguments.out)
    for name in arguments.cases:
        case = Rows(name, arguments.folder)
        ways = ("ados", "random") if name == "mgo" else ("forces", "ados", "random")
        curves = {way: np.array([curve(case, way, seed, ROUNDS[name]) for seed in SEEDS]) for way in ways}
        lines += report(case, curves, arguments.out.with_name(f"{arguments.out.stem}_{name}.png"))
        arguments.out.write_text("\n".join(lines) + "\n" + notes, encoding="utf-8")


def notes_of(path: Path) -> str:
    """The notes by hand at the end of a report, which stay when it is written again."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[text.find(NOTES) :] if NOTES in text else ""


class Rows:
    """Rows and targets of all structures of a case, the pool before the tests, and fits to some of them.

    Parameters
    ----------
    name : str
    folder : Path
        Where rows are kept.
    """

    def __init__(self, name: str, folder: Path):
        self.name, path = name, folder / f"{name}-rows.npz"
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            pool, held = READERS[name](folder / name)
            parts = [part.where(lambda frame: len(frame.atoms) == 8) for part in (pool, held.select("test"))]
            np.savez(path, **computed(name, *parts))
        self.arrays = dict(np.load(path))
        self.n_pool = int(self.arrays["n_pool"])
        self.tests = np.arange(self.n_pool, len(self.arrays["dos"]))
        self.known: dict[tuple, list[float]] = {}
        self.keys = ("ados", "gap") if name == "mgo" else ("energy", "forces", "ados")

    def errors(self, chosen: NDArray) -> list[float]:
        """Root mean square errors on the tests, in the order of ``keys``, of fits to the chosen structures."""
        key = tuple(sorted(chosen.tolist()))
        if key not in self.known:
            self.known[key] = self._errors(chosen)
        return self.known[key]

    def _errors(self, chosen):
        solution, tests = self.spectra(chosen), self.tests
        found = self.arrays["dos"][tests] @ solution + self.arrays["mean"]
        label = self.arrays["mean"] + self.arrays["of_dos"][tests]
        if self.name == "mgo":
            found, label = np.square(found), np.square(label)
            return [rms(found - label), rms(self.gaps(found) - self.gaps(label))]
        weights, n = self.energies(chosen), self.arrays["forces"].shape[1] / 3
        of_energy = (self.arrays["energy"][tests] @ weights - self.arrays["of_energy"][tests]) / n
        of_forces = self.arrays["forces"][tests] @ weights - self.arrays["of_forces"][tests]
        return [1000 * rms(of_energy), 1000 * rms(of_forces), rms(found - label)]

    def gaps(self, spectra: NDArray) -> NDArray:
        """Gaps of densities of states of atoms [n, N, S], eV; 0 for none."""
        found = []
        for each in spectra:
            grid, total = torch.from_numpy(self.arrays["grid"]), torch.from_numpy(each.mean(axis=0))
            gap = gap_of_dos(grid, total, ELECTRONS, width=float(self.arrays["width"]), tolerance=0.05)
            found.append(0.0 if gap is None else float(gap.cbm - gap.vbm))
        return np.array(found)

    def energies(self, chosen: NDArray) -> NDArray:
        """Weights [P] fitted to energies and forces of the chosen structures, as a training does."""
        blocks = np.array_split(np.sort(chosen), max(2, len(chosen) // BLOCK))
        order = np.random.default_rng(0).permutation(len(blocks))
        size = max(1, round(len(blocks) / FOLDS))
        starts = range(0, len(blocks) - size + 1, size)[:FOLDS]
        folds = [np.concatenate([blocks[k] for k in order[start : start + size]]) for start in starts]
        sums, n = SumsByLabel(), self.arrays["forces"].shape[1] / 3

        def pairs(some, of_energy, of_forces):
            a = self.arrays
            forces = a["forces"][some].reshape(-1, a["forces"].shape[2])
            found = {
                "energy": (of_energy * a["energy"][some], of_energy * a["of_energy"][some]),
                "forces": (of_forces * forces, of_forces * a["of_forces"][some].ravel()),
            }
            return {key: tuple(torch.from_numpy(part) for part in pair) for key, pair in found.items()}

        sums.add(pairs(np.setdiff1d(chosen, np.concatenate(folds)), n**-0.5, (3 * n) ** -0.5))
        for k, fold in enumerate(folds):
            sums.add(pairs(fold, n**-0.5, (3 * n) ** -0.5), fold=k)
        return solved(sums, choose(sums, [pairs(fold, 1 / n, 1.0) for fold in folds]))[0].numpy()

    def spectra(self, chosen: NDArray) -> NDArray:
        """Weights [P, S] fitted to densities of states of the chosen structures, with a ridge by cross-validation."""
        chosen = np.sort(chosen)
        blocks = blocks_of(len(chosen))
        sums, found = BlockSums(int(blocks[-1]) + 1), self.arrays["shapes"]
        for block, k in zip(blocks, chosen):
            targets = self.arrays["of_dos"][k] @ found.T
            sums.add(int(block), torch.from_numpy(self.arrays["dos"][k]), torch.from_numpy(targets))
        regression = BlockRidge([sums])
        ridge = min(RIDGES, key=lambda each: regression.typical_errors(each, (1.0,)))
        return regression.solve(ridge, (1.0,)).numpy() @ found

    def whitened(self, head: str, chosen: NDArray) -> NDArray:
        """Rows [n, r, K] of the pool in coordinates in which the covariance, given the chosen structures, is one."""
        if head == "dos":
            rows = self.arrays["dos"][: self.n_pool]
        else:
            forces, n = self.arrays["forces"][: self.n_pool], self.arrays["forces"].shape[1] / 3
            moves = np.random.default_rng(0).standard_normal((MOVES, forces.shape[1])) / (3 * n * MOVES) ** 0.5
            rows = np.concatenate([self.arrays["energy"][: self.n_pool, None] / n**0.5, moves @ forces], axis=1)
        known = rows[chosen].reshape(-1, rows.shape[2])
        normal = known.T @ known
        ridge = RIDGE if head == "energy" else 1e-2
        normal += ridge * np.trace(normal) / len(normal) * np.eye(len(normal))
        return np.linalg.solve(np.linalg.cholesky(normal), rows.reshape(-1, rows.shape[2]).T).T.reshape(rows.shape)


def computed(name: str, pool: Frames, tests: Frames) -> dict[str, NDArray]:
    """Rows and targets of energies and forces, and of densities of states in their principal shapes."""
    frames = Frames([*pool, *tests], pool.energies, pool.attributes)
    frames, pool = (roots_of(frames), roots_of(pool)) if name == "mgo" else (frames, pool)
    species = sorted({symbol for frame in pool for symbol in frame.atoms.symbols})
    size = {"cutoff": 6.0, "n_pair": 12, "n_radial": 5, "l_max": 8, "near": 4.5, "roughest": 9.0}
    descriptor = from_power_spectrum(species, inner=inner_distance(pool), roughest_5=None, **size)
    heads = {"energy": ScalarHead(len(species), descriptor.n_features, ())}
    heads["dos"] = SpectrumHead(len(species), descriptor.n_features, pool.energies, (512,))
    model = Model(descriptor, heads).double()
    standardize(model, pool)
    standardize_heads(model, pool, ["dos"])
    for head in heads.values():
        for layer in head.nets.last:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    batches = Batches.for_model(model, frames, ("ados",))
    drawn = DrawnNet(model, "dos", Batches.for_model(model, pool, ("ados",)), 0)
    found = {"dos": np.array([drawn.columns(batch)[:, 0].numpy() for batch in batches.all_batches(1)])}
    labels = np.array([frame.labels["ados"] for frame in frames])
    mean = labels[: len(pool)].mean(axis=(0, 1))
    shapes = np.linalg.svd((labels[: len(pool)] - mean).reshape(-1, len(mean)), full_matrices=False)[2][:40]
    found |= {"of_dos": labels - mean, "mean": mean, "shapes": shapes, "grid": pool.energies, "n_pool": len(pool)}
    found |= {"width": pool.attributes["dos_width_eV"]}
    return found if name == "mgo" else found | rows_of_energies(model, frames)


def rows_of_energies(model: Model, frames: Frames) -> dict[str, NDArray]:
    """Rows [n, P] and [n, 3N, P], and targets, of energies and forces."""
    found: dict[str, list] = {key: [] for key in ("energy", "of_energy", "forces", "of_forces")}
    for batch in Batches.for_model(model, frames, ("energy", "forces")).all_batches(1):
        rows = plain_rows(model, batch, ["energy", "forces"])
        parts = (rows["energy"][0][0], rows["energy"][1][0], *rows["forces"])
        for key, part in zip(found, parts):
            found[key].append(part.detach().numpy())
    return {key: np.array(column) for key, column in found.items()}


def curve(case: Rows, way: str, seed: int, rounds: Sequence[int]) -> list[list[float]]:
    """Errors along the rounds."""
    order = np.random.default_rng(seed).permutation(case.n_pool)
    chosen, found = order[: rounds[0]], []
    for k, number in enumerate(rounds):
        if k:
            chosen = np.concatenate([chosen, more(case, way, chosen, number - len(chosen), order)])
        found.append(case.errors(chosen))
    return found


def more(case: Rows, way: str, chosen: NDArray, number: int, order: NDArray) -> NDArray:
    """The next structures."""
    left = np.setdiff1d(np.arange(case.n_pool), chosen)
    if way == "random":
        return order[~np.isin(order, chosen)][:number]
    rows = case.whitened("dos" if way == "ados" else "energy", chosen)
    return left[most_informative(rows[left], number=number)]


def rms(values: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def report(case: Rows, curves: dict[str, NDArray], picture: Path) -> Iterator[str]:
    """Draw the picture of a case; lines of the report on it."""
    titles, whole = [TITLES[key] for key in case.keys], (case.n_pool, case.errors(np.arange(case.n_pool)))
    found = {way: (ROUNDS[case.name], errors) for way, errors in curves.items()}
    draw(picture, titles, found, whole)
    yield from ("", f"## {case.name}", "", *table(titles, found, whole))
    yield from ("", f"![learning curves]({picture.name})")


NOTES = "\n## What the curves say\n"
HEAD = (
    "# Labels that teach most, against random ones",
    "",
    "`python benchmarks/active_selection.py FOLDER`, whose text describes cases and ways: root mean square errors on the",
    "tests, mean and standard deviation over three seeds. The tests are looked at once, by this script.",
    "",
)

if __name__ == "__main__":
    main()
