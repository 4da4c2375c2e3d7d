"""Data sets of runs of DFT programs, with densities of states where bands are projected on atoms."""

import warnings
from collections.abc import Iterator, Sequence
from os import PathLike

from ase_mlelec.data.data_set import Frame, Frames, join, temperature_of
from ase_mlelec.data.runs.espresso import read_espresso
from ase_mlelec.data.runs.find import DEPTH, Place, Texts, espresso_runs, once, paths_apart
from ase_mlelec.data.runs.projected import ProjectedRun
from ase_mlelec.data.runs.spectra import SAME_TEMPERATURE, Spectra, frames_of, known_valence
from ase_mlelec.data.runs.steps import read_run
from ase_mlelec.data.runs.vasp import VaspPlace, read_vasp, vasp_runs
from ase_mlelec.io.espresso.pw_xml import MOVING
from ase_mlelec.io.espresso.setup import read_setup

NO_RUNS = (
    "no run with bands projected on atoms in it; give prefix.save of pw.x with atomic_proj.xml of projwfc.x in it and "
    "the text output of projwfc.x near it, or vasprun.xml of VASP with LORBIT = 11"
)


def runs_of(path: str | PathLike) -> list[Place | VaspPlace]:
    """Runs of DFT programs in a folder or below it, or the run to which a file belongs."""
    return [*espresso_runs(path), *vasp_runs(path, DEPTH)]


def has_spectra(path: str | PathLike) -> bool:
    """Whether a path is, or a folder holds, runs whose bands are projected on atoms."""
    return any(place.has_projections for place in runs_of(path))


def read_runs(
    paths: Sequence[str | PathLike], *, spectra: Spectra | None = None, others: Sequence[Frames] = ()
) -> Frames:
    """Read runs of DFT programs as one data set, with energies, forces, virials and densities of states.

    Parameters
    ----------
    paths : sequence of paths
        Runs of pw.x and projwfc.x: ``prefix.save``, or a folder above it; vasprun.xml of VASP, or its folder; a folder
        of several runs.
    spectra : Spectra, optional
        Width, energy grid and electrons. Default: Spectra(); runs whose projections cannot be used are then read without
        them, with a warning.
    others : sequence of Frames
        Data sets to which the runs will be joined. Without ``spectra``, width and energies are those of the first with
        spectra.

    Returns
    -------
    Frames
        All spectra on one energy grid. ``attributes`` has dos_width_eV, energy_reference, valence_electrons,
        bands_complete_below_eV, fermi_levels_eV (the lowest and the highest), projected_shares (parts of the electrons in
        the projections, the lowest and the highest), and settings with electronic_temperature_K. Without projections in
        any run it has none of these.

    Raises
    ------
    ValueError
        For errors of the readers and of ``frames_of``, where ``spectra`` is given or a run has nothing else.
    """
    every = [place for path in paths for place in runs_of(path)]
    of_save = {str(place.save): place for place in every}
    found = [of_save[str(save)] for save in once([place.save for place in every])]
    names = paths_apart([place.named for place in found])
    places = [place._replace(name=name or place.name) for place, name in zip(found, names)]
    projected = any(place.has_projections for place in places)
    if not places or (spectra is not None and not projected):
        raise ValueError(f"{paths[0]}: {NO_RUNS}")
    if not projected:
        return join(_bare(place) for place in places)
    bare: list[Frame] = []
    order: dict[str, int] = {}
    chosen = spectra or next(filter(None, map(Spectra.like, others)), Spectra())
    try:
        frames = frames_of(_runs(places, chosen, bare, order), chosen)
    except ValueError as error:
        if spectra is not None:
            raise
        try:
            frames = join(_bare(place) for place in places)
        except ValueError:
            raise error from None
        warnings.warn(f"spectra are not made, energies alone are read: {error}", stacklevel=3)
        return frames
    frames.frames = sorted([*frames, *bare], key=lambda frame: order[frame.name])
    _check_temperatures([*others, frames], paths[0])
    return frames


def _check_temperatures(parts: Sequence[Frames], path: str | PathLike) -> None:
    """Raise ValueError where data sets with spectra are of different electronic temperatures."""
    known = [each for part in parts if (each := temperature_of(part.attributes)) is not None]
    if known and max(known) - min(known) > SAME_TEMPERATURE * max(known):
        raise ValueError(
            f"{path}: its electrons are at {known[-1]:g} K, those of the data beside it at {known[0]:g} K, and one data "
            f"set has one temperature; keep them apart, or give --electronic-temperature {known[0]:g}"
        )


def _runs(
    places: Sequence[Place | VaspPlace], spectra: Spectra, bare: list[Frame], order: dict[str, int]
) -> Iterator[ProjectedRun]:
    """Runs with projections; frames without spectra are added to ``bare``, places of all names to ``order``."""
    texts, valence, n_projected = Texts(), known_valence(spectra), 0
    for place in places:
        run, steps = None, []
        if not place.has_projections:
            steps = _bare(place).frames
        elif isinstance(place, Place):
            run, steps = read_espresso(place, texts=texts, valence=valence), _steps_before(place)
        else:
            run, steps = read_vasp(place)
        for each in [*steps, *([] if run is None else [run])]:
            order.setdefault(each.name, len(order))
        bare += steps
        if run is not None:
            n_projected += 1
            yield run
    if not n_projected:
        raise ValueError(f"{places[0].save}: no run has all of its bands; let them finish, or copy their files again")


def _steps_before(place: Place) -> list[Frame]:
    """Steps of a relaxation or of molecular dynamics before the last one, which has the spectra."""
    return [] if read_setup(place.save).calculation not in MOVING else _bare(place).frames[:-1]


def _bare(place: Place | VaspPlace) -> Frames:
    """The run without spectra."""
    if isinstance(place, Place):
        frames = read_run(place.save)
        for k, frame in enumerate(frames):
            frame.name = place.name if len(frames) == 1 else f"{place.name}-{k}"
        return frames
    run, steps = read_vasp(place)
    return Frames([*steps, *([] if run is None else [Frame(run.atoms, run.labels, run.name)])])
