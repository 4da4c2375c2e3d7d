"""What active learning will cost, before it starts."""

import time

from ase_mlelec.active.config import ActiveConfig
from ase_mlelec.active.explore import conditions, frames_in_run, number_of_runs
from ase_mlelec.active.rounds import pool_of, starting_structures
from ase_mlelec.active.scores import calculator_of, score
from ase_mlelec.active.training import is_warm, models_of_round
from ase_mlelec.bundle import load_model
from ase_mlelec.data.frames import read_all
from ase_mlelec.train.recipes.parts import split

PER_ATOM = 1e-3  # s for energy and forces of an atom on one core, where no model can be timed
BARS = 20  # error bars cost as much as so many energies with forces


def estimate(config: ActiveConfig) -> str:
    """Lines on what will be done, at most, and how long it takes; nothing is written."""
    training, explore, label = config.trained, config.explore, config.label
    frames = read_all([training.folder / name for name in training.data.files], keys=training.data.keys.given)
    parts = split(frames, training)
    counts = ", ".join(f"{len(part)} {name}" for name, part in parts.items() if len(part))
    total = config.stop.rounds * config.select.number
    total = total if config.stop.labels is None else min(total, config.stop.labels)
    way = "from the model before" if is_warm(config) else "anew"
    lines = [
        f"training     {config.training}: {counts} structures to start with; each round {way}",
        _of_exploration(config),
        f"selection    by {config.select.quantity}: trusted to {config.select.low:g}, labeled to "
        f"{config.select.highest:g}; {config.select.number} in a round",
        f"labels       by {label.way}: {total} at most",
        f"end          {100 * config.stop.share:g} % of the frames above {config.select.low:g}, or "
        f"{config.stop.rounds} rounds" + ("" if config.stop.labels is None else f", or {config.stop.labels} labels"),
    ]
    if label.minutes and not label.pool:
        hours = total * label.minutes / label.workers / 60
        lines[3] += f", {hours:.3g} hours with {label.workers} at a time"
    if number_of_runs(config):
        starts = starting_structures(config)
        n_atoms = sum(map(len, starts)) / len(starts)
        seconds, how = seconds_of_step(config, starts[0])
        evaluations = number_of_runs(config) * (explore.steps + BARS * frames_in_run(config))
        lines[1] += f"; about {evaluations * seconds * n_atoms / 60:.2g} minutes a round {how}"
    return "\n".join(lines)


def _of_exploration(config):
    """Line on runs and structures."""
    explore, parts = config.explore, []
    if config.label.pool:
        return f"exploration  {len(pool_of(config))} structures of the pool"
    if number_of_runs(config):
        time_ps = explore.steps * explore.timestep / 1000
        parts.append(
            f"{number_of_runs(config)} runs of {time_ps:g} ps a round at {len(conditions(config))} conditions, "
            f"{number_of_runs(config) * frames_in_run(config)} frames"
        )
    if explore.structures:
        parts.append(f"structures of {', '.join(explore.structures)}")
    return f"exploration  {' and '.join(parts)}"


def seconds_of_step(config: ActiveConfig, atoms) -> tuple[float, str]:
    """Seconds for each atom of a step of molecular dynamics, and how this is known."""
    path = models_of_round(config, 0)[0]
    if not path.exists():
        return PER_ATOM, "(1 ms for each atom and step; known better when there is a model)"
    calc = calculator_of([load_model(path)], config.select.quantity, config.explore.potential or None)
    atoms = atoms.copy()
    score(calc, config.select.quantity, atoms)
    best = float("inf")
    for k in range(3):
        atoms.rattle(0.01, seed=k)
        began = time.perf_counter()
        calc.get_property("forces", atoms)
        best = min(best, time.perf_counter() - began)
    return best / len(atoms), "(measured)"
