"""Data sets of runs of DFT programs, with densities of states where bands are projected on atoms."""

import warnings
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from ase_mlelec.data.data_set import Frames, join
from ase_mlelec.data.runs.espresso import read_espresso
from ase_mlelec.data.runs.find import Place, Texts, espresso_runs, named_apart
from ase_mlelec.data.runs.projected import ProjectedRun
from ase_mlelec.data.runs.spectra import Spectra, frames_of, known_valence
from ase_mlelec.data.runs.steps import read_run

NO_RUNS = (
    "no run of pw.x with projections of projwfc.x in it; give prefix.save or the folder of such a run, with "
    "atomic_proj.xml in prefix.save and the text output of projwfc.x near it"
)


def has_spectra(path: str | PathLike) -> bool:
    """Whether a path is, or a folder holds, runs whose bands are projected on atoms."""
    return any(place.has_projections for place in espresso_runs(path))


def read_runs(paths: Sequence[str | PathLike], *, spectra: Spectra | None = None) -> Frames:
    """Read runs of DFT programs as one data set, with energies, forces, virials and densities of states.

    Parameters
    ----------
    paths : sequence of paths
        Runs of pw.x and projwfc.x: ``prefix.save``, a folder above it, or a folder of several runs.
    spectra : Spectra, optional
        Width, energy grid and electrons. Default: Spectra(); runs whose projections cannot be used are then read without
        them, with a warning.

    Returns
    -------
    Frames
        All spectra on one energy grid. ``attributes`` has dos_width_eV, energy_reference, valence_electrons,
        bands_complete_below_eV, fermi_levels_eV (the lowest and the highest), projected_shares (parts of the electrons in
        the projections, the lowest and the highest), and settings with electronic_temperature_K.

    Raises
    ------
    ValueError
        For errors of the readers and of ``frames_of``, where ``spectra`` is given or a run has nothing else.
    """
    places = named_apart([place for path in paths for place in espresso_runs(path)])
    if not any(place.has_projections for place in places):
        raise ValueError(f"{paths[0]}: {NO_RUNS}")
    try:
        frames = frames_of(_runs(places, spectra or Spectra()), spectra or Spectra())
    except ValueError as error:
        if spectra is not None:
            raise
        try:
            frames = join(_bare(place) for place in places)
        except ValueError:
            raise error from None
        warnings.warn(f"spectra are not made, energies alone are read: {error}", stacklevel=3)
        return frames
    bare = [_bare(place) for place in places if not place.has_projections]
    return join([frames, *bare])


def _runs(places: Sequence[Place], spectra: Spectra) -> Iterator[ProjectedRun]:
    texts, valence = Texts(), known_valence(spectra)
    for place in places:
        if place.has_projections:
            yield read_espresso(place, texts=texts, valence=valence)


def _bare(place):
    """The run without spectra."""
    frames = read_run(Path(place.save))
    for frame in frames:
        frame.name = place.name
    return frames
