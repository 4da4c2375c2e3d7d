"""Training a Hamiltonian: blocks in layer frames, gradient descent for what ``hamiltonian_closed_form`` leaves, errors.

Blocks of the data are between functions with axes of their own.  They are turned into the columns of
``ase_mlelec.heads.hamiltonian.orbitals`` in the frames of the layers, where functions of any order, sign and
orientation are alike.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import chemical_symbols
from tqdm import tqdm

from ase_mlelec.bilayers import layer_areas
from ase_mlelec.descriptors.local_frame import find_fold, layer_frames
from ase_mlelec.edges import Edges
from ase_mlelec.heads.hamiltonian import orbitals
from ase_mlelec.heads.hamiltonian.pair_geometry import Geometry, heights
from ase_mlelec.physics.kmesh import monkhorst_pack
from ase_mlelec.system import System
from ase_mlelec.train.finite import Diverged, NotFinite, take_step
from ase_mlelec.train.fit import Run
from ase_mlelec.train.levels import LARGEST, level_errors, level_responses, mesh
from ase_mlelec.wannier_hamiltonian import WannierHamiltonian

CATEGORIES = ("onsite", "intra_near", "intra_long", "inter_near", "inter_long")
SIDED = 0.5  # Å; species that are always as far above or below their neighbours have two sides
LARGEST_GRADIENT = 10.0
SHARP = 6.0  # Å, between near and long pairs in tables of errors


@dataclass(frozen=True)
class Item:
    """One structure: geometry and its true blocks.

    onsite : dict k -> Tensor [n, W, W] and hopping : dict (inter, a, b) -> Tensor [e, W, W'], eV, in the order of
        Blocks
    transforms : list of array [W, W], U of every atom: functions of the data = U @ columns
    responses : dict of the derivatives of its levels, see ase_mlelec.train.levels; may be empty
    """

    geometry: Geometry
    onsite: dict
    hopping: dict
    transforms: list
    responses: dict
    name: str = ""

    @property
    def layers(self):
        """Layers of the structure."""
        return self.geometry.layers[0]


def frame_functions(frames):
    """(species, fold, functions, areas) that describe a data set: arguments of PairHead and LocalFrame.

    frames : iterable of HamiltonianFrame

    Raises ValueError for functions that are not the same on all atoms of a species.
    """
    frames = list(frames)
    systems = [System.from_atoms(frame.atoms) for frame in frames]
    species = sorted({symbol for frame in frames for symbol in frame.atoms.get_chemical_symbols()})
    areas = layer_areas(frame.atoms for frame in frames)
    fold = find_fold(systems, areas)
    found, raised = {}, {symbol: [] for symbol in species}
    for frame, system in zip(frames, systems):
        symbols = np.array(frame.atoms.get_chemical_symbols())
        lie = layer_frames(system, fold, areas)
        height = _heights(system, lie, species).numpy()
        for symbol in species:
            raised[symbol].append(height[symbols == symbol])
        axes = _local_axes(frame, lie)
        for atom in np.argsort(-height, kind="stable"):  # the highest of its neighbours: above the middle
            if axes[atom]:
                found.setdefault(symbols[atom], axes[atom])
    missing = [symbol for symbol in species if symbol not in found]
    if missing:
        raise ValueError(
            f"got no functions of {missing[0]}, need some on every species; leave its atoms out or project on them"
        )
    functions = {}
    for symbol in species:
        names, z, x = zip(*found[symbol])
        functions[symbol] = {
            "orbitals": list(names),
            "z": np.round(z, 6).tolist(),
            "x": np.round(x, 6).tolist(),
            "sided": bool((abs(np.concatenate(raised[symbol])) > SIDED).all()),
        }
    return species, fold, functions, areas


def _heights(system, lie, species):
    edges = Edges.build(system, 4.0)
    index = torch.tensor([species.index(chemical_symbols[number]) for number in system.numbers.tolist()])
    r, t, _, _, within = lie.of_pairs(edges)
    return heights(index, edges, r, t, within)


def _local_axes(frame, lie):
    """list by atom of list of (orbital, z, x), axes in the frame of the atom's layer."""
    axes, angle = lie.axes.numpy(), lie.angle.numpy()[lie.layer.numpy()]
    found = [[] for _ in frame.atoms]
    for atom, orbital, z, x in frame.functions:
        c, s = np.cos(angle[atom]), np.sin(angle[atom])
        rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ axes
        found[atom].append((orbital, tuple(np.round(rotation @ z, 8)), tuple(np.round(rotation @ x, 8))))
    return found


def prepare(head, frame, n_electrons=0):
    """Item of a HamiltonianFrame.

    n_electrons : int, of the structure; levels near the Fermi level are learnt too where it is known

    Raises ValueError for functions that the head does not have.
    """
    system = System.from_atoms(frame.atoms)
    lie = head.frames(system)
    geometry = head.geometry(system, lie)
    transforms, kept = [], {}
    for k, functions in zip(geometry.species.tolist(), _local_axes(frame, lie)):
        key = tuple(functions)
        if key not in kept:
            kept[key] = orbitals.transform(functions) if functions else (np.zeros((0, 0)), np.zeros(0, int))
        matrix, columns = kept[key]
        if not np.array_equal(columns, head.orbitals[k].columns):
            got, need = ([orbitals.ORBITALS[c] for c in each] for each in (columns, head.orbitals[k].columns))
            raise ValueError(
                f"frame '{frame.name}': got the harmonics {got} of {head.species[k]}, need {need}; train "
                "on one set of functions"
            )
        transforms.append(matrix)
    onsite, hopping = _true_blocks(head, frame, geometry, transforms)
    responses = level_responses(frame, n_electrons, geometry, transforms)
    return Item(geometry, onsite, hopping, transforms, responses, frame.name)


def _true_blocks(head, frame, geometry, transforms):
    """Blocks of H(R) in the columns of the layer frames; zero beyond what the data have."""
    hamiltonian = frame.hamiltonian
    owners = np.array([function.atom for function in frame.functions])
    rows = [np.flatnonzero(owners == atom) for atom in range(len(frame.atoms))]
    dense = hamiltonian.bloch.toarray()
    # one more, of zeros, for lattice vectors that the data do not have
    dense = np.concatenate([dense, np.zeros((1, *dense.shape[1:]))])
    place = {tuple(r): index for index, r in enumerate(hamiltonian.r_vectors.tolist())}
    home = place[0, 0, 0]

    def block(which, first, second):
        values = dense[
            which[:, None, None],
            np.array([rows[i] for i in first])[:, :, None],
            np.array([rows[i] for i in second])[:, None, :],
        ]
        left, right = (np.array([transforms[i] for i in index]) for index in (first, second))
        return torch.as_tensor(left.transpose(0, 2, 1) @ values @ right)

    species = geometry.species.numpy()
    onsite = {}
    for k in range(len(head.species)):
        atoms = np.flatnonzero(species == k)
        if len(atoms):
            onsite[k] = block(np.full(len(atoms), home), atoms, atoms)
    hopping = {}
    for key, pairs in geometry.groups().items():
        which = np.array([place.get(tuple(r), len(dense) - 1) for r in geometry.shift[pairs].tolist()])
        hopping[key] = block(which, geometry.first[pairs].numpy(), geometry.second[pairs].numpy())
    return onsite, hopping


def join(head, items):
    """(Geometry, onsite, hopping) of several structures as one."""
    onsite = {
        k: torch.cat([item.onsite[k] for item in items if k in item.onsite])
        for k in range(len(head.species))
        if any(k in item.onsite for item in items)
    }
    keys = {key for item in items for key in item.hopping}
    hopping = {key: torch.cat([item.hopping[key] for item in items if key in item.hopping]) for key in keys}
    return Geometry.joined([item.geometry for item in items]), onsite, hopping


@torch.no_grad()
def without_third_atoms(head, items):
    """Items as a head without third atoms has to learn them: their part, which gradient descent leaves as it is, is
    taken from the true blocks once."""
    found = []
    for item in items:
        if item.geometry.neighbours is not None:
            bare = replace(item.geometry, neighbours=None, third_moments=None)
            whole, rest = head(item.geometry), head(bare)
            onsite = {k: truth - (whole.onsite[k] - rest.onsite[k]) for k, truth in item.onsite.items()}
            hopping = {key: truth - (whole.hopping[key] - rest.hopping[key]) for key, truth in item.hopping.items()}
            item = replace(item, geometry=bare, onsite=onsite, hopping=hopping)
        found.append(item)
    return found


def distance_ranges(head, items, known=None):
    """dict of [shortest, longest] Å over ``items``: to the nearest atom "within" the layer, and "across" where layers
    have neighbours; "alone": whether some have none.

    known : those of former training, which the new ones widen
    """
    found = [head.nearest(item.geometry) for item in items]
    known = known or {}
    ranges = {"alone": known.get("alone", False) or any(not len(across) for _, across in found)}
    for k, name in enumerate(("within", "across")):
        distances = [float(value) for part in found if len(part[k]) for value in (part[k].min(), part[k].max())]
        distances += known.get(name, [])
        if distances:
            ranges[name] = [min(distances), max(distances)]
    return ranges


# Loss and errors


def category_errors(head, items):
    """dict category -> Tensor of differences predicted - true of all elements of the items, and of "levels", eV."""
    geometry, onsite, hopping = join(head, items)
    found = {name: [] for name in CATEGORIES}
    blocks, groups = head(geometry), geometry.groups()
    differences = {k: blocks.onsite[k] - truth for k, truth in onsite.items()}
    differences |= {key: blocks.hopping[key] - truth for key, truth in hopping.items()}
    for k in onsite:
        found["onsite"].append(differences[k].flatten())
    for key in hopping:
        near = geometry.r[groups[key]] < SHARP
        for name, mask in (("near", near), ("long", ~near)):
            found[f"{'inter' if key[0] else 'intra'}_{name}"].append(differences[key][mask].flatten())
    errors = {name: torch.cat(parts) for name, parts in found.items() if parts and sum(map(len, parts))}
    levels = level_errors(items, differences)
    return errors if levels is None else errors | {"levels": levels}


@torch.no_grad()
def category_scales(head, items, batch_size=8):
    """dict category -> root mean square difference, eV; the loss is measured in that before the fit, for a new head the
    one of the two-centre parts alone."""
    totals = {}
    for start in range(0, len(items), batch_size):
        for name, error in category_errors(head, items[start : start + batch_size]).items():
            square, count = totals.get(name, (0.0, 0))
            totals[name] = square + float(error.square().sum()), count + len(error)
    return {name: max((square / count) ** 0.5, 1e-5) for name, (square, count) in totals.items()}


def fit_hamiltonian(
    model,
    items,
    *,
    validation=(),
    steps=2000,
    batch_size=4,
    learning_rate=(3e-3, 3e-6),
    weights=None,
    seed=0,
    checkpoint=None,
    curve=None,
    fingerprint="",
    interval=100,
    progress=True,
):
    """Fit the Hamiltonian head of ``model`` with Adam and a learning rate that falls exponentially.

    The loss is the sum over categories of weight x mean square error / (that before the fit).  Call
    standardise_hamiltonian first, or start from a fitted head; at the end the interface dipole is fitted to what is
    left.

    items, validation : lists of Item (see prepare)
    weights : dict of float by category, "levels" among them; default 1
    checkpoint, curve : paths, as in ase_mlelec.train.fit

    Returns dict of the root mean square errors, eV, on ``validation`` or the training data.

    Raises ValueError when a checkpoint belongs to another run, and Diverged for NaN and infinity.
    """
    head, weights = model.heads["hamiltonian"], dict.fromkeys((*CATEGORIES, "levels"), 1.0) | (weights or {})
    items, validation = (without_third_atoms(head, part) for part in (items, validation))
    scales = category_scales(head, items)
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    first, last = learning_rate
    run = Run(
        model,
        torch.optim.Adam(parameters, lr=first),
        checkpoint,
        {
            "steps": steps,
            "seed": seed,
            "batch_size": batch_size,
            "learning_rate": f"{first:g} to {last:g}",
            "weights": str(weights),
            "frames": fingerprint,
        },
    )
    held = validation or items
    batches = _order(len(items), batch_size, seed, run.step)
    with tqdm(total=steps, initial=run.step, disable=None if progress else True, unit=" steps", mininterval=2) as bar:
        while run.step < steps:
            rate = first * (last / first) ** (run.step / steps)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            chosen = next(batches)
            errors = category_errors(head, [items[k] for k in chosen])
            loss = sum(weights[name] * (error / scales[name]).square().mean() for name, error in errors.items())
            try:
                take_step(loss, run.optimizer, parameters, LARGEST_GRADIENT)
            except NotFinite as problem:
                raise _explained(problem, head, items, chosen, run.step, rate) from None
            run.step += 1
            bar.update()
            if run.step % interval == 0 or run.step == steps:
                found = category_scales(head, held)
                if not np.isfinite(list(found.values())).all():
                    raise _explained(NotFinite("error"), head, held, range(len(held)), run.step - 1, rate)
                bar.set_postfix({name: f"{1000 * e:.3g} meV" for name, e in found.items()})
                run.rows.append({"step": run.step, "learning_rate": rate, **found})
                run.save(curve)
    fit_dipole(head, items)
    return category_scales(head, held)


@torch.no_grad()
def _explained(problem, head, items, chosen, step, rate):
    """Diverged, with the frames and the categories of elements that a step failed on."""
    found = {}
    for k in chosen:
        errors = category_errors(head, [items[k]])
        found[k] = [name for name, error in errors.items() if not bool(torch.isfinite(error).all())]
    failing = {k: names for k, names in found.items() if names} or found
    named = "; ".join(
        f"{int(k)} ({items[k].name or 'unnamed'}){': ' * bool(names)}{', '.join(names)}"
        for k, names in list(failing.items())[:8]
    )
    return Diverged(
        f"training stopped at step {step + 1}: the {problem.what} is NaN or infinite, with the frames "
        f"{named}; the learning rate, {rate:.3g}, is likely too large: lower it, or check these "
        "Hamiltonians; the last checkpoint is as it was"
    )


def _order(n, batch_size, seed, done):
    """Endless shuffled batches of indices, the same whether or not the run was interrupted."""
    per_epoch = max(n // batch_size, 1)
    while True:
        epoch, k = divmod(done, per_epoch)
        shuffled = np.random.default_rng([seed, epoch]).permutation(n)
        yield shuffled[k * batch_size : (k + 1) * batch_size]
        done += 1


@torch.no_grad()
def fit_dipole(head, items):
    """Coefficients of the interface dipole from the mean on-site differences of layers that differ; least squares.

    They stay as they are where no layers differ.
    """
    rows, steps = [], []
    for item in items:
        features = head.interface_features(item.layers)
        if not bool((features.abs() > 1e-6).any()):
            continue
        blocks = head(item.geometry.pairs(slice(0, 0)))
        rest = torch.zeros(item.geometry.n_layers, dtype=torch.float64)
        count = torch.zeros_like(rest)
        for k, truth in item.onsite.items():
            atoms = blocks.atoms(k)
            difference = (truth - blocks.onsite[k]).diagonal(dim1=1, dim2=2).mean(dim=1)
            rest.index_add_(0, item.geometry.layer[atoms], difference.double())
            count.index_add_(0, item.geometry.layer[atoms], torch.ones_like(difference).double())
        level = rest / count
        rows.append(features)
        steps.append(level[1:] - level[:-1])
    if rows:
        solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(steps)[:, None], driver="gelsd", rcond=1e-6).solution
        head.dipole.copy_(solution[:, 0])


def hamiltonian_errors(model, frames):
    """Errors of the elements between the functions of the data, and of bands of cells up to 300 functions.

    frames : iterable of HamiltonianFrame

    Returns dict of float: mean absolute errors in meV and R2 by category; keys as in QUANTITIES of
    ase_mlelec.train.evaluate.
    """
    return _summary(*compared_elements(model, frames))


@torch.no_grad()
def compared_elements(model, frames):
    """(elements, differences of levels) of a model on HamiltonianFrames, eV.

    elements : dict by category of (predicted, true), Tensor [n] each, between the functions of the data
    differences : array, of the levels on a mesh of cells up to 300 functions, or None
    """
    head = model.heads["hamiltonian"]
    truths, found = {name: [] for name in CATEGORIES}, {name: [] for name in CATEGORIES}
    bands = []
    for frame in frames:
        item = prepare(head, frame)
        blocks, groups = head.complete(head(item.geometry)), item.geometry.groups()
        turn = [torch.as_tensor(matrix) for matrix in item.transforms]
        for k, truth in item.onsite.items():
            left = torch.stack([turn[i] for i in blocks.atoms(k).tolist()])
            for store, value in ((truths, truth), (found, blocks.onsite[k])):
                store["onsite"].append((left @ value.double() @ left.mT).flatten())
        for key, truth in item.hopping.items():
            left, right = (torch.stack([turn[i] for i in index.tolist()]) for index in blocks.pairs(key)[:2])
            near = item.geometry.r[groups[key]] < SHARP
            for store, value in ((truths, truth), (found, blocks.hopping[key])):
                whole = left @ value.double() @ right.mT
                for name, mask in (("near", near), ("long", ~near)):
                    store[f"{'inter' if key[0] else 'intra'}_{name}"].append(whole[mask].flatten())
        if frame.hamiltonian.size <= LARGEST:
            bands.append(_band_errors(head, frame, blocks))
    elements = {name: (torch.cat(found[name]), torch.cat(truths[name])) for name in CATEGORIES if found[name]}
    return elements, np.concatenate(bands) if bands else None


def _band_errors(head, frame, blocks):
    kpts = monkhorst_pack(mesh(frame.atoms))
    *elements, owners = head.elements(blocks)
    own = WannierHamiltonian.from_elements(frame.atoms.cell.array, *elements, frame.atoms.positions[owners])
    return (own.eigenvalues(kpts) - frame.hamiltonian.eigenvalues(kpts)).ravel()


def _summary(columns, bands):
    result = {}
    every = [torch.cat([pair[i] for pair in columns.values()]) for i in (0, 1)]
    inter = [
        torch.cat([columns[name][i] for name in columns if name.startswith("inter")] or [every[i][:0]]) for i in (0, 1)
    ]
    for name, (mine, truth) in {"all": every, **columns, "inter": inter}.items():
        if not len(truth):
            continue
        result[f"hamiltonian_{name}_mae_meV"] = 1000 * float((mine - truth).abs().mean())
        spread = float((truth - truth.mean()).square().sum())
        if spread > 0:
            result[f"hamiltonian_{name}_r2"] = 1 - float((mine - truth).square().sum()) / spread
        large = truth.abs() > 1e-3
        if name in ("all", "inter") and bool(large.any()):
            result[f"hamiltonian_{name}_large_mae_meV"] = 1000 * float((mine - truth)[large].abs().mean())
    if bands is not None:
        result["bands_mae_meV"] = 1000 * float(np.abs(bands).mean())
    return result
