"""Recipe for models of Wannier Hamiltonians, optionally with an energy."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from ase_mlelec.data.frames import join
from ase_mlelec.data.hamiltonians import Hamiltonians, is_hamiltonians
from ase_mlelec.descriptors import LayerMoments
from ase_mlelec.descriptors.ace import standard_orders
from ase_mlelec.heads import HamiltonianHead
from ase_mlelec.heads.hamiltonian.orbitals import turn
from ase_mlelec.model import Model
from ase_mlelec.train.config import Config, HamiltonianConfig
from ase_mlelec.train.data_checks import check_hamiltonians
from ase_mlelec.train.error_bars import add_error_bars, told
from ase_mlelec.train.evaluate import comparable, errors
from ase_mlelec.train.finite import closed_form, refuse_model
from ase_mlelec.train.hamiltonian.closed_form import refit_hopping, refit_onsite, standardize_hamiltonian
from ase_mlelec.train.hamiltonian.descent import fit_hamiltonian
from ase_mlelec.train.hamiltonian.error_bars import add_hamiltonian_error_bars
from ase_mlelec.train.hamiltonian.errors import hamiltonian_errors
from ase_mlelec.train.hamiltonian.items import distance_ranges, frame_functions, prepare
from ase_mlelec.train.isolated import reproduce
from ase_mlelec.train.log import Log, shown
from ase_mlelec.train.recipes.budget import begin_log, duration_of
from ase_mlelec.train.recipes.checkpoints import checkpoint_of, defaults_of, save, settings_of
from ase_mlelec.train.recipes.description import provenance
from ase_mlelec.train.recipes.distances import inner_distance, protect_trained
from ase_mlelec.train.recipes.draft import Draft
from ase_mlelec.train.recipes.frames import new_model, train_energy
from ase_mlelec.train.recipes.local_frame import with_places
from ase_mlelec.train.recipes.parts import parts_of, split
from ase_mlelec.train.recipes.reading import read_checked, weighted
from ase_mlelec.train.recipes.references import reference_energies
from ase_mlelec.train.recipes.starting import check_same, seeded, starting_model


def train_hamiltonian(config: Config, progress: bool | Log = True) -> Model:
    """Train a Hamiltonian, after an energy where it is wanted; the energy may have labels from further files."""
    data, others = _hamiltonians(config)
    options = cast(HamiltonianConfig, config.hamiltonian)
    parts = parts_of(data, "frames", config)
    output = config.folder / config.output.model
    output.parent.mkdir(parents=True, exist_ok=True)
    bands = _untrained(parts["train"], config)
    head = bands.heads["hamiltonian"]
    log = begin_log(parts, config, progress)
    checkpoints: list[Path] = []  # of closed forms
    energies: dict[str, Any] = {"train": ()}
    sources, model = dict(parts), bands
    if config.energy:
        more = split(others, config, complete=False, progress=log.show)
        model, checkpoints, energies = _energy(data, parts, more, config, log)
        sources.update({f"{name}, energies only": part for name, part in more.items() if len(part)})
    electrons = data.attributes.get("electrons_per_atom", {})
    items = {
        name: [
            prepare(bands, frame, round(sum(electrons.get(symbol, 0) for symbol in frame.atoms.symbols)))
            for frame in parts[name]
        ]
        for name in ("train", "validation")
    }
    ranges = distance_ranges(
        items["train"],
        config.start and starting_model(config).metadata["nearest_distances_A"],  # type: ignore[arg-type]  # "": none
    )
    _fit_linear_parts(bands, items["train"], config, data.path)
    if model is not bands:
        model.heads["hamiltonian"], model.pairs = head, bands.descriptor
    described = _described(data, model) | {"nearest_distances_A": ranges}
    protected = partial(protect_trained, parts=energies, config=config, hamiltonians=parts["train"])
    fit_hamiltonian(
        model,
        items["train"],
        validation=items["validation"],
        **duration_of(options, config),
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weights=options.weights,
        seed=config.seed,
        checkpoint=checkpoint_of(config, "hamiltonian"),
        curve=output.with_suffix(".hamiltonian.csv"),
        fingerprint=parts["train"].fingerprint(),
        progress=log,
        patience=options.patience,
        keep=Draft(config, model, described, partial(protected, ranges=False), log.tell).stage("hamiltonian"),
        identity=settings_of(config),
        may_lack=defaults_of(config),
    )
    model.metadata = described
    protected(model)
    _add_error_bars(model, parts, energies, log)
    model.metadata |= {"errors": _errors(model, parts, energies), "training": provenance(sources, config)}
    return save(model, config, checkpoints)


def _described(data, model):
    """Metadata from the attributes of the data, and of the energy."""
    copied = ("electrons_per_atom", "energy_reference", "settings")
    found = {name: data.attributes[name] for name in copied if name in data.attributes}
    return found | {name: model.metadata[name] for name in ("isolated_atoms_eV",) if name in model.metadata}


def _fit_linear_parts(model, items, config, path):
    """Fit the linear terms of the head by ridge regression; in fine-tuning, fit the errors of the starting model."""
    head = model.heads["hamiltonian"]
    with closed_form("the linear part of the Hamiltonian", f"check the frames of {path}, or add some"):
        if config.start:
            refit_onsite(head, items)
            refit_hopping(head, items)
        else:
            standardize_hamiltonian(model, items)
    refuse_model(head, f"{path}: after the closed forms")


def _energy(data, parts, more, config, progress):
    """Train an energy on the labels of the Hamiltonians, unless their weight is 0, and on ``more``, dict of Frames.

    Returns (Model, checkpoints to remove when it is saved, dict of Frames).
    """
    frames = {
        name: join([*_labeled(parts[name], config), part]) if name in parts else part for name, part in more.items()
    }
    if not len(frames["train"]):
        raise ValueError(
            f"{data.path}: got no energies and forces to train on; leave out [energy], or name a file "
            "that has them in data.files"
        )
    config = with_places(config, frames)
    model = new_model(frames["train"], config)
    spent = train_energy(model, frames, config, progress)
    model.cpu()
    references = reference_energies(frames, config, progress=shown(progress))
    if references:
        reproduce(model, frames["train"], references)
        model.metadata["isolated_atoms_eV"] = references
    return model, spent, frames


def _add_error_bars(model, parts, energies, log):
    """Error bars of the Hamiltonian, and of energies and forces, where there are some."""
    report = add_hamiltonian_error_bars(model, parts["train"], parts["validation"], progress=log)
    if "energy" in model.heads:
        report |= add_error_bars(model, energies["train"], energies["validation"], names=["energy"], progress=log)
    log.tell(told(report))


def _errors(model, parts, energies):
    """Errors on held-out frames, dict by part of dict of float, for energies, forces and Hamiltonians."""
    found = {}
    for name in ("validation", "test"):
        if comparable(model, energies.get(name, ())):
            found[name] = errors(model, energies[name])
        if len(parts[name]):
            found[name] = found.get(name, {}) | hamiltonian_errors(model, parts[name])
    return found


def _labeled(hamiltonians, config):
    """Frames with energies and forces of each file of Hamiltonians, with its weight."""
    return [weighted(own.frames(), path, config) for path, own in hamiltonians.by_file()]


def _hamiltonians(config):
    """(Hamiltonians of all files of these, Frames with energies and forces of all other files)"""
    paths = [config.folder / name for name in config.data.files]
    whole = [path for path in paths if is_hamiltonians(path)] or paths[:1]
    others = [path for path in paths if path not in whole]
    if others and config.energy is None:
        raise ValueError(
            f"data.files: got {', '.join(map(str, others))} without Hamiltonians for [hamiltonian] alone; leave such files "
            "out, or add [energy]"
        )
    return check_hamiltonians(Hamiltonians(*whole)), read_checked(others, config)


def _untrained(frames, config):
    """Model of a Hamiltonian alone, with the functions of ``frames`` or of the starting model."""
    options = config.hamiltonian
    if config.start:
        start = starting_model(config, "hamiltonian").double()
        head, descriptor = start.heads["hamiltonian"].requires_grad_(True).train(), start.descriptor_of("hamiltonian")
        theirs = dict(
            cutoff=head.cutoff,
            environment=descriptor.environment,
            n_radial=descriptor.n_radial,
            spectrum=descriptor.ace.cutoff if descriptor.ace else 0.0,
            third=head.third,
            widths=head.widths,
        )
        check_same("hamiltonian", {name: getattr(options, name) for name in theirs}, theirs)
        return Model(descriptor, {"hamiltonian": head})
    species, symmetry, functions, areas = frame_functions(frames)
    ace = None
    if options.spectrum:
        orders = standard_orders(cutoff=options.spectrum, n_radial=4, max_order=2)
        ace = {"inner": inner_distance(frames), "orders": [asdict(order) for order in orders]}
    descriptor = LayerMoments(
        species,
        cutoff=options.cutoff,
        environment=options.environment,
        symmetry=symmetry,
        n_radial=options.n_radial,
        third=options.third,
        third_moments=any(turn(functions[symbol]) for symbol in species),
        ace=ace,
        reference_areas=areas,
    )
    with seeded(config.seed):
        head = HamiltonianHead.for_descriptor(descriptor, functions, widths=options.widths)
    return Model(descriptor, {"hamiltonian": head}).double()
