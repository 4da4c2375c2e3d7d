"""Small runs of pw.x and projwfc.x 6.7: three hydrogen atoms on a threefold axis, whose k-points symmetry reduces.

``python tests/small_projwfc.py`` runs them (Debian's quantum-espresso; seconds) and writes the stored runs anew.
"""

import json
import lzma
import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from small_espresso import cut_text, input_of

STORED = Path(__file__).parent / "data" / "projwfc_runs.json.xz"
HYDROGEN = dict(
    species="H 1.0 H.pz-vbc.UPF",
    lattice="ibrav=1, celldm(1)=6",
    sites="H 0.3 0 0\nH 0 0.3 0\nH 0 0 0.3",
    system="nbnd=5, occupations='smearing', smearing='fd', degauss=0.02",
    electrons="conv_thr=1e-10, diago_full_acc=.true.",
)
# the same atoms, so far apart that they have a magnetic moment
SPIN = HYDROGEN | {
    "lattice": "ibrav=1, celldm(1)=10",
    "system": HYDROGEN["system"] + ", nspin=2, starting_magnetization(1)=1",
}
WIDTH = 0.04  # Ry, of the spectra that projwfc.x printed
# name -> inputs of pw.x, one after the other; projwfc.x comes last
INPUTS = {
    "symmetric": [HYDROGEN],
    "whole_mesh": [HYDROGEN | {"system": HYDROGEN["system"] + ", nosym=.true., noinv=.true."}],
    "spin": [SPIN],
    "constrained": [SPIN | {"system": SPIN["system"] + ", tot_magnetization=1"}],
    "nscf": [HYDROGEN, HYDROGEN | {"calculation": "nscf", "forces": False, "kpoints": "automatic\n3 3 3 0 0 0"}],
}


def run(name, folder):
    """Run pw.x and projwfc.x in ``folder``; dict from the names of the files of a run, and "pdos", to their texts."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    environment |= dict(OMPI_MCA_btl="self", OMPI_MCA_hwloc_base_binding_policy="none")
    projwfc = f"&projwfc\n prefix='x', outdir='.', ngauss=0, degauss={WIDTH}, DeltaE=0.2, filpdos='x'\n/\n"
    inputs = {f"{each.get('calculation', 'scf')}.out": input_of(**each) for each in INPUTS[name]}
    for output, text in (inputs | {"projwfc.out": projwfc}).items():
        (folder / "input").write_text(text)
        program = "projwfc.x" if output == "projwfc.out" else "pw.x"
        with open(folder / "input") as source, open(folder / output, "w") as target:
            subprocess.run(
                [program], stdin=source, stdout=target, stderr=subprocess.DEVNULL, cwd=folder, env=environment
            )
    spins = 2 if "nspin=2" in INPUTS[name][0]["system"] else 1  # columns of the spins follow each other
    atoms = [np.loadtxt(folder / f"x.pdos_atm#{k}(H)_wfc#1(s)")[:, 1 : 1 + spins].sum(axis=1) for k in (1, 2, 3)]
    total = np.loadtxt(folder / "x.pdos_tot")
    total = np.column_stack([total[:, 0], total[:, 1 : 1 + spins].sum(axis=1)])
    files = {output: cut_text((folder / output).read_text()) for output in inputs}
    files["projwfc.out"] = (folder / "projwfc.out").read_text().split("k = ")[0]
    for each in ("data-file-schema.xml", "atomic_proj.xml"):
        files[f"x.save/{each}"] = re.sub(r"\n\s*\n", "\n", (folder / "x.save" / each).read_text())
    return files | {"pdos": np.column_stack([total, *atoms]).tolist()}


def stored():
    """dict from the name of a run to its files."""
    return json.loads(lzma.decompress(STORED.read_bytes()))


def write_run(name, folder):
    """Write the files of a stored run; returns what projwfc.x printed, array [S, 2 + N]: energy, DOS, DOS of the atoms."""
    files = stored()[name]
    (folder / "x.save").mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        if path != "pdos":
            (folder / path).write_text(text)
    return np.array(files["pdos"])


if __name__ == "__main__":
    done = {}
    for name in INPUTS:
        with tempfile.TemporaryDirectory() as folder:
            done[name] = run(name, Path(folder))
    STORED.write_bytes(lzma.compress(json.dumps(done).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(done)} runs, {STORED.stat().st_size} bytes")
