"""The rounds of active learning. Every step leaves a file when it has ended, and is skipped where its file is there.

Files of a round, in the order in which they are made::

    round-00/model.safetensors      trained on the first data and the labels of all rounds before
    round-00/explore/000.traj       frames of a run, with scores
    round-00/selected.traj          structures to label
    round-00/label/000/             folders of the labels
    round-00/labels.h5              the labels
    round-00/summary.json           numbers, report.png their picture
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_mlelec.active.config import ActiveConfig
from ase_mlelec.active.explore import (
    CANDIDATE,
    TRUSTED,
    UNREACHED,
    Judge,
    frames_in_run,
    molecular_dynamics,
    noted,
    number_of_runs,
    read_trajectory,
    run_of,
    write_frames,
)
from ase_mlelec.active.labels import Waiting, label_all, store
from ase_mlelec.active.report import draw
from ase_mlelec.active.rows import informative_rows
from ase_mlelec.active.scores import actual, calculator_of
from ase_mlelec.active.selection import most_informative
from ase_mlelec.active.training import models_of_round, round_config, train_round
from ase_mlelec.atomic_write import FileLock, replacing
from ase_mlelec.bundle import load_model
from ase_mlelec.data.frames import Frames, join, read_all, read_hdf5
from ase_mlelec.data.images import read_images
from ase_mlelec.model import Model
from ase_mlelec.train.recipes.parts import part_of, split
from ase_mlelec.train.recipes.reading import read_checked

MOST_CANDIDATES = 1000  # whose rows are compared; of more, the least certain
FREE = {"stop", "folder"}  # settings that may change between the calls of one run
FREE_OF_LABELS = {"workers", "longest", "minutes"}


def learn(
    config: ActiveConfig, *, label: Callable | None = None, progress: bool = True, rounds: int | None = None
) -> list[dict[str, Any]]:
    """Learn actively until one of the criteria of [stop] holds; an interrupted run goes on.

    The same configuration leads to the same models, wherever it was interrupted.

    Parameters
    ----------
    config : ActiveConfig
    label : callable(atoms, folder) -> ase.Atoms with labels, optional
        Makes the labels, one after the other, in place of what [label] says.
    progress : bool
        Whether lines tell what is done.
    rounds : int, optional
        At most so many rounds in this call.

    Returns
    -------
    list of dict
        A summary of each round; the last says in "ended" why there is no further round. It is "" where ``rounds`` ended
        the call, and begins with "waiting" where labels are to be made by hand.

    Raises
    ------
    ValueError
        For a folder with the rounds of other settings, data without labels, and where all labels of a round fail.
    """
    tell = (lambda text: print(text, flush=True)) if progress else (lambda text: None)
    config.work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(config.work / "rounds")
    try:
        _check_settings(config)
        return _all_rounds(config, label, tell, rounds, progress)
    finally:
        lock.release()


def _all_rounds(config, label, tell, most, progress):
    """Rounds one after the other, until an end; list of summaries."""
    summaries: list[dict] = []
    while True:
        n = len(summaries)
        folder = config.folder_of(n)
        if most is not None and n >= most:
            return summaries
        tell(f"Round {n}: training")
        models = train_round(config, n, progress=progress)
        found = _summary(folder)
        if found is None:
            try:
                found = _round(config, n, models, label, tell)
            except Waiting as waiting:
                tell(str(waiting))
                return [*summaries, {"round": n, "ended": f"waiting: {waiting}"}]
        summaries.append(found)
        ended = _ended(config, summaries)
        tell(_line(config, found))
        if not (folder / "report.png").exists():
            draw(folder / "report.png", config, summaries, _frames_of(folder))
        if ended.startswith(("no ", "share")):
            return _finish(config, summaries, ended, n, tell)
        if ended:  # the last labels are learned, too
            tell(f"Round {n + 1}: training with the last labels")
            train_round(config, n + 1, progress=progress)
            return _finish(config, summaries, ended, n + 1, tell)


def _round(config, n, models, label, tell):
    """One round behind its training: explore, select, label, and count; dict of JSON types."""
    folder = config.folder_of(n)
    loaded = [load_model(path) for path in models]

    def fresh():  # neighbor lists of former structures change the last digits, and chaos makes them large
        return calculator_of(loaded, config.select.quantity, _potential(config))

    frames = explore_round(config, n, fresh, tell)
    selected = folder / "selected.traj"
    if not selected.exists():
        write_frames(selected, select_round(config, n, frames, loaded[0], _room(config, n)))
    images = read_trajectory(selected)
    summary = counted(config, n, frames) | {"selected": len(images), "labels": 0, "pairs": []}
    if images and summary["above"] > config.stop.share and n < config.stop.rounds:
        labels = label_round(config, folder, images, label, tell)
        summary["labels"] = len(labels)
        summary["pairs"] = _pairs(fresh(), config.select.quantity, images, labels)
    summary["errors"] = loaded[0].metadata.get("errors", {})
    with replacing(folder / "summary.json") as partial:
        partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return _summary(folder)


def explore_round(config: ActiveConfig, n: int, fresh: Callable, tell: Callable) -> list[Atoms]:
    """Frames of a round with source, score and state in ``info``; every run is a step that ends with its file.

    ``fresh()`` makes a calculator of the model.
    """
    folder = config.folder_of(n) / "explore"
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Atoms] = []
    given = folder / "given.traj"
    if not given.exists():
        if config.label.pool and config.select.by == "random":  # scores would be the most of the work, and play no part
            images = [noted(atoms, source, 0.0, CANDIDATE) for atoms, source in _given(config)]
        else:
            judge = Judge(config, fresh())
            images = [judge(atoms, source) for atoms, source in _given(config)]
        write_frames(given, images)
    found += read_trajectory(given)
    n_runs = number_of_runs(config)
    starts = starting_structures(config) if n_runs else []
    for k in range(n_runs):
        path = folder / f"{k:03d}.traj"
        if not path.exists():
            run = run_of(config, starts, n, k)
            frames = list(molecular_dynamics(config, run, Judge(config, fresh())))
            write_frames(path, frames)
            tell(f"  run {k} at {run.where}: {len(frames)} of {frames_in_run(config)} frames, {_states(frames)}")
        found += read_trajectory(path)
    return found


def select_round(config: ActiveConfig, n: int, frames: list[Atoms], model: Model, most: int) -> list[Atoms]:
    """At most ``most`` structures to label."""
    if config.select.by == "random":
        usable = [atoms for atoms in frames if atoms.info["state"] in (TRUSTED, CANDIDATE)]
        order = np.random.default_rng([config.seed, n, 1_000_000]).permutation(len(usable))
        return [usable[k] for k in sorted(order[:most])]
    candidates = [atoms for atoms in frames if atoms.info["state"] == CANDIDATE]
    candidates = sorted(candidates, key=lambda atoms: -atoms.info["score"])[:MOST_CANDIDATES]
    if len(candidates) <= most or not most:
        return candidates[:most]
    trusted = [atoms for atoms in frames if atoms.info["state"] == TRUSTED]
    explored = candidates + trusted[:: 1 + len(trusted) // MOST_CANDIDATES]
    rows = informative_rows(model, config.select.quantity, explored, frames_learned(config, n))
    return [candidates[k] for k in most_informative(rows, number=most, among=range(len(candidates)))]


def frames_learned(config: ActiveConfig, n: int) -> Frames:
    """Structures that the models of a round were trained on."""
    training = round_config(config, n)
    return split(read_checked((training.folder / name for name in training.data.files), training), training)["train"]


def label_round(
    config: ActiveConfig, folder: Path, images: list[Atoms], label: Callable | None, tell: Callable
) -> Frames:
    """Labeled frames of the structures, as far as their labels succeeded."""
    path = folder / "labels.h5"
    if not path.exists():
        if config.label.pool and label is None:
            pool = pool_of(config)
            frames = pool.take([int(atoms.info["source"]) for atoms in images])
        else:
            frames = label_all(config, images, folder / "label", function=label, tell=tell)
        group = _group(config)
        for frame in frames:
            frame.group, frame.kind = group, frame.kind or f"active {folder.name}"
        store(path, frames, config.select.quantity)
    return read_hdf5(path)


def starting_structures(config: ActiveConfig) -> list[Atoms]:
    """Structures in which molecular dynamics starts."""
    if config.explore.start:
        return [atoms for name in config.explore.start for atoms in read_images(config.parent / name)]
    training = config.trained
    frames = read_all([training.folder / name for name in training.data.files], keys=training.data.keys.given)
    return [frame.atoms for frame in split(frames, training)["train"]]


def pool_of(config: ActiveConfig) -> Frames:
    """All structures of the pool, without those of test and validation groups."""
    frames = join([read_all([config.parent / name for name in config.label.pool])])
    data = config.trained.data
    return frames.where(lambda frame: part_of(frame, data) not in ("test", "validation", "support"))


def _given(config):
    """Structures that are candidates as they are, with their source: the pool that is left, or files."""
    if config.label.pool:
        pool, used = pool_of(config), set()
        for path in sorted(config.work.glob("round-*/selected.traj")):
            if (path.parent / "labels.h5").exists():
                used |= {int(atoms.info["source"]) for atoms in read_trajectory(path)}
        yield from ((frame.atoms, str(k)) for k, frame in enumerate(pool) if k not in used)
        return
    for name in config.explore.structures:
        yield from ((atoms, f"{name} {k}") for k, atoms in enumerate(read_images(config.parent / name)))


def _group(config):
    """Group of new structures: the first to train on, or none where the first data have no groups."""
    data = config.trained.data
    frames = read_all([config.trained.folder / name for name in data.files], keys=data.keys.given)
    return data.train[0] if any(part_of(frame, data) == "train" for frame in frames) else ""


def _potential(config):
    """Model that moves the atoms where the learned one has no energy."""
    name = config.explore.potential
    path = config.parent / name
    return (str(path) if path.exists() else name) if name else None


def _room(config, n):
    """Labels that may still be made in a round."""
    if n >= config.stop.rounds:
        return 0
    total = config.stop.labels
    if total is None:
        return config.select.number
    return max(min(config.select.number, total - _labels_before(config, n)), 0)


def _labels_before(config, n):
    """Labels that the rounds before one have made."""
    return sum((_summary(config.folder_of(k)) or {}).get("labels", 0) for k in range(n))


def _pairs(calc, quantity, images, labels):
    """Scores of new structures, and the errors of the model that did not know them: list of [score, error]."""
    scores = {atoms.positions.tobytes(): atoms.info["score"] for atoms in images}
    found = []
    for frame in labels:
        error = actual(calc, quantity, frame.atoms, frame.labels)
        known = scores.get(frame.atoms.positions.tobytes())
        if error is not None and known is not None:
            found.append([known, error])
    return found


def counted(config: ActiveConfig, n: int, frames: list[Atoms]) -> dict[str, Any]:
    """Numbers of frames by state, and the share above the lower trust level; dict of JSON types."""
    states = Counter(atoms.info["state"] for atoms in frames)
    runs = number_of_runs(config)
    planned = runs * frames_in_run(config)
    in_runs = sum(1 for atoms in frames if not _is_given(config, atoms))
    states[UNREACHED] = max(planned - in_runs, 0)  # of runs that ended early
    total = sum(states.values())
    return {
        "round": n,
        "states": dict(states),
        "above": 1 - states[TRUSTED] / total if total else 0.0,
        "labels_before": _labels_before(config, n),
    }


def _is_given(config, atoms):
    return bool(config.label.pool) or any(atoms.info["source"].startswith(f"{n} ") for n in config.explore.structures)


def _ended(config, summaries):
    """Why there is no further round, or ""."""
    last, stop = summaries[-1], config.stop
    if not sum(last["states"].values()):
        return "no structures are left"
    if last["above"] <= stop.share:
        return f"share of frames above the lower trust level, {100 * last['above']:.2g} %, is small enough"
    if len(summaries) > stop.rounds:
        return "no more rounds than stop.rounds"
    if not last["selected"]:
        return "no explored frame lies between the trust levels; see the report, and change them or the runs"
    if stop.labels is not None and sum(each["labels"] for each in summaries) >= stop.labels:
        return "all labels of stop.labels are made"
    return ""


def _finish(config, summaries, ended, n, tell):
    """Put the last model at the place that the training names; summaries, whose last one says why it ended."""
    summaries[-1]["ended"] = ended
    target = config.trained.folder / config.trained.output.model
    for path in models_of_round(config, n):
        name = path.name.replace("model", target.stem, 1)
        with replacing(target.with_name(name)) as partial:
            shutil.copyfile(path, partial)
    tell(f"Ended: {ended}. Model: {target}")
    return summaries


def _summary(folder):
    """The summary of a round that has ended, or None."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _frames_of(folder):
    """All frames of a round."""
    return [atoms for path in sorted((folder / "explore").glob("*.traj")) for atoms in read_trajectory(path)]


def _states(frames: Sequence[Atoms]) -> str:
    """Numbers of frames by state, in words."""
    return ", ".join(f"{count} {state}" for state, count in Counter(atoms.info["state"] for atoms in frames).items())


def _line(config, summary):
    """One line about a round."""
    states = ", ".join(f"{count} {state}" for state, count in summary["states"].items() if count)
    return (
        f"Round {summary['round']}: {states}; {100 * summary['above']:.3g} % above {config.select.low:g}; "
        f"{summary['labels']} of {summary['selected']} selected structures labeled"
    )


def _check_settings(config):
    """Raise ValueError where the folder has rounds of other settings."""
    settings = config.model_dump(mode="json", exclude=FREE)
    settings["label"] = {key: value for key, value in settings["label"].items() if key not in FREE_OF_LABELS}
    settings["trained"] = config.trained.model_dump(mode="json", exclude={"output"})
    path = config.work / "settings.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key in settings if settings[key] != known.get(key)]
        if different:
            raise ValueError(
                f"{config.work}: has rounds with other settings of {', '.join(different)}; give them back, or name "
                "another folder"
            )
        return
    with replacing(path) as partial:
        partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
