"""Spectra, dipoles and polarizabilities with no setting at all, beside gradient descent and the shipped models.

    python benchmarks/spectra_defaults.py ../shared/reference/deepmd

Every set is trained by a configuration that names its data and a section, such as [dos], and nothing else.  Columns:

- closed form: the default, a drawn net whose ridge and weights are chosen by cross-validation on the training frames;
- cross-validation: the error that it expects, from the training frames alone;
- descent: the default before, gradient descent with the settings that `drawn = 0` leaves;
- other: a shipped model, or settings chosen by hand, where there are any.

The rows are kept in spectra_defaults.json and written to SPECTRA_DEFAULTS.md beside this file.  `--only` runs some sets
and keeps the rows of the others, `--descent` runs the descent as well, which takes minutes for each set.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ase_mlelec import load_model
from ase_mlelec.data.frames import read_frames, write_hdf5
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.recipe import train

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples" / "data"
STORE, TABLE = HERE / "spectra_defaults.json", HERE / "SPECTRA_DEFAULTS.md"
ADOS, DOS = "ados_rmse_states_per_eV", "dos_rmse_states_per_eV_per_atom"
VECTOR, DIPOLE = "atomic_dipole_rmse_A", "summed_dipole_rmse_A"
TENSOR, TOTAL = "atomic_polarizability_rmse_A3", "polarizability_rmse_A3"
PAIRS = ((6, 7), (0, 1), (3, 4))  # frames of heat-221 held back, as in DEEPMD_DOS.md
BY_HAND = {(6, 7): 0.0416, (0, 1): 0.0473, (3, 4): 0.0463}  # DEEPMD_DOS.md, one model
EXPECTED = {  # label of an error in cross-validation
    ADOS: "ados_per_eV",
    DOS: "dos_per_atom_eV",
    VECTOR: "atomic_A",
    DIPOLE: "total_A_per_center",
    TENSOR: "atomic_A3",
    TOTAL: "total_A3_per_center",
}


def parted(frames, is_test):
    """The frames with the groups train and test."""
    groups = ("test" if is_test(k, frame) else "train" for k, frame in enumerate(frames))
    return replace(frames, frames=[replace(frame, group=group) for frame, group in zip(frames, groups)])


def of_group(frame):
    return frame.group == "test"


def heat(folder, held):
    frames = read_frames(Path(folder) / "dos" / "heat-221")
    # the files hold no energies; the grid matters for nothing here
    frames = replace(frames, energies=np.arange(frames[0].labels["ados"].shape[1], dtype=float))
    return parted(frames, lambda k, frame: k in held)


def last_fifth(folder, *names):
    frames = read_frames(Path(folder).joinpath(*names))
    return parted(frames, lambda k, frame: k >= len(frames) * 4 // 5)


def own(name):
    frames = read_frames(EXAMPLES / name).select("train", "validation", "test")
    return parted(frames, lambda k, frame: of_group(frame))


def sets(folder):
    """Sets by name: (function that reads the frames, section, keys of errors, shipped model or numbers of others)."""
    found = {
        f"heat-221 without {', '.join(map(str, held))}": (lambda held=held: heat(folder, held), "dos", (ADOS, DOS), {
            ADOS: BY_HAND[held]
        })
        for held in PAIRS
    }  # fmt: skip
    return found | {
        "mgo.h5": (lambda: own("mgo.h5"), "dos", (ADOS, DOS), {}),
        "silicon.h5": (lambda: own("silicon.h5"), "dos", (ADOS, DOS), "si"),
        "ice.h5": (lambda: own("ice.h5"), "dipole", (VECTOR, DIPOLE), "ice"),
        "water, vectors": (
            lambda: last_fifth(folder, "dipole", "atomic_system"),
            "dipole",
            (VECTOR, DIPOLE),
            {VECTOR: 0.0218},  # DEEPMD_DIPOLE.md
        ),
        "water, tensors": (
            lambda: last_fifth(folder, "polar", "atomic_system"),
            "polarizability",
            (TENSOR, TOTAL),
            {TENSOR: 0.1030, TOTAL: 0.8679},  # DEEPMD_DIPOLE.md
        ),
        "water, polarizability alone": (
            lambda: last_fifth(folder, "polar", "global_system"),
            "polarizability",
            (TOTAL,),
            {},
        ),
    }


def trained(frames, section, settings, progress=False):
    """(Model, seconds of the processor)"""
    with tempfile.TemporaryDirectory() as folder:
        write_hdf5(Path(folder) / "data.h5", frames)
        tables = {
            "data": {"files": ["data.h5"], "validation_fraction": 0.0},
            section: settings,
            "output": {"model": "m.safetensors"},
        }
        start = time.process_time()
        return train(parse_config(tables, folder), progress), time.process_time() - start


def spread(frames, keys):
    """Errors of a model that predicts the means of the training labels, by key."""
    labels = {ADOS: "ados", VECTOR: "atomic_dipole", TENSOR: "atomic_polarizability", TOTAL: "polarizability"}
    found = {}
    for key in keys:
        label = labels.get(key)
        if label is None or label not in frames.counts:
            continue
        train_rows, test_rows = (
            np.concatenate([_rows(frame, label) for frame in frames if frame.group == group and label in frame.labels])
            for group in ("train", "test")
        )
        found[key] = float(np.sqrt(np.mean((test_rows - train_rows.mean(axis=0)) ** 2)))
    return found


def _rows(frame, label):
    values = np.asarray(frame.labels[label])
    if label == "polarizability":
        return values[None]
    return values if label == "ados" else values[frame.atoms.numbers == 8]


def row_of(name, make, section, keys, other, descent):
    """Results of one set, dict of columns."""
    frames = make()
    test = frames.select("test")
    model, seconds = trained(frames, section, {}, True)
    chosen = model.metadata["training"]["closed_form"][section]
    found = errors(model, test)
    row = {
        "section": section,
        "train": len(frames) - len(test),
        "test": len(test),
        "seconds": seconds,
        "ridge": chosen["ridge"],
        "total": chosen["weights"].get("total", 0.0),
        "expected": {key: chosen["cross_validation"].get(EXPECTED[key]) for key in keys},
        "closed form": {key: found[key] for key in keys},
        "mean": spread(frames, keys),
    }
    if isinstance(other, str):
        known = errors(load_model(other), test)
        other = {key: known[key] for key in keys}
    row["other"] = other
    if descent:
        centers = {} if section == "dos" else {"centers": ["O"]}
        model, row["descent seconds"] = trained(frames, section, {"drawn": 0, **centers})
        found = errors(model, test)
        row["descent"] = {key: found[key] for key in keys}
    print(name, row, flush=True)
    return row


def table(rows):
    lines = [
        "# Spectra, dipoles and polarizabilities without a setting",
        "",
        "Regenerated by `python benchmarks/spectra_defaults.py DATA --descent`, whose text explains the columns.",
        "Root mean square errors on frames held back; a dash: not run, or not there. CPU seconds, one thread. Constants",
        "were chosen by cross-validation, also on frames of heat-221 held back here; the test of ice.h5 was seen twice.",
        "",
        "| set | error of | training, test frames | closed form | cross-validation | descent | other | mean of the labels | "
        "s | s, descent |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        for key in row["closed form"]:
            cells = [row.get(column, {}).get(key) for column in ("closed form", "expected", "descent", "other", "mean")]
            if key in (DIPOLE, TOTAL):
                cells[1] = None  # per center there
            times = [row["seconds"], row.get("descent seconds")]
            shown = ["-" if cell is None else f"{cell:.4g}" for cell in cells]
            shown += ["-" if cell is None else f"{cell:.0f}" for cell in times]
            lines.append(f"| {name} | {key} | {row['train']}, {row['test']} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with dos, dipole and polar of deepmd-kit's examples")
    parser.add_argument("--only", nargs="+", help="begin of the names of some sets")
    parser.add_argument("--descent", action="store_true")
    arguments = parser.parse_args()
    rows = json.loads(STORE.read_text()) if arguments.only and STORE.exists() else {}
    chosen = sets(arguments.data)
    for name, settings in chosen.items():
        if not arguments.only or name.startswith(tuple(arguments.only)):
            new = row_of(name, *settings, arguments.descent)
            rows[name] = {column: rows.get(name, {}).get(column) for column in ("descent", "descent seconds")} | new
            rows[name] = {column: value for column, value in rows[name].items() if value is not None}
            rows = {each: rows[each] for each in chosen if each in rows}
            STORE.write_text(json.dumps(rows, indent=1) + "\n")
            TABLE.write_text(table(rows))
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
