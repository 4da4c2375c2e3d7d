"""Errors of a model on labelled structures: the table of ``mlelec test`` and of a model's metadata."""
import numpy as np
import torch

from ase_mlelec import units
from ase_mlelec.train.frames import Batches
from ase_mlelec.train.losses import TensorLoss, VectorLoss, centre_errors, energy_and_derivatives

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
}


def errors(model, frames):
    """Errors of everything that ``model`` predicts and ``frames`` have labels of.

    The spread of the ADOS is the square root of the variance over the atoms of ``frames``, averaged over the energies:
    a model that predicts the mean spectrum for every atom has a relative error of 1.  Vectors and tensors are those of
    the centres alone; tensors are compared with the symmetric part of their labels.  The dipole has an error where the
    model's metadata tell the charge of the electrons.

    Returns dict of float, keys as in QUANTITIES.

    Raises ValueError when there is nothing to compare, labels are mis-shaped or on another energy grid, and InputError
    for species that the model does not know.
    """
    energy = [name for name in ("energy", "forces", "virial") if name in frames.labels and "energy" in model.heads]
    spectra = [name for name in ("ados", "dos") if name in frames.labels and "dos" in model.heads][:1]
    centred = {loss.quantity: name for loss in (VectorLoss, TensorLoss) if loss.quantity in model.heads
               for name in reversed(loss.label.values()) if name in frames.labels}
    if not energy + spectra + list(centred):
        raise ValueError(f"got {len(frames)} frames with the labels {', '.join(frames.labels) or 'none'} in common, "
                         f"the model predicts {', '.join(model.heads)}; give data with labels of these")
    fast = model.for_evaluation()
    batches = Batches.for_model(fast, frames, tuple([*energy, *spectra, *centred.values()]))
    with torch.no_grad():
        result = _energy_errors(fast, batches, energy) if energy else {}
        result |= _spectrum_errors(fast, batches, spectra[0]) if spectra else {}
        for quantity, label in centred.items():
            result |= _centre_errors(fast, batches, quantity, label)
    return result


def _energy_errors(model, batches, labels):
    found = {name: [] for name in labels}
    for batch in batches.all_batches(FRAMES_PER_BATCH):
        energy, derivatives = energy_and_derivatives(model, batch, labels)
        differences = {name: value - batch.labels[name] for name, value in derivatives.items()}
        if "energy" in labels:
            differences["energy"] = (energy - batch.labels["energy"]) / batch.system.n_atoms
        if "virial" in labels:
            differences["virial"] = differences["virial"] / batch.system.volume[:, None, None] / units.GPA
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


def _spectrum_errors(model, batches, label):
    atomic, total, labels = [], [], []
    for batch in batches.all_batches(FRAMES_PER_BATCH):
        system, prediction, truth = batch.system, batch.predict(model, "dos"), batch.labels[label]
        if label == "ados":
            atomic.append((prediction - truth).double().cpu().numpy())
            labels.append(truth.double().cpu().numpy())
            truth = system.sum_per_system(truth)
        difference = (system.sum_per_system(prediction) - truth) / system.n_atoms[:, None]
        total.append(difference.double().cpu().numpy())
    result = {}
    if label == "ados":
        result["ados_rmse_states_per_eV"] = _rms(np.concatenate(atomic))
        spread = float(np.sqrt(np.concatenate(labels).var(axis=0).mean()))
        if spread > 0:      # a single atom has none
            result["ados_rmse_over_std"] = result["ados_rmse_states_per_eV"] / spread
    return result | {"dos_rmse_states_per_eV_per_atom": _rms(np.concatenate(total))}


def _centre_errors(model, batches, quantity, label):
    parts = [centre_errors(model, batch, quantity, label) for batch in batches.all_batches(FRAMES_PER_BATCH)]
    atomic, total = (None if column[0] is None else _rms(torch.cat(column).double().cpu().numpy())
                     for column in zip(*parts))
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
        values = "".join(f"{result[key]:12.4g}" if key in result else f"{'-':>12}" for result in columns.values())
        lines.append(f"{title:<{width}}{values}  {unit}".rstrip())
    return "\n".join(lines)
