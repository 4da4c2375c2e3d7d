"""Small runs of pw.x, each as text and as XML: their inputs, and what pw.x 6.7 answered, cut down, for every machine.

``python tests/small_espresso.py`` runs pw.x (Debian's quantum-espresso and quantum-espresso-data; a minute) and writes
the stored runs anew.
"""

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

STORED = Path(__file__).parent / "data" / "espresso_runs.json.xz"
PSEUDO = os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo")

SILICON = "Si 28.086 Si.pz-vbc.UPF"
TWO_SITES = "{0} 0 0 0\n{0} 0.27 0.25 0.25"
FCC = "ibrav=2, celldm(1)=10.2"
SMEARED = "occupations='smearing', smearing='fd', degauss=0.02"
HYBRID = dict(
    lattice="ibrav=1, celldm(1)=6",
    species="H 1.0 H.pz-vbc.UPF",
    kpoints="gamma",
    sites="H 0 0 0\nH 0.23 0 0",
    system="input_dft='pbe0', ecutfock=24, nqx1=1, nqx2=1, nqx3=1",
)

# name -> what differs from a run of silicon with two atoms, one of them displaced; silly cutoffs, for speed
INPUTS = {
    "scf": {},
    "no_forces": dict(forces=False),
    "gamma": dict(kpoints="gamma"),
    "fermi_dirac": dict(system=SMEARED),
    "gaussian": dict(system="occupations='smearing', degauss=0.02"),
    "methfessel_paxton": dict(system="occupations='smearing', smearing='mp', degauss=0.02"),
    "cold": dict(system="occupations='smearing', smearing='mv', degauss=0.02"),
    "tetrahedra": dict(system="occupations='tetrahedra', degauss=0.01"),
    "tetrahedra_opt": dict(system="occupations='tetrahedra_opt'"),
    "from_input": dict(system="occupations='from_input', nbnd=5", kpoints="gamma", tail="OCCUPATIONS\n2 2 2 2 0"),
    "empty_bands": dict(system="nbnd=8"),
    "spin": dict(system=f"{SMEARED}, nspin=2, starting_magnetization(1)=0.5"),
    "spin_fixed": dict(system="nspin=2, tot_magnetization=0, nbnd=6"),
    "two_fermi_levels": dict(system=f"{SMEARED}, nspin=2, tot_magnetization=1"),
    "noncollinear": dict(system=f"{SMEARED}, noncolin=.true., starting_magnetization(1)=0.5"),
    "spin_orbit": dict(system=f"{SMEARED}, noncolin=.true., lspinorb=.true.", species="Si 28.086 Si.rel-pbe-rrkj.UPF"),
    "charged": dict(system=f"{SMEARED}, tot_charge=1"),
    "verbose": dict(system=SMEARED, control="verbosity='high'"),
    "upper_case": dict(species="SI 28.086 Si.pz-vbc.UPF"),
    "lower_case": dict(species="si 28.086 Si.pz-vbc.UPF"),
    "numbered": dict(
        species="Si1 28.086 Si.pz-vbc.UPF\nSi2 28.086 Si.pz-vbc.UPF", sites="Si1 0 0 0\nSi2 0.27 0.25 0.25"
    ),
    "no_element": dict(species="Xq 28.086 Si.pz-vbc.UPF"),
    "carbon_called_cs": dict(species="Cs 12.01 C.pbe-mt_gipaw.UPF"),
    "relax": dict(calculation="relax", forces=False),
    "relax_nstep_1": dict(calculation="relax", control="nstep=1"),
    "relax_nstep_2": dict(calculation="relax", control="nstep=2"),
    "relax_damped": dict(calculation="relax", control="nstep=80, dt=40", ions="ion_dynamics='damp'"),
    "relax_unconverged": dict(calculation="relax", electrons="electron_maxstep=3"),
    "vc_relax": dict(calculation="vc-relax"),
    "vc_relax_nstep_2": dict(calculation="vc-relax", control="nstep=2"),
    "vc_relax_angstrom": dict(
        calculation="vc-relax",
        control="nstep=3",
        lattice="ibrav=0",
        electrons="mixing_beta=0.3",
        system="occupations='smearing', degauss=0.02",
        tail="CELL_PARAMETERS angstrom\n0 2.7 2.7\n2.7 0 2.7\n2.7 2.7 0.1",
    ),
    "md": dict(calculation="md", control="nstep=3, dt=20"),
    "vc_md": dict(calculation="vc-md", control="nstep=3, dt=20"),
    "hybrid": HYBRID,
    "hybrid_relax": dict(HYBRID, calculation="relax", control="nstep=2"),
    "unconverged": dict(electrons="electron_maxstep=2"),
    "unconverged_allowed": dict(electrons="electron_maxstep=2, scf_must_converge=.false."),
    "initialization": dict(control="max_seconds=0.01"),
    "nscf": dict(calculation="nscf", system="nbnd=8", forces=False),
    "bands": dict(calculation="bands", system="nbnd=8", forces=False),
}


def input_of(
    calculation="scf",
    control="",
    system="",
    electrons="",
    ions="",
    tail="",
    forces=True,
    species=SILICON,
    sites=None,
    kpoints="automatic\n2 2 2 0 0 0",
    lattice=FCC,
):
    """Text of pw.x's input."""
    sites = sites or TWO_SITES.format(species.split()[0])
    moving = f"&ions\n {ions}\n/\n&cell\n/\n" if calculation not in ("scf", "nscf", "bands") else ""
    asked = "tprnfor=.true., tstress=.true.," if forces else ""
    counts = f"nat={len(sites.splitlines())}, ntyp={len(species.splitlines())}"
    return (
        f"&control\n calculation='{calculation}', prefix='x', outdir='.', pseudo_dir='{PSEUDO}',\n"
        f"{asked} {control}\n/\n&system\n {lattice}, {counts}, ecutwfc=6, {system}\n/\n"
        f"&electrons\n {electrons}\n/\n{moving}"
        f"ATOMIC_SPECIES\n{species}\nATOMIC_POSITIONS alat\n{sites}\nK_POINTS {kpoints}\n{tail}\n"
    )


def run(name, folder):
    """Run pw.x in ``folder``; returns the paths of its text output and its XML file."""
    names = ["scf", name] if name in ("nscf", "bands") else [name]
    for each in names:
        (folder / f"{each}.in").write_text(input_of(**INPUTS[each]))
        with open(folder / f"{each}.in") as source, open(folder / f"{each}.out", "w") as target:
            subprocess.run(
                ["pw.x"],
                stdin=source,
                stdout=target,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=dict(
                    os.environ,
                    OMP_NUM_THREADS="1",
                    OMPI_ALLOW_RUN_AS_ROOT="1",
                    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                    OMPI_MCA_btl="self",
                    OMPI_MCA_hwloc_base_binding_policy="none",
                ),
            )
    return folder / f"{name}.out", folder / "x.save" / "data-file-schema.xml"


def stored():
    """dict from the name of a run to (text, XML), cut down."""
    return {name: tuple(pair) for name, pair in json.loads(lzma.decompress(STORED.read_bytes())).items()}


UNREAD = re.compile(
    r"Davidson|ethr =|total cpu time|avg # of|Threshold \(eth|Diagonalizing|Sym\. Ops|PseudoPot|MD5|"
    r"/usr/|Using radial|Pseudo is|Generated by|l\(\d\) =|Estimated max|[Ss]tarting |MPI|Giannozzi|URL|"
    r"in publications|quantum sim|This program is|http|Dense  grid|wk =|sticks|G-vector|\d+ calls\)|"
    r"^     [A-Za-z_:]+ +: +\d.*CPU.*WALL \(|Called by|routines|terminated on|Max |^ +-?\d+\.\d{4} "
)


def cut_text(text):
    """The lines that say what was calculated, without timings, pseudopotentials, plane waves and bands."""
    text = "\n".join(line.rstrip() for line in text.splitlines() if not UNREAD.search(line))
    return re.sub(r"\n{3,}", "\n\n", text) + "\n"


def cut_xml(text):
    """Without timings, symmetries, plane waves and the k points after the second."""
    ElementTree.register_namespace("qes", "http://www.quantum-espresso.org/ns/qes/qes-1.0")
    root = ElementTree.fromstring(text)
    unread = (
        "parallel_info timing_info symmetries basis_set algorithmic_info ion_control symmetry_flags "
        "starting_k_points k_points_IBZ free_positions magnetization dft basis npw rotation"
    ).split()
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in unread]:
            parent.remove(child)
    bands = root.find("output/band_structure")
    for point in [] if bands is None else bands.findall("ks_energies")[2:]:
        bands.remove(point)
    if bands is not None:
        bands.find("nks").text = str(len(bands.findall("ks_energies")))
    return re.sub(r"\n\s*\n", "\n", ElementTree.tostring(root, encoding="unicode"))


def run_script(name, folder):
    """One structure as a data script calculates it, which reads the XML; returns its result and where the text lies."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "dft"))
    from ase import Atoms
    from ase.build import bulk, molecule

    if name == "silicon":
        import silicon_labels

        atoms = bulk("Si")
        atoms.rattle(0.05, seed=1)
        return silicon_labels.calculate_energy(atoms, folder / name, (2, 2, 2), 4, 10.0), folder / name / "scf.out"
    if name == "aluminium":
        import aluminium

        atoms = bulk("Al", cubic=True)
        atoms.rattle(0.05, seed=1)
        return aluminium.calculate(atoms, folder / name, 933.0, 6.0), folder / name / "scf.out"
    assert name == "ice"
    import ice_labels

    atoms = Atoms(molecule("H2O"), cell=[5, 5, 5], pbc=True)
    return ice_labels.calculate(atoms, folder / name, None, 12.0), folder / name / "scf.out"


def main():
    pairs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in INPUTS:
            place = Path(folder) / name
            place.mkdir()
            pairs[name] = run(name, place)
        for name in "silicon", "aluminium", "ice":
            output = run_script(name, Path(folder))[1]
            pairs[name] = output, output.parent / "tmp" / "x.save" / "data-file-schema.xml"
        done = {name: (cut_text(text.read_text()), cut_xml(xml.read_text())) for name, (text, xml) in pairs.items()}
    STORED.write_bytes(lzma.compress(json.dumps(done).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(done)} runs, {STORED.stat().st_size} bytes")


if __name__ == "__main__":
    assert shutil.which("pw.x"), "pw.x is not installed"
    main()
