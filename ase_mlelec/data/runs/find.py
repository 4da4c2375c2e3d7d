"""Files of Quantum ESPRESSO's runs: which program wrote a text, and which files belong to one run."""

import gzip
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

XML, PROJECTIONS = "data-file-schema.xml", "atomic_proj.xml"
HEAD = 50_000  # bytes at the beginning of a file within which a program writes its name
DEPTH = 4  # folders below the given one in which runs are looked for
MANY = 1000  # files of a folder that are looked at
NO_TEXT = (".dat", ".hdf5", ".h5", ".upf", ".npz", ".npy", ".cube", ".wfc", ".mix", ".igk")
PICKLES = {".pckl", ".pkl", ".pickle"}
# names of scratch folders, whose parent is the folder of the run
SCRATCH = ("tmp", "temp", "out", "outdir", "scratch", "work")


class Place(NamedTuple):
    """A pw.x run.

    Attributes
    ----------
    save : Path
        Folder with data-file-schema.xml, and with atomic_proj.xml where projwfc.x was run; usually prefix.save.
    name : str
    folders : tuple of Path
        Folders in which text outputs of the run may lie, the nearest first.
    """

    save: Path
    name: str
    folders: tuple

    @property
    def named(self) -> Path:
        """Path after which the run is named."""
        return self.save

    @property
    def has_projections(self) -> bool:
        """Whether projwfc.x was run."""
        return _holds(self.save, PROJECTIONS)


class Texts:
    """Text files near runs by the program that wrote them; every file is looked at once."""

    def __init__(self):
        self._programs, self._folders = {}, {}

    def of(self, place: Place, program: str) -> list[Path]:
        """Files near a run that a program wrote, PWSCF (text or XML) or PROJWFC; the nearest folder first."""
        found = [path for folder in place.folders for path in self._texts(folder)]
        return [path for path in found if self._programs[path] == program]

    def _texts(self, folder):
        if folder not in self._folders:
            files = [each for each in sorted(folder.iterdir()) if each.suffix.lower() not in NO_TEXT and each.is_file()]
            self._folders[folder] = [each for each in files[:MANY] if each.name not in (XML, PROJECTIONS)]
            self._programs.update({each: program_of(each) for each in self._folders[folder]})
        return self._folders[folder]


def program_of(path: str | PathLike) -> str | None:
    """Program of Quantum ESPRESSO that wrote a file, such as PWSCF or PROJWFC; None for other files."""
    head = _head_of(path)
    if head.lstrip().startswith(b"<"):
        return "PWSCF" if b"qes:espresso" in head else None
    if b"Program PWSCF" in head:
        return "PWSCF"
    found = re.search(rb"^ {0,8}Program ([A-Z0-9]+) v\.", head, re.MULTILINE)
    return found.group(1).decode() if found else None


def _head_of(path):
    """Bytes at the beginning of a file, which may be compressed by gzip; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            if head.startswith(b"\x1f\x8b"):
                file.seek(0)
                head = gzip.GzipFile(fileobj=file).read(HEAD)
    except (OSError, EOFError, zlib.error):
        return b""
    return head


def espresso_runs(path: str | PathLike) -> list[Place]:
    """Runs of pw.x in a folder or below it, or the run to which a file belongs; empty list for anything else.

    Parameters
    ----------
    path : path
        prefix.save, a folder above it (of one run or of many), atomic_proj.xml, or a text output of projwfc.x. A text
        output of pw.x is read by itself: with it the list is empty.
    """
    path = Path(path)
    name = path.name.removesuffix(".gz")
    if path.is_file() and (name in (PROJECTIONS, XML) or program_of(path) == "PROJWFC"):
        if name == XML and not _holds(path.parent, PROJECTIONS):
            return []
        path = path.parent
    if not path.is_dir() or (path / "type.raw").exists():  # data of deepmd-kit
        return []
    found: set[Path] = set()
    for depth in range(DEPTH + 1):
        found |= {each.parent for each in path.glob("*/" * depth + f"{XML}*") if _holds(each.parent, XML)}
        if found and depth < 2:  # the run of this folder, and not those of folders below it
            break
    return [_place(save) for save in distinct(found)]


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Sorted paths, the shortest of those that lead to the same file or folder by way of links."""
    by_length = sorted(paths, key=lambda path: (len(path.parts), path), reverse=True)
    return sorted({os.path.realpath(path): path for path in by_length}.values())


def once(paths: Sequence[str | PathLike]) -> list:
    """``paths`` without those that lead to the same file or folder as an earlier one, with a warning."""
    found: dict[str, list] = {}
    for path in paths:
        found.setdefault(os.path.realpath(path), []).append(path)
    if twice := [str(same[-1]) for same in found.values() if len(same) > 1]:
        warnings.warn(f"{', '.join(twice)}: named more than once, and read once", stacklevel=3)
    return [same[0] for same in found.values()]


def _holds(folder, name):
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()


def _place(save):
    own = save.absolute()
    above = [own.parent, *([own.parent.parent] if own.parent.name.lower() in SCRATCH else [])]
    folders = [Path(os.path.relpath(folder)) if not save.is_absolute() else folder for folder in above]
    return Place(save, own.name.removesuffix(".save"), (save, *folders))


def paths_apart(paths: Sequence[Path]) -> list[str]:
    """Names that tell paths apart: below the folder that all share, without scratch folders and suffixes."""
    saves = [path.absolute() for path in paths]
    shared = Path(os.path.commonpath([save.parent for save in saves])) if saves else Path()
    parts = [save.relative_to(shared).parts for save in saves]
    names = ["/".join(part.removesuffix(".save") for part in each if part.lower() not in SCRATCH) for each in parts]
    if len(set(names)) < len(names):
        names = ["/".join(each).removesuffix(".save") for each in parts]
    return names


def other_data(path: str | PathLike) -> str | None:
    """What a folder holds that ``mlelec convert`` makes another kind of data set of, or None."""
    path = Path(path)
    if any(any(path.glob(f"{place}*_{kind}.dat*")) for place in ("", "*/") for kind in ("hr", "tb")):
        return "Hamiltonians of Wannier90"
    if any(any(path.glob(f"{place}*_centres.xyz*")) for place in ("", "*/")):
        return "Wannier centers"
    for place in ("*", "*/*"):
        for each in list(path.glob(place))[:MANY]:
            if each.is_file() and b"eV, broadening =" in _head_of(each)[:240]:
                return "a local density of states of pp.x"
    return None


def part_of_run(path: str | PathLike) -> str | None:
    """What a file is that belongs to a run and is no data set by itself, with the remedy; None for other files."""
    path, head = Path(path), _head_of(path)
    first = head[:200].split(b"\n")[0]
    whole = "give the folder of the run, with prefix.save of pw.x in it"
    if first.startswith(b"#") and b"dos(E" in first.replace(b" ", b""):
        return f"a density of states on an energy grid, without structure and levels; {whole}"
    if ".projwfc_" in path.name:
        return f"projections of projwfc.x (filproj), which atomic_proj.xml holds as well; {whole}"
    if program_of(path) == "PROJWFC" or re.search(rb"<NUMBER_OF_ATOMIC_WFC\b|\bNUMBER_OF_ATOMIC_WFC=", head):
        return f"of projwfc.x alone, without the structure; {whole}"
    if (program := program_of(path)) not in (None, "PWSCF"):
        return f"an output of {program} of Quantum ESPRESSO, and those of pw.x alone have labels; {whole}"
    if b"BEGIN_CFG" in head[:1000]:
        return "configurations of MLIP, which have types in place of elements; write them with elements, such as extxyz"
    if {*path.suffixes[-2:]} & PICKLES:
        return "a pickle, which may hold any code and is not read; write its structures with ASE, such as extxyz"
    if path.name.removesuffix(".gz").endswith((".cube", ".cub")):
        return "a function on a grid, and no labels; of the local density of states give the folder of the run of pp.x"
    return None
