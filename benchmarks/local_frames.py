"""Local frames (DPMD) and the smooth edition (DeepPot-SE), trained on the same silicon for the same time: errors and jumps.

    python benchmarks/local_frames.py FOLDER [--seconds 30] [--out benchmarks/LOCAL_FRAMES.md]

The data are the crystals of 8 atoms in examples/data/silicon.h5, as they are divided there. Both energies have the same
cutoff, nets, batches and loss, and as many steps as fit into equal processor time. FOLDER keeps what is done; the same
command goes on after an interruption.
"""

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from matplotlib.figure import Figure

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.frames import Frames, read_hdf5, write_hdf5
from ase_mlelec.descriptors import DeepPotLocalFrame
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.fit import FrameProblem
from ase_mlelec.train.loop import Schedule
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.recipe import train
from ase_mlelec.train.run import Run

HERE = Path(__file__).parent
DATA = HERE.parent / "examples" / "data" / "silicon.h5"
SIZE = "solid-64-1200K-560"  # a cell of 64 atoms, in no part of the training
DESCRIPTORS: dict[str, dict] = {
    "smooth edition": {"descriptor": {}},
    "local frames": {"local_frame": {}},  # of the two nearest neighbors, the nearest 16 with coordinates
}
SMOOTH, LOCAL = DESCRIPTORS
PROBE = 30  # steps, whose median gives the cost of one
SIDE = 2e-6  # Å, on both sides of a jump
CLOSE = 0.02  # Å, differences of distances that are looked at
AT_MOST = 40  # jumps of a kind
STEP, STEPS, TEMPERATURE = 1.0, 1000, 900.0  # fs, number, K: the atoms keep half of it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="processor time of a training (default 30)")
    parser.add_argument("--out", type=Path, default=HERE / "LOCAL_FRAMES.md")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    write_subset(arguments.folder / "silicon.h5")

    def kept(name: str, measure: Callable[[], dict]) -> dict:
        path = arguments.folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(measure(), indent=1))
        return json.loads(path.read_text())

    trained = {
        name: kept(f"training-{k}", lambda name=name, k=k: training(name, k, arguments))
        for k, name in enumerate(DESCRIPTORS)
    }
    models = {name: load_model(arguments.folder / f"{k}.safetensors") for k, name in enumerate(DESCRIPTORS)}
    runs = {name: kept(f"run-{k}", lambda name=name: run(models[name])) for k, name in enumerate(DESCRIPTORS)}
    single = kept("jumps", lambda: jumps(models[LOCAL]))
    mirrors = kept("mirrors", lambda: {name: mirror_images(model) for name, model in models.items()})
    figure = path_figure({name: models[name] for name in (SMOOTH, LOCAL)}, arguments.out.with_suffix(".png"))
    arguments.out.write_text(report(trained, runs, single, mirrors, figure, arguments), encoding="utf-8")


def write_subset(path: Path) -> Frames:
    """Crystals of 8 atoms, without the compressed ones that teach repulsion."""
    frames = read_hdf5(DATA)
    subset = frames.where(lambda frame: frame.name.startswith(("solid-8-", "static-8-")))
    if not path.exists():
        write_hdf5(path, subset)
    return subset


def training(name: str, k: int, arguments: argparse.Namespace) -> dict:
    """Train a model for the time of ``arguments`` and measure its errors."""

    def made(steps, model):
        energy = {"steps": steps, "batch_size": 16, "patience": 0}
        files = {"data": {"files": ["silicon.h5"]}, "output": {"model": model}}
        return train(parse_config(files | DESCRIPTORS[name] | {"energy": energy}, arguments.folder), progress=False)

    cost = seconds_per_step(made(2, f"probe-{k}.safetensors"), arguments.folder)
    steps = round(arguments.seconds / cost)
    model = made(steps, f"{k}.safetensors")
    data = read_hdf5(DATA)
    large = data.where(lambda frame: frame.name == SIZE)
    return {
        "seconds per step": cost,
        "steps": steps,
        "test": model.metadata["errors"]["test"],
        "size": errors(model, large),
        "frames": model.metadata["training"]["frames"],
        "features": model.descriptor.n_features,
        "sha256": hashlib.sha256((arguments.folder / f"{k}.safetensors").read_bytes()).hexdigest(),
    }


def seconds_per_step(model, folder: Path) -> float:
    """Processor time of a step of gradient descent, s."""
    model.core = None  # there is none while an energy is trained
    frames = read_hdf5(folder / "silicon.h5").select("train")
    loss = EnergyLoss((0.01, 1.0), (10.0, 1.0), (0.05, 0.2))
    steps = Run(FrameProblem(model.train(), frames, loss, batch_size=16), Schedule(1e-6, 1e-7), 10_000, None)
    marks = [time.process_time()]
    for _ in range(PROBE):
        steps.make_step(False)
        marks.append(time.process_time())
    return float(np.median(np.diff(marks)))


def calculator(model) -> DeepPotCalculator:
    return DeepPotCalculator(model, device="cpu", on_extrapolation="ignore")


def run(model) -> dict:
    """Molecular dynamics at constant energy: total energies, and in how many steps the order of neighbors changes."""
    atoms = bulk("Si", a=5.43, cubic=True).repeat(2)
    atoms.calc = calculator(model)
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(0))
    Stationary(atoms)
    totals, orders = [], []
    dynamics = VelocityVerlet(atoms, STEP * units.fs)

    def record():
        totals.append(atoms.get_total_energy() / len(atoms))
        if isinstance(model.descriptor, DeepPotLocalFrame):
            orders.append(order_of(model.descriptor, atoms))

    dynamics.attach(record)
    dynamics.run(STEPS)
    changed = [len(one ^ two) / 2 for one, two in itertools.pairwise(orders)]
    half = len(totals) // 2
    time_ps = np.arange(half, len(totals)) * STEP / 1000
    return {
        "totals": totals,
        "drift": 1000 * float(np.polyfit(time_ps, totals[half:], 1)[0]),
        "spread": 1000 * float(np.std(totals[half:])),
        "per step": 1000 * float(np.std(np.diff(totals[half:]))),
        "exchanges": float(np.mean(changed[half:])) if changed else 0.0,
        "temperature": float(atoms.get_temperature()),
    }


def order_of(descriptor, atoms: Atoms) -> set:
    """(center, neighbor, image, place) of the neighbors with coordinates, and (center, edges of its frame)."""
    system = System.from_atoms(atoms)
    edges = Edges.build(system, descriptor.cutoff)
    places = descriptor.places(system, edges)
    near = places.slot < descriptor.full[0]
    columns = torch.cat(
        [edges.center[:, None], edges.neighbor[:, None], edges.shift.long(), places.slot[:, None]], dim=1
    )
    return set(map(tuple, columns[near].tolist()))


def jumps(model) -> dict:
    """Jumps of energy and of the largest force, by what changes, in the cell of 64 atoms."""
    atoms = read_hdf5(DATA).where(lambda frame: frame.name == SIZE).frames[0].atoms
    calc, found = calculator(model), {}
    for kind, changed in exchanges(model.descriptor, atoms):
        sizes = found.setdefault(kind, [])
        if len(sizes) < AT_MOST:
            before, after = ((calc.get_potential_energy(each), calc.get_forces(each)) for each in changed)
            force = float(np.linalg.norm(after[1] - before[1], axis=1).max())
            sizes.append([1000 * abs(after[0] - before[0]), force])
    return found


def exchanges(descriptor, atoms: Atoms) -> Iterator[tuple[str, list[Atoms]]]:
    """(kind, structures on both sides) of single changes of the order: a neighbor moves along its bond."""
    system = System.from_atoms(atoms)
    edges = Edges.build(system, descriptor.cutoff + CLOSE)
    r, slots = edges.distances.numpy(), descriptor.full[0]
    for center in range(len(atoms)):
        own = np.flatnonzero(edges.center.numpy() == center)
        own = own[np.argsort(r[own])]
        for place, (near, far) in enumerate(itertools.pairwise(own)):
            if r[far] - r[near] < CLOSE and r[far] < descriptor.cutoff and place < slots + 4:
                yield kind_of(place, slots), sides(atoms, edges, far, r[near])
        for edge in own[np.abs(r[own] - descriptor.cutoff) < CLOSE]:
            yield "a neighbor and the cutoff", sides(atoms, edges, edge, descriptor.cutoff)


def kind_of(place: int, slots: int) -> str:
    if place < 2:
        return "neighbors of the frame"
    if place < slots - 1:
        return "neighbors with coordinates"
    return "the last neighbor with coordinates and the next" if place == slots - 1 else "neighbors with 1/R alone"


def sides(atoms: Atoms, edges: Edges, edge: int, distance: float) -> list[Atoms]:
    """The structure with one edge a little shorter and a little longer than ``distance``."""
    found = []
    vector = edges.vec[edge].numpy()
    length = np.linalg.norm(vector)
    for side in (-SIDE, SIDE):
        moved = atoms.copy()
        moved.positions[edges.neighbor[edge]] += vector * ((distance + side) / length - 1)
        found.append(moved)
    return found


def mirror_images(model) -> float:
    """Root mean square difference of the energies of test structures and their mirror images, meV/atom."""
    calc, found = calculator(model), []
    for frame in read_hdf5(DATA).where(lambda frame: frame.group == "test" and frame.name.startswith("solid-8-")):
        mirrored = frame.atoms.copy()
        mirrored.set_cell(frame.atoms.cell.array * [1, 1, -1])
        mirrored.positions = frame.atoms.positions * [1, 1, -1]
        energies = [calc.get_potential_energy(atoms) / len(atoms) for atoms in (frame.atoms, mirrored)]
        found.append(1000 * (energies[1] - energies[0]))
    return float(np.sqrt(np.mean(np.square(found))))


def path_figure(models: dict, out: Path) -> dict:
    """Picture of energies along a path through an exchange of axes; the jump of each model there, meV."""
    atoms = read_hdf5(DATA).where(lambda frame: frame.name == SIZE).frames[0].atoms
    descriptor = models[LOCAL].descriptor
    edges = Edges.build(System.from_atoms(atoms), descriptor.cutoff)
    r, best = edges.distances.numpy(), (np.inf, 0, 0)
    for center in range(len(atoms)):
        own = np.flatnonzero(edges.center.numpy() == center)
        first, second = own[np.argsort(r[own])][:2]
        best = min(best, (r[second] - r[first], second, first))
    _, moving, other = best
    vector = edges.vec[moving].numpy() / r[moving]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes, found = figure.subplots(1, 2, width_ratios=(3, 2)), {}
    wide, narrow = np.linspace(-0.1, 0.1, 201), np.linspace(-0.01, 0.01, 101)
    for (name, model), color in zip(models.items(), ("C0", "C3")):
        calc = calculator(model)

        def energy(along, calc=calc):
            moved = atoms.copy()
            moved.positions[edges.neighbor[moving]] += vector * (r[other] + along - r[moving])
            return 1000 * calc.get_potential_energy(moved)

        found[name] = abs(energy(SIDE) - energy(-SIDE))
        for axis, path in zip(axes, (wide, narrow)):
            values = np.array([energy(along) for along in path])
            axis.plot(path, values - values[len(path) // 2], ".", ms=2, color=color, label=name)
    for axis in axes:
        axis.axvline(0, color="0.8", zorder=0)
        axis.set_xlabel("difference of the distances (Å)")
    axes[0].set_ylabel("energy of 64 atoms (meV)")
    axes[0].legend(frameon=False)
    figure.savefig(out, dpi=130)
    return found


def report(trained, runs, single, mirrors, path, arguments) -> str:
    frames = trained[SMOOTH]["frames"]
    lines = [
        "# Local frames against the smooth edition: silicon",
        "",
        f"Regenerated by `python benchmarks/local_frames.py FOLDER`: crystals of 8 atoms of `examples/data/silicon.h5`, "
        f"{frames['train']} to train on and {frames['test']} for the test, the same cutoff of 6 Å, "
        f"nets (64, 64), batches of 16 and loss; {arguments.seconds:.0f} s of processor time for the steps of each "
        "training, on one core.",
        "",
        "| descriptor | features | ms per step | steps | energy, test | forces, test | energy, 64 atoms "
        "| forces, 64 atoms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in trained.items():
        cells = [entry["features"], f"{1000 * entry['seconds per step']:.0f}", entry["steps"]]
        for part in ("test", "size"):
            cells += [f"{entry[part]['energy_rmse_meV_per_atom']:.2f}", f"{entry[part]['forces_rmse_meV_per_A']:.0f}"]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "Errors are root mean squares in meV/atom and meV/Å. No setting was tuned; the tests were looked at for this "
        "table, and before in two trial runs, after which nothing was changed.",
        "",
        f"Jumps of {LOCAL} in a cell of 64 atoms at 1200 K, where a neighbor moves along its bond through one change:",
        "",
        "| what exchanges | number | energy, rms (meV) | energy, largest (meV) | largest force, rms (eV/Å) |",
        "|---|---|---|---|---|",
    ]
    for kind, sizes in sorted(single.items(), key=lambda item: -np.mean(np.square(item[1]), axis=0)[0]):
        energy, force = np.array(sizes).T
        lines.append(
            f"| {kind} | {len(sizes)} | {np.sqrt(np.mean(energy**2)):.3g} | {energy.max():.3g} | "
            f"{np.sqrt(np.mean(force**2)):.2g} |"
        )
    lines += [
        "",
        f"![energies along a path]({arguments.out.with_suffix('.png').name})",
        "",
        "A neighbor moves along its bond until the two neighbors that define the frame exchange their places, at 0. "
        f"There the energy of {LOCAL} jumps by {path[LOCAL]:.2g} meV, that of the {SMOOTH} changes by "
        f"{path[SMOOTH]:.1g} meV. The other steps are exchanges of other neighbors.",
        "",
        f"Dynamics at constant energy, 64 atoms, steps of {STEP:g} fs, the second half of {STEPS * STEP / 1000:g} ps:",
        "",
        "| descriptor | temperature (K) | drift of the energy (meV/atom/ps) | its standard deviation (meV/atom) "
        "| change in a step, rms (meV/atom) | changes of places in a step |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in runs.items():
        lines.append(
            f"| {name} | {entry['temperature']:.0f} | {entry['drift']:+.3g} | {entry['spread']:.2g} | "
            f"{entry['per step']:.2g} | {entry['exchanges']:.0f} |"
        )
    lines += [
        "",
        "The energies of test structures and of their mirror images differ by "
        f"{mirrors[LOCAL]:.2g} meV/atom (rms) with {LOCAL}, "
        f"by {mirrors[SMOOTH]:.1g} with the {SMOOTH}.",
    ]
    lines += [
        "",
        f"The {SMOOTH} is therefore the default. Whether more data bring local frames nearer was not measured.",
    ]
    hashes = ", ".join(f"{name} {entry['sha256'][:12]}" for name, entry in trained.items())
    return "\n".join([*lines, "", f"Hashes of the model files: {hashes}.", ""])


if __name__ == "__main__":
    main()
