"""The recipe behind ``mlelec train``: from a configuration and data sets to a model file with its provenance."""
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version

import numpy as np
import torch

from ase_mlelec.bundle import load_model
from ase_mlelec.descriptors import Bispectrum, DeepPotSE, LocalFrame, PowerSpectrum
from ase_mlelec.edges import Edges
from ase_mlelec.heads import LDOSHead, PairHead, ScalarHead, SpectrumHead, TensorHead, VectorHead
from ase_mlelec.io.frames import join, read_frames
from ase_mlelec.io.snapshots import Snapshots
from ase_mlelec.model import Model
from ase_mlelec.physics import fermi
from ase_mlelec.system import System
from ase_mlelec.train.config import OutputConfig
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.fit import fit, standardise, standardise_heads
from ase_mlelec.train.hamiltonian import (distance_ranges, fit_hamiltonian, frame_functions, hamiltonian_errors,
                                          prepare)
from ase_mlelec.train.hamiltonian_closed_form import refit_hopping, refit_onsite, standardise_hamiltonian
from ase_mlelec.train.hamiltonian_data import Hamiltonians, is_hamiltonians
from ase_mlelec.train.ldos import GridData, LDOSLoss, fit_ldos, fit_zero, mean_ldos_errors, standardise_ldos
from ase_mlelec.train.ldos_forces import ForceData, check_densities, refit_with_labels
from ase_mlelec.train.linear import fit_linear
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss, TensorLoss, VectorLoss

COPIED = ("dos_width_eV", "energy_reference", "valence_electrons", "valence_charges", "electrons_per_centre",
          "functions_per_vector", "settings")      # attributes of the data
PACKAGES = ("ase-mlelec", "torch", "numpy", "ase")


def train(config, progress=True):
    """Train a model as ``config`` (a Config) says, save it, and return it.

    First the descriptor with the first head, of energy, dos, dipole and polarizability, then the others on the
    descriptor as it is then.  Checkpoints and learning curves are next to the output: the same call after an
    interruption goes on where the last checkpoint was.  The checkpoints are removed when the model is saved.

    Returns Model; ``metadata["errors"]`` has the errors on the held-out frames, ``metadata["training"]`` where the
    model comes from.  With a committee: list of Model.

    Raises ValueError for data that do not fit the configuration, and for checkpoints of another one.
    """
    models = [model for _, model in train_members(config, progress)]
    return models if config.committee > 1 else models[0]


def train_members(config, progress=True):
    """``train``, one model of the committee after the other: iterator over (Config of the member, Model)."""
    stem = config.output.model.removesuffix(".safetensors")
    cache = (config.folder / config.output.model).with_suffix(".fingerprints.h5")       # the same for all members
    members = [config] if config.committee == 1 else [
        replace(config, committee=1, seed=config.seed + k, output=OutputConfig(f"{stem}-{k}.safetensors"))
        for k in range(config.committee)]
    for member in members:
        if config.ldos:
            yield member, train_ldos(member, cache, progress)
        elif config.hamiltonian:
            yield member, train_hamiltonian(member, progress)
        else:
            yield member, train_frames(member, progress)
    cache.unlink(missing_ok=True)


def train_frames(config, progress=True):
    """``train`` for one model of energies, dos, dipoles and polarizabilities."""
    parts = split(join(read_frames(config.folder / name) for name in config.data.files), config)
    # what cannot be described is found out before the training, not after it
    described = describe(parts["train"], config)
    model = _new_model(parts["train"], config)
    (config.folder / config.output.model).parent.mkdir(parents=True, exist_ok=True)
    checkpoints = []
    if config.energy:
        checkpoints.append(_train_energy(model, parts, config, progress))
    if config.dos:
        checkpoints.append(_train_dos(model, parts, config, progress))
    for name, head, loss in ("dipole", VectorHead, VectorLoss), ("polarizability", TensorHead, TensorLoss):
        if getattr(config, name):
            checkpoints.append(_train_centres(model, name, head, loss, parts, config, progress))
    model.cpu()
    model.metadata = described      # the error of a dipole depends on the charges
    held_out = {name: errors(model, part) for name, part in parts.items() if name != "train" and len(part)}
    model.metadata = described | {"errors": held_out, "training": _provenance(parts, config)}
    model.save(config.folder / config.output.model)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def train_ldos(config, cache, progress=True):
    """``train`` for a local density of states: fingerprints of all grid points, gradient descent, refit, errors.

    cache : path of the HDF5 file of fingerprints, which is left
    """
    snapshots = _snapshots(config)
    output = config.folder / config.output.model
    output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = output.with_suffix(".ldos.checkpoint")
    groups = {"train": ("", *config.data.train), "validation": config.data.validation, "test": config.data.test}
    chosen = {name: snapshots.select(*of_part) for name, of_part in groups.items()}
    if not len(chosen["train"]):
        raise ValueError(f"got {len(snapshots)} snapshots of the groups {', '.join(sorted(set(snapshots.groups)))}, "
                         f"none of them to train on; name groups in data.train, now {', '.join(config.data.train)}")
    model = new_ldos_model(snapshots, fit_zero(chosen["train"]), config)
    parts = {name: GridData(part, model.descriptor, cache, progress, model.heads["ldos"].zero)
             for name, part in chosen.items()}
    fit_ldos_model(model, parts["train"], parts["validation"], config, checkpoint, output.with_suffix(".ldos.csv"),
                   progress)
    held_out = {name: mean_ldos_errors(model, part) for name, part in parts.items() if name != "train" and len(part)}
    model.metadata = describe_ldos(snapshots) | {
        "errors": held_out,
        "training": _provenance({name: part.snapshots for name, part in parts.items()}, config)}
    model.save(output)
    checkpoint.unlink(missing_ok=True)
    return model.eval()


def train_hamiltonian(config, progress=True):
    """``train`` for a Hamiltonian, after the energy where that is wanted: of the same data, and of other files."""
    data, others = _hamiltonians(config)
    options = config.hamiltonian
    parts = {name: data.select(*getattr(config.data, name)) for name in ("train", "validation", "test")}
    if not len(parts["train"]):
        raise ValueError(f"got {len(data)} frames of the groups {', '.join(sorted(set(data.groups)))}, none of them to "
                         f"train on; name groups in data.train, now {', '.join(config.data.train)}")
    output = config.folder / config.output.model
    output.parent.mkdir(parents=True, exist_ok=True)
    head = _hamiltonian_head(parts["train"], config)
    checkpoints, held_out, sources = [], {}, dict(parts)
    model = Model(LocalFrame(**head.local.arguments()).double(), {})
    if config.energy:
        more = {name: others.select(lambda frame, chosen=getattr(config.data, name): frame.group in chosen)
                for name in parts}
        own = data.path.resolve() not in _coarse_paths(config)
        frames = {name: join([part.frames(), more[name]]) if own else more[name] for name, part in parts.items()}
        if not len(frames["train"]):
            raise ValueError(f"{data.path}: got no energies and forces to train on; leave out [energy], or name a file "
                             "that has them in data.files")
        sources.update({f"{name}, energies only": part for name, part in more.items() if len(part)})
        model = _new_model(frames["train"], config)
        checkpoints.append(_train_energy(model, frames, config, progress))
        model.cpu()
        held_out = {name: errors(model, part) for name, part in frames.items() if name != "train" and len(part)}
    electrons = data.attributes.get("electrons_per_atom", {})
    items = {name: [prepare(head, frame, sum(electrons.get(symbol, 0) for symbol in frame.atoms.symbols))
                    for frame in parts[name]] for name in ("train", "validation")}
    ranges = distance_ranges(head, items["train"], config.start and _start(config).metadata["nearest_distances_A"])
    if config.start:
        refit_onsite(head, items["train"])
        refit_hopping(head, items["train"])
    else:
        standardise_hamiltonian(head, items["train"])
    model.heads["hamiltonian"] = head
    checkpoints.append(_checkpoint(config, "hamiltonian"))
    fit_hamiltonian(model, items["train"], validation=items["validation"], steps=options.steps,
                    batch_size=options.batch_size, learning_rate=options.learning_rate, weights=options.weights,
                    seed=config.seed, checkpoint=checkpoints[-1], curve=output.with_suffix(".hamiltonian.csv"),
                    fingerprint=parts["train"].fingerprint(), progress=progress)
    for name in ("validation", "test"):
        if len(parts[name]):
            held_out[name] = held_out.get(name, {}) | hamiltonian_errors(model, parts[name])
    described = {name: data.attributes[name] for name in ("electrons_per_atom", "energy_reference", "settings")
                 if name in data.attributes}
    model.metadata = described | {"nearest_distances_A": ranges, "errors": held_out,
                                  "training": _provenance(sources, config)}
    shortest = shortest_distance(parts["train"], 6.0)
    if shortest is not None:
        model.metadata["shortest_distance_A"] = shortest
    model.save(output)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def _hamiltonians(config):
    """(Hamiltonians, Frames with energies and forces of all other files)"""
    paths = [config.folder / name for name in config.data.files]
    whole = [path for path in paths if is_hamiltonians(path)] or paths[:1]
    if len(whole) > 1 or (len(paths) > 1 and config.energy is None):
        raise ValueError(f"data.files: got {len(whole)} files of Hamiltonians and {len(paths) - len(whole)} others, "
                         "need one file of Hamiltonians for [hamiltonian], and others only with [energy]")
    return Hamiltonians(whole[0]), join(read_frames(path) for path in paths if path not in whole)


def _hamiltonian_head(frames, config):
    """PairHead for the functions of ``frames``, or that of the model that training starts from."""
    options = config.hamiltonian
    if config.start:
        head = _start(config, "hamiltonian").heads["hamiltonian"].double().requires_grad_(True).train()
        theirs = dict(cutoff=head.cutoff, environment=head.local.cutoff, n_radial=head.local.n_radial,
                      spectrum=head.spectrum.cutoff if head.spectrum else 0.0, third=head.third, widths=head.widths)
        _check_same("hamiltonian", {name: getattr(options, name) for name in theirs}, theirs)
        return head
    species, fold, functions, areas = frame_functions(frames)
    frame = dict(species=species, cutoff=options.environment, fold=fold, n_radial=options.n_radial)
    spectrum = dict(cutoff=options.spectrum, inner=_inner(frames), n_radial=4) if options.spectrum else None
    with _seeded(config.seed):
        return PairHead(functions, frame, options.cutoff, options.widths, reference_areas=areas,
                        spectrum=spectrum, third=options.third).double()


def _inner(frames):
    """Where the radial functions of a power spectrum begin, Å: a little below the shortest distance."""
    shortest = shortest_distance(frames, 6.0)
    if shortest is None:
        raise ValueError("got no atoms within 6 Å of each other, from which a power spectrum takes where it begins; "
                         "give power_spectrum.inner")
    return round(0.9 * shortest, 3)


def fit_ldos_model(model, data, validation, config, checkpoint=None, curve=None, progress=True):
    """Train a new model of the LDOS in place: descent and the refits that ``config`` (Config) asks for.

    data, validation : GridData; checkpoint, curve : paths, as in ase_mlelec.train.ldos.fit_ldos

    Raises ValueError for snapshots without the forces or densities that ``config`` gives a weight.
    """
    options, head = config.ldos, model.heads["ldos"]
    forces = ForceData(data.snapshots, model.descriptor, data.cache, progress) if options.force_weight else None
    if options.energy_weight:
        check_densities(data.snapshots)
    model.float()       # the fingerprints are computed in double precision, and kept in single
    standardise_ldos(head, data, options.scaling, options.fingerprints)
    loss = LDOSLoss(options.ldos, options.density, options.dos, options.band_energy)
    fit_ldos(model, data, loss, validation=validation, epochs=options.epochs, batch_size=options.batch_size,
             batch_points=options.batch_points, learning_rate=options.learning_rate, schedule=options.schedule,
             patience=options.patience, dos_weight=options.dos_weight, hold=options.hold, seed=config.seed,
             checkpoint=checkpoint, curve=curve, progress=progress)
    if options.force_weight or options.energy_weight:
        refit_with_labels(head, data, forces, options.force_weight, options.energy_weight, options.dos_weight,
                          options.hold, progress)


def _snapshots(config):
    if len(config.data.files) != 1:
        raise ValueError(f"data.files: got {len(config.data.files)} files, need one file of snapshots for [ldos]")
    snapshots = Snapshots(config.folder / config.data.files[0])
    missing = [key for key in ("valence_electrons", "xc", "grid_spacing_A") if key not in snapshots.attributes]
    if missing:
        raise ValueError(f"{snapshots.path}: no '{missing[0]}' in its attributes; write it with write_snapshots")
    return snapshots


def describe_ldos(snapshots):
    """dict of JSON types: what an LDOS model has to tell; at several electronic temperatures, the lowest is its own."""
    described = {name: snapshots.attributes[name] for name in (*COPIED, "xc", "grid_spacing_A", "core_charges")
                 if name in snapshots.attributes}
    training = list(snapshots)
    shortest = [shortest_distance([snapshot], 6.0) for snapshot in training]
    described["shortest_distance_A"] = min(distance for distance in shortest if distance is not None)
    described["electronic_temperature_K"] = min(snapshot.temperature for snapshot in training)
    return described


def new_ldos_model(snapshots, zero, config):
    """Untrained Model for the species and energies of ``snapshots``, with an EnergyZero."""
    species = sorted({symbol for snapshot in snapshots for symbol in snapshot.atoms.get_chemical_symbols()})
    descriptor = Bispectrum(species, **asdict(config.bispectrum)).double()
    with _seeded(config.seed):
        head = LDOSHead(descriptor.n_features, snapshots.energies, config.ldos.widths, config.ldos.activation, zero,
                        descriptor.n_sums)
    return Model(descriptor, {"ldos": head})


def split(frames, config):
    """dict of Frames: train, validation and test, by group or at random (see DataConfig).

    Raises ValueError when nothing is left to train on.
    """
    data = config.data
    training = frames.select(lambda frame: not frame.group or frame.group in data.train)
    held = frames.select(lambda frame: frame.group in data.validation)
    test = frames.select(lambda frame: frame.group in data.test)
    if not len(held):
        order = np.random.default_rng(config.seed).permutation(len(training))
        chosen = set(order[:round(data.validation_fraction * len(training))].tolist())
        held = replace(training, frames=[frame for i, frame in enumerate(training) if i in chosen])
        training = replace(training, frames=[frame for i, frame in enumerate(training) if i not in chosen])
    if not len(training):
        groups = sorted({frame.group for frame in frames})
        raise ValueError(f"got {len(frames)} frames of the groups {', '.join(groups) or 'none'}, none of them to train "
                         f"on; name groups in data.train, now {', '.join(data.train)}")
    return {"train": training, "validation": held, "test": test}


def describe(frames, config):
    """dict of JSON types: what a model trained on ``frames`` has to tell about its numbers."""
    described = {name: frames.attributes[name] for name in COPIED if name in frames.attributes}
    shortest = shortest_distance(frames, config.cutoff)
    if shortest is not None:
        described["shortest_distance_A"] = shortest
    temperature = frames.attributes.get("settings", {}).get("electronic_temperature_K")
    if temperature is not None:
        described["electronic_temperature_K"] = temperature
    valence = frames.attributes.get("valence_electrons")
    if config.dipole:
        described.update(wannier_charges(frames, config.dipole.centers))
    if config.dos and valence and frames.energies is not None and {"ados", "dos"} <= set(frames.labels):
        described["electrons_in_dos"] = electrons_in_dos(frames, valence, temperature or 0.0)
    return described


def wannier_charges(frames, centers):
    """dict of valence_charges and electrons_per_centre, by symbol in e, as far as the attributes of the data tell.

    Structures are neutral: with one species of centres, the electrons of all atoms divided by the centres are theirs.
    """
    known = frames.attributes
    charges = known.get("valence_charges") or known.get("valence_electrons")
    if not charges:
        return {}
    found = {"valence_charges": charges}
    if "electrons_per_centre" not in known and len(centers) == 1:
        symbols = [frame.atoms.get_chemical_symbols() for frame in frames]
        shares = {sum(charges[s] for s in each) / each.count(centers[0]) for each in symbols if centers[0] in each}
        if len(shares) == 1:
            found["electrons_per_centre"] = {centers[0]: float(shares.pop())}
    return found


def shortest_distance(frames, cutoff):
    """The shortest distance of two atoms, Å, or None where none are within ``cutoff``."""
    edges = (Edges.build(System.from_atoms(frame.atoms), cutoff) for frame in frames)
    return min((float(e.distances.min()) for e in edges if len(e.vec)), default=None)


def electrons_in_dos(frames, valence_electrons, temperature):
    """Electrons per atom of each species that the atomic DOS hold below the Fermi level, mean over ``frames``.

    Projections miss a little of every state, so that the sum of the atomic DOS reaches the number of valence electrons
    only above the true Fermi level.  The level is found from the total DOS, which misses nothing:

        n = integral of f(e - mu) sum_i D_i(e) de,  mu from D(e) and the valence electrons

    The valence electrons of all species are scaled by the common ratio of n to their number.

    valence_electrons : dict, by symbol
    temperature : float, K

    Returns dict of float, by symbol.
    """
    ratios = []
    for frame in frames:
        n_valence = sum(valence_electrons[symbol] for symbol in frame.atoms.get_chemical_symbols())
        level = fermi.fermi_level(frames.energies, frame.labels["dos"], n_valence, temperature)
        weights = fermi.integration_weights(frames.energies, level, temperature)[0]
        ratios.append(weights @ frame.labels["ados"].sum(axis=0) / n_valence)
    return {symbol: count * float(np.mean(ratios)) for symbol, count in valence_electrons.items()}


def _new_model(frames, config):
    species = sorted({symbol for frame in frames for symbol in frame.atoms.get_chemical_symbols()})

    def new_descriptor(options):
        if options is config.power_spectrum:
            theirs = getattr(_start(config).descriptor, "inner", None) if config.start else None
            inner = options.inner or theirs or _inner(frames)
            return PowerSpectrum(species, **asdict(options) | {"inner": inner})
        with _seeded(config.seed):      # one does not depend on the other: electrons can be trained without the energy
            return DeepPotSE(species, **asdict(options) | {"n_basis": options.n_basis or None})

    descriptor, electronic = (options and new_descriptor(options) for options in
                              (config.power_spectrum or config.descriptor, config.electronic))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Model(descriptor, {}, electronic=electronic).to(device=device, dtype=torch.float64)


def _train_energy(model, parts, config, progress):
    options = config.energy
    head = _add_head(model, ScalarHead, config.seed, widths=options.widths)
    standardise(model, parts["train"])
    loss = EnergyLoss(options.energy, options.forces, options.virial, options.strong_force)
    if not options.widths:
        for layer in head.nets.last:        # what the ridge draws to
            torch.nn.init.zeros_(layer.weight)
        if config.start:
            _take_over(model, "energy", config)
        fit_linear(model, parts["train"], loss, options.ridge, _beside(options.coarse, config), options.coarse_ridge,
                   _beside(options.far, config), options.far_weight, progress=progress)
    else:
        _fit(model, "energy", loss, parts, config, progress)
    return _checkpoint(config, "energy")


def _coarse_paths(config):
    return [(config.folder / name).resolve() for name in config.energy.coarse]


def _beside(names, config):
    """Frames to train on of the data sets in energy.coarse or energy.far; ValueError where they have none."""
    paths = [config.folder / name for name in names]
    parts = (Hamiltonians(path).frames() if is_hamiltonians(path) else read_frames(path) for path in paths)
    found = join(parts).select(lambda frame: not frame.group or frame.group in config.data.train)
    if names and not len(found):
        raise ValueError(f"{', '.join(map(str, paths))}: got no structures to train on; name their groups in data.train, "
                         f"now {', '.join(config.data.train)}, or leave the files out")
    return found


def _train_dos(model, parts, config, progress):
    options, frames = config.dos, parts["train"]
    if frames.energies is None:
        raise ValueError("the spectra of the data have no energy grid; convert the data with 'mlelec convert --grid'")
    head = _add_head(model, SpectrumHead, config.seed, energies=frames.energies, widths=options.widths)
    for layer in head.nets.last:        # start from the mean spectrum: better than from noise around it
        torch.nn.init.zeros_(layer.weight)
    if config.energy:
        standardise_heads(model, frames, ["dos"])
    else:
        standardise(model, frames)
    loss = SpectrumLoss(options.atomic, options.total, options.cumulative)
    return _fit(model, "dos", loss, parts, config, progress, _parameters(model, head))


def _train_centres(model, name, kind, loss, parts, config, progress):
    options, first = getattr(config, name), not model.heads
    foreign = [symbol for symbol in options.centers if symbol not in model.species]
    if foreign:
        raise ValueError(f"{name}.centers: got {foreign[0]}, the data have {', '.join(model.species)}; choose of these")
    head = _add_head(model, kind, config.seed, n_rows=model.descriptor_of(name).n_frame, widths=options.widths,
                     centers=[model.species.index(symbol) for symbol in options.centers])
    for layer in head.nets.last:        # start from the best constants
        torch.nn.init.zeros_(layer.weight)
    if first:
        standardise(model, parts["train"])
    else:
        standardise_heads(model, parts["train"], [name])
    return _fit(model, name, loss(options.atomic, options.total), parts, config, progress, _parameters(model, head))


def _parameters(model, head):
    """What a stage trains: a head, and its descriptor unless another head has been trained on that."""
    descriptor = model.descriptor_of(head.quantity)
    shared = any(model.descriptor_of(name) is descriptor for name in model.heads if name != head.quantity)
    return [*(() if shared else descriptor.parameters()), *head.parameters()]


def _add_head(model, kind, seed, **options):
    """Give ``model`` a new head of class ``kind`` with weights that depend on the seed alone."""
    like = next(array for array in (*model.parameters(), *model.buffers()) if array.is_floating_point())
    with _seeded(seed):
        head = kind(len(model.species), model.descriptor_of(kind.quantity).n_features, **options)
    model.heads[head.quantity] = head.to(device=like.device, dtype=like.dtype)
    return head


def _fit(model, name, loss, parts, config, progress, parameters=None):
    """One stage; returns the path of its checkpoint."""
    options, checkpoint = getattr(config, name), _checkpoint(config, name)
    if config.start:
        _take_over(model, name, config)
    fit(model, parts["train"], loss, steps=options.steps, validation=parts["validation"],
        batch_size=options.batch_size, learning_rate=options.learning_rate, parameters=parameters, seed=config.seed,
        checkpoint=checkpoint, curve=checkpoint.with_suffix(".csv"), progress=progress)
    return checkpoint


def _checkpoint(config, name):
    return (config.folder / config.output.model).with_suffix(f".{name}.checkpoint")


def _start(config, *heads):
    """The Model that training starts from; ValueError where it lacks one of ``heads``."""
    path = config.folder / config.start
    start = load_model(path if path.exists() else config.start)
    for name in heads:
        if name not in start.heads:
            raise ValueError(f"start: {config.start} has no {name}, it has {', '.join(start.heads)}; leave out [{name}] "
                             "or start from another model")
    return start


def _take_over(model, name, config):
    """Parameters and normalisation of a head, and of its descriptor unless another head was trained on that."""
    start = _start(config, name)
    pairs = [(model.heads[name], start.heads[name])]
    if sum(model.descriptor_of(head) is model.descriptor_of(name) for head in model.heads) == 1:
        pairs.insert(0, (model.descriptor_of(name), start.descriptor_of(name)))
    for mine, theirs in pairs:
        _check_same(name, mine.arguments(), theirs.arguments())
        mine.load_state_dict(theirs.state_dict())


def _check_same(section, mine, theirs):
    for name, value in theirs.items():
        if mine.get(name) != value:
            raise ValueError(f"start: got {mine.get(name)} as {name} of the {section}, the model that training starts "
                             f"from has {value}; give it the same")


def _provenance(parts, config):
    for name in ("coarse", "far"):
        if config.energy and getattr(config.energy, name):
            parts = parts | {f"{name} energies": _beside(getattr(config.energy, name), config)}
    settings = asdict(config)
    del settings["folder"]      # where the files lay says nothing about them
    return {"frames": {name: len(part) for name, part in parts.items()},
            "fingerprints": {name: part.fingerprint() for name, part in parts.items() if len(part)},
            "configuration": settings,
            "versions": {name: version(name) for name in PACKAGES}}


@contextmanager
def _seeded(seed):
    """Random weights inside the block depend on ``seed`` alone; random numbers outside go on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
