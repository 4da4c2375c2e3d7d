"""Errors of a model on labelled structures: the table of ``mlelec test`` and of a model's metadata."""

import numpy as np
import torch

from ase_mlelec import units
from ase_mlelec.data.batches import Batches
from ase_mlelec.train.losses import TensorLoss, VectorLoss, centre_errors, energy_and_derivatives, summed_errors

FRAMES_PER_BATCH = 8
# key of the result -> what it is, unit
QUANTITIES = {
    "energy_mae_meV_per_atom": ("energy, mean absolute", "meV/atom"),
    "energy_rmse_meV_per_atom": ("energy, root mean square", "meV/atom"),
    "forces_mae_meV_per_A": ("force component, mean absolute", "meV/Å"),
    "forces_rmse_meV_per_A": ("force component, root mean square", "meV/Å"),
    "stress_rmse_GPa": ("stress component, root mean square", "GPa"),
    "ados_rmse_states_per_eV": ("ADOS, root mean square", "states/eV"),
    "ados_rmse_over_std": ("ADOS, relative to its spread over the atoms", ""),
    "dos_rmse_states_per_eV_per_atom": ("total DOS per atom, root mean square", "states/eV/atom"),
    "atomic_dipole_rmse_A": ("atomic vector component, root mean square", "Å"),
    "summed_dipole_rmse_A": ("sum of the vectors, component, root mean square", "Å"),
    "dipole_rmse_e_A": ("dipole component, root mean square", "e Å"),
    "atomic_polarizability_rmse_A3": ("atomic polarizability component, root mean square", "Å^3"),
    "polarizability_rmse_A3": ("polarizability component, root mean square", "Å^3"),
    "ldos_rmse": ("LDOS, root mean square", "1/(eV Å^3)"),
    "density_mape_percent": ("density, mean absolute percentage", "%"),
    "band_energy_mae_meV_per_atom": ("band energy, mean absolute", "meV/atom"),
    "free_energy_mae_meV_per_atom": ("total free energy, mean absolute", "meV/atom"),
    "hamiltonian_all_mae_meV": ("Hamiltonian elements, mean absolute", "meV"),
    "hamiltonian_all_r2": ("Hamiltonian elements, R2", ""),
    "hamiltonian_all_large_mae_meV": ("elements above 1 meV, mean absolute", "meV"),
    "hamiltonian_onsite_mae_meV": ("on-site elements, mean absolute", "meV"),
    "hamiltonian_onsite_r2": ("on-site elements, R2", ""),
    "hamiltonian_intra_near_mae_meV": ("within layers below 6 Å, mean absolute", "meV"),
    "hamiltonian_intra_near_r2": ("within layers below 6 Å, R2", ""),
    "hamiltonian_intra_long_mae_meV": ("within layers beyond 6 Å, mean absolute", "meV"),
    "hamiltonian_intra_long_r2": ("within layers beyond 6 Å, R2", ""),
    "hamiltonian_inter_mae_meV": ("between layers, mean absolute", "meV"),
    "hamiltonian_inter_r2": ("between layers, R2", ""),
    "hamiltonian_inter_large_mae_meV": ("between layers, elements above 1 meV", "meV"),
    "hamiltonian_inter_near_mae_meV": ("between layers below 6 Å, mean absolute", "meV"),
    "hamiltonian_inter_near_r2": ("between layers below 6 Å, R2", ""),
    "hamiltonian_inter_long_mae_meV": ("between layers beyond 6 Å, mean absolute", "meV"),
    "hamiltonian_inter_long_r2": ("between layers beyond 6 Å, R2", ""),
    "bands_mae_meV": ("all bands on a mesh, mean absolute", "meV"),
    "energy_frames": ("structures with an energy", ""),
    "forces_frames": ("structures with forces", ""),
    "stress_frames": ("structures with a stress", ""),
    "ados_frames": ("structures with an ADOS", ""),
    "dos_frames": ("structures with a DOS", ""),
    "atomic_dipole_frames": ("structures with atomic vectors", ""),
    "summed_dipole_frames": ("structures with a sum of vectors", ""),
    "atomic_polarizability_frames": ("structures with atomic polarizabilities", ""),
    "polarizability_frames": ("structures with a polarizability", ""),
}


def errors(model, frames):
    """Errors of everything that ``model`` predicts and ``frames`` have labels of.

    The spread of the ADOS is the square root of the variance over the atoms of ``frames``, averaged over the energies:
    a model that predicts the mean spectrum for every atom has a relative error of 1.  Vectors and tensors are those of
    the centres alone; tensors are compared with the symmetric part of their labels.  The dipole has an error where the
    model's metadata tell the charge of the electrons.

    Every error is over the structures that have the label.  Where some have not, the number of those that have is there
    too, with keys that end in "_frames".

    Returns dict of float and int, keys as in QUANTITIES.

    Raises ValueError when there is nothing to compare, labels are mis-shaped or on another energy grid, and InputError
    for species that the model does not know.
    """
    names = comparable(model, frames)
    if not names:
        some = [name for name in frames.counts if name not in frames.labels]
        raise ValueError(
            f"got {len(frames)} frames with the labels {', '.join(frames.labels) or 'none'} in common"
            f"{' and ' * bool(some)}{', '.join(some)}{' on some' * bool(some)}, the model predicts "
            f"{', '.join(model.heads)}; give data with labels of these"
        )
    fast = model.for_evaluation()
    batches = Batches.for_model(fast, frames, names)
    energy = [name for name in names if name in ("energy", "forces", "virial")]
    with torch.no_grad():
        result = _energy_errors(fast, batches.with_label(*energy), energy) if energy else {}
        if {"ados", "dos"} & set(names):
            result |= _spectrum_errors(fast, batches.with_label("ados", "dos"))
        for loss in VectorLoss, TensorLoss:
            if set(loss.label.values()) & set(names):
                result |= _centre_errors(fast, batches.with_label(*loss.label.values()), loss)
    return result | _counts(frames, names)


def comparable(model, frames):
    """tuple of str, the labels of some of ``frames`` that ``model`` predicts: sums over atoms are left out where all
    have labels by atom."""
    predicted = {
        "energy": ("energy", "forces", "virial"),
        "dos": ("ados", "dos"),
        **{loss.quantity: tuple(loss.label.values()) for loss in (VectorLoss, TensorLoss)},
    }
    found = []
    for head, names in predicted.items():
        if head in model.heads:
            for name in names:
                of_atoms = names[0] if head != "energy" and name != names[0] else None
                if any(name in frame.labels and of_atoms not in frame.labels for frame in frames):
                    found.append(name)
    return tuple(found)


def _counts(frames, names):
    """dict of int: how many of ``frames`` are behind an error, of those errors that some have no label for.  Errors of
    sums over atoms are also of those with labels by atom."""
    by_atom = {"dos": "ados"} | {loss.label["total"]: loss.label["atomic"] for loss in (VectorLoss, TensorLoss)}
    counts = {
        {"virial": "stress"}.get(name, name): sum(
            bool({name, by_atom.get(name)} & set(frame.labels)) for frame in frames
        )
        for name in names
    }
    return {f"{name}_frames": count for name, count in counts.items() if count < len(frames)}


def _energy_errors(model, batches, labels):
    found = {name: [] for name in labels}
    for batch in batches.all_batches(FRAMES_PER_BATCH):
        here = [name for name in labels if name in batch.labels]
        energy, derivatives = energy_and_derivatives(model, batch, here)
        differences = {name: batch.matching(name, value) - batch.labels[name] for name, value in derivatives.items()}
        if "energy" in here:
            error = batch.matching("energy", energy) - batch.labels["energy"]
            differences["energy"] = error / batch.matching("energy", batch.system.n_atoms)
        if "virial" in here:
            volume = batch.matching("virial", batch.system.volume)[:, None, None]
            differences["virial"] = differences["virial"] / volume / units.GPA
        for name, difference in differences.items():
            found[name].append(difference.double().cpu().numpy())
    found = {name: np.concatenate(parts) for name, parts in found.items()}
    result = {}
    for name, stem in (("energy", "meV_per_atom"), ("forces", "meV_per_A")):
        if name in found:
            result[f"{name}_mae_{stem}"] = 1000 * float(np.abs(found[name]).mean())
            result[f"{name}_rmse_{stem}"] = 1000 * _rms(found[name])
    if "virial" in found:
        result["stress_rmse_GPa"] = _rms(found["virial"])
    return result


def _spectrum_errors(model, batches):
    atomic, total, labels = [], [], []
    for batch in batches.all_batches(FRAMES_PER_BATCH):
        difference, sums, n_atoms = summed_errors(batch, batch.predict(model, "dos"), "ados", "dos")
        if difference is not None:
            atomic.append(difference.double().cpu().numpy())
            labels.append(batch.labels["ados"].double().cpu().numpy())
        total.append((sums / n_atoms[:, None]).double().cpu().numpy())
    result = {}
    if atomic:
        result["ados_rmse_states_per_eV"] = _rms(np.concatenate(atomic))
        spread = float(np.sqrt(np.concatenate(labels).var(axis=0).mean()))
        if spread > 0:  # a single atom has none
            result["ados_rmse_over_std"] = result["ados_rmse_states_per_eV"] / spread
    return result | {"dos_rmse_states_per_eV_per_atom": _rms(np.concatenate(total))}


def _centre_errors(model, batches, loss):
    quantity = loss.quantity
    parts = [centre_errors(model, batch, quantity, loss.label)[:2] for batch in batches.all_batches(FRAMES_PER_BATCH)]
    columns = ([part for part in column if part is not None and len(part)] for column in zip(*parts))
    atomic, total = (_rms(torch.cat(column).double().cpu().numpy()) if column else None for column in columns)
    unit = {"dipole": "A", "polarizability": "A3"}[quantity]
    whole = {"dipole": "summed_dipole", "polarizability": "polarizability"}[quantity]
    result = {f"atomic_{quantity}_rmse_{unit}": atomic} if atomic is not None else {}
    result[f"{whole}_rmse_{unit}"] = total
    charges = set((model.metadata.get("electrons_per_centre") or {}).values())
    if quantity == "dipole" and len(charges) == 1:
        result["dipole_rmse_e_A"] = charges.pop() / model.metadata.get("functions_per_vector", 1) * total
    return result


def _rms(values):
    return float(np.sqrt((values**2).mean()))


def table(columns):
    """Text of a table: one line per quantity, one column per entry of ``columns``, a dict of results of ``errors``."""
    rows = [key for key in QUANTITIES if any(key in result for result in columns.values())]
    width = max(len(QUANTITIES[key][0]) for key in rows)
    lines = [" " * width + "".join(f"{name:>12}" for name in columns)]
    for key in rows:
        title, unit = QUANTITIES[key]
        values = "".join(
            f"{'-':>12}"
            if key not in result
            else f"{result[key]:12d}"
            if key.endswith("_frames")
            else f"{result[key]:12.4g}"
            for result in columns.values()
        )
        lines.append(f"{title:<{width}}{values}  {unit}".rstrip())
    return "\n".join(lines)
