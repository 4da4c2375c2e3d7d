"""vasprun.xml as VASP 6 lays it out, from numbers that are all known."""

import h5py
import numpy as np

ROWS = "".join
KINDS = {int: ' type="int"', float: "", bool: ' type="logical"', str: ' type="string"'}


def row(values, tag="v"):
    return f"<{tag}>" + " ".join(f"{value:16.8f}" for value in values) + f" </{tag}>\n"


def parameter(name, value):
    text = ("T" if value else "F") if isinstance(value, bool) else value
    return f'<i{KINDS[type(value)]} name="{name}"> {text}  </i>\n'


def varray(name, rows):
    return f'<varray name="{name}" >\n' + ROWS(row(each) for each in rows) + "</varray>\n"


def structure(cell, fractions, name=""):
    crystal = f"<crystal>\n{varray('basis', cell)}{varray('rec_basis', np.linalg.inv(cell).T)}</crystal>\n"
    return f"<structure{name}>\n{crystal}{varray('positions', fractions)}</structure>\n"


def levels(eigenvalues, occupations):
    """The array of eigenvalues and occupations [spins, K, M]."""
    text = '<array>\n<dimension dim="1">band</dimension>\n<field>eigene</field>\n<field>occ</field>\n<set>\n'
    for s, (spin, filled) in enumerate(zip(eigenvalues, occupations)):
        text += f'<set comment="spin {s + 1}">\n'
        for k, pair in enumerate(zip(spin, filled)):
            text += f'<set comment="kpoint {k + 1}">\n' + ROWS(row(each, "r") for each in zip(*pair)) + "</set>\n"
        text += "</set>\n"
    return f"<eigenvalues>\n{text}</set>\n</array>\n</eigenvalues>\n"


def shares_of(amounts):
    """The array of projections [spins, K, M, N, orbitals]."""
    text = '<array>\n<dimension dim="1">ion</dimension>\n<field>s</field>\n<set>\n'
    for s, spin in enumerate(amounts):
        text += f'<set comment="spin{s + 1}">\n'
        for k, point in enumerate(spin):
            text += f'<set comment="kpoint {k + 1}">\n'
            for m, band in enumerate(point):
                text += f'<set comment="band {m + 1}">\n' + ROWS(row(atom, "r") for atom in band) + "</set>\n"
            text += "</set>\n"
        text += "</set>\n"
    return text + "</set>\n</array>\n"


def scstep(energy):
    return (
        f'<scstep>\n<energy>\n<i name="e_fr_energy"> {energy:.8f} </i>\n<i name="e_wo_entrp"> {energy + 0.02:.8f} </i>\n'
        + (f'<i name="e_0_energy"> {energy + 0.01:.8f} </i>\n</energy>\n</scstep>\n')
    )


def vasprun(data, **parameters):
    """Text of vasprun.xml.

    data : dict with symbols, valence (by symbol), cell, steps (list of dict of fractions, energy, forces, stress kbar),
    weights, eigenvalues and occupations [spins, K, M], shares [spins, K, M, N, orbitals] or None, level, n_electrons
    """
    used = {"ISPIN": 1, "ISMEAR": -1, "SIGMA": 0.1, "ISYM": 0, "NELM": 60, "EDIFF": 1e-6, "NELECT": data["n_electrons"]}
    used |= {"LNONCOLLINEAR": False, "GGA": "PE", "ENMAX": 400.0, "SYMPREC": 1e-5} | parameters
    symbols = data["symbols"]
    kinds = list(dict.fromkeys(symbols))
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator>\n'
    text += '<i name="program" type="string">vasp </i>\n<i name="version" type="string">6.3.0  </i>\n</generator>\n'
    text += '<kpoints>\n<generation param="Gamma">\n<v type="int" name="divisions">  2  1  1 </v>\n</generation>\n'
    text += varray("kpointlist", [(0.5 * k, 0, 0) for k in range(len(data["weights"]))])
    text += varray("weights", [[weight] for weight in data["weights"]]) + "</kpoints>\n"
    text += '<parameters>\n<separator name="electronic" >\n'
    text += ROWS(parameter(*each) for each in used.items()) + "</separator>\n</parameters>\n"
    text += f'<atominfo>\n<atoms> {len(symbols)} </atoms>\n<array name="atoms" >\n<set>\n'
    text += ROWS(f"<rc><c>{symbol:2}</c><c> {kinds.index(symbol) + 1}</c></rc>\n" for symbol in symbols)
    text += '</set>\n</array>\n<array name="atomtypes" >\n<set>\n'
    for kind in kinds:
        text += f"<rc><c> {symbols.count(kind)}</c><c>{kind:2}</c><c> 1.0</c><c> {data['valence'][kind]:.8f}</c>"
        text += f"<c>  PAW_PBE {kind} 05Jan2001 </c></rc>\n"
    text += "</set>\n</array>\n</atominfo>\n" + structure(
        data["cell"], data["steps"][0]["fractions"], ' name="initialpos" '
    )
    for k, step in enumerate(data["steps"]):
        text += "<calculation>\n" + ROWS(map(scstep, step.get("scsteps", [step["energy"] + 1e-3, step["energy"]])))
        text += structure(data["cell"], step["fractions"])
        text += varray("forces", step["forces"]) + varray("stress", step["stress"])
        text += f'<energy>\n<i name="e_fr_energy"> {step["energy"]:.8f} </i>\n'
        text += f'<i name="e_wo_entrp"> {step["energy"] + 0.02:.8f} </i>\n<i name="e_0_energy"> 0.0 </i>\n</energy>\n'
        if k == len(data["steps"]) - 1:
            every = levels(data["eigenvalues"], data["occupations"])
            text += every + f'<dos>\n<i name="efermi">  {data["level"]:.8f} </i>\n</dos>\n'
            if data.get("shares") is not None:
                text += f"<projected>\n{every}{shares_of(data['shares'])}</projected>\n"
        text += "</calculation>\n"
    return text + structure(data["cell"], data["steps"][-1]["fractions"], ' name="finalpos" ') + "</modeling>\n"


def example(seed=0, spins=1, n_steps=2):
    """Two atoms and two k-points whose uppermost band is high; NaCl with one and seven electrons."""
    rng = np.random.default_rng(seed)
    cell = np.diag([4.0, 4.5, 5.0]) + rng.normal(0, 0.1, (3, 3))
    eigenvalues = np.sort(rng.uniform(-8, 8, (spins, 2, 6)), axis=2)
    eigenvalues[..., -1] += 8
    shares = rng.uniform(0.05, 0.1, (spins, 2, 6, 2, 4))
    steps = []
    for k in range(n_steps):
        half = rng.normal(0, 20, (3, 3))
        steps.append(
            {
                "fractions": np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) + rng.normal(0, 0.01, (2, 3)),
                "energy": -7.0 - 0.1 * k,
                "forces": rng.normal(0, 1, (2, 3)),
                "stress": half + half.T,
            }
        )
    return {
        "symbols": ["Na", "Cl"],
        "valence": {"Na": 1.0, "Cl": 7.0},
        "cell": cell,
        "steps": steps,
        "weights": [0.25, 0.75],
        "eigenvalues": eigenvalues,
        "occupations": (eigenvalues < 0).astype(float),
        "shares": shares,
        "level": 0.0,
        "n_electrons": 8.0,
    }


LATTICE = "      direct lattice vectors                 reciprocal lattice vectors\n"


def outcar(data, *, nelm=60, kinds=None, settings=""):
    """Text of OUTCAR as VASP 6 lays it out, of the same ``data``; a step may have ``electronic``, the number of its
    electronic steps (default: 2, converged), and ``learned``, for a step of a machine-learned potential.

    kinds : names of the potentials, such as Na_pv
    settings : lines that follow the kinds of atoms
    """
    symbols, cell = data["symbols"], data["cell"]
    elements = list(dict.fromkeys(symbols))
    potcars = "".join(f" POTCAR:    PAW_PBE {kind} 05Jan2001\n" for kind in kinds or elements)
    text = " vasp.6.3.0 20Jan22\n\n executed on             LinuxIFC date 2022.05.12  14:11:53\n\n INCAR:\n" + potcars
    for potcar, kind in zip(potcars.splitlines(), elements):
        text += f"{potcar}\n   VRHFIN ={kind}: s2p2\n"
    text += f"   ions per type =           {''.join(f'{symbols.count(kind):4d}' for kind in elements)}\n"
    text += (
        f"   NELM   =   {nelm:4d};   NELMIN=  4; NELMDL= -5     # of ELM steps\n   PSTRESS=    1.0 pullay stress\n"
        + settings
    )
    text += LATTICE + 3 * (6 * f"{7:13.9f}" + "\n")
    for k, step in enumerate(data["steps"]):
        text += _outcar_step(k + 1, step, cell)
    return text + " General timing and accounting informations for this job:\n"


def _outcar_step(k, step, cell):
    learned, text = step.get("learned", False), ""
    for n in range(0 if learned else step.get("electronic", 2)):
        text += (
            f"{'-' * 39} Iteration {k:6d}({n + 1:4d})  {'-' * 39}\n\n  free energy    TOTEN  =  {n - 50:17.8f} eV\n\n"
        )
    if not learned and "electronic" not in step:
        text += f"{'-' * 24} aborting loop because EDIFF is reached {'-' * 40}\n"
    (xx, xy, zx), (_, yy, yz), (_, _, zz) = np.array(step["stress"])
    mark = "ML " if learned else ""
    text += f"  {mark}FORCE on cell =-STRESS in cart. coord.  units (eV):\n  in kB    "
    text += "".join(f"{value:12.5f}" for value in (xx, yy, zz, xy, yz, zx)) + "\n"
    text += LATTICE + "".join("".join(f"{value:13.9f}" for value in (*row, 0, 0, 0)) + "\n" for row in cell)
    text += f" POSITION                                       TOTAL-FORCE (eV/Angst){learned * ' (ML)'}\n {'-' * 83}\n"
    for place, force in zip(step["fractions"] @ cell, step["forces"]):
        text += "".join(f"{value:13.5f}" for value in place) + "   " + "".join(f"{v:14.6f}" for v in force) + "\n"
    text += f" {'-' * 83}\n\n  {mark}FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  {'-' * 51}\n"
    text += f"  free  energy {mark}  TOTEN  ={step['energy']:20.8f} eV\n\n"
    return (
        text
        + f"  energy  without entropy={step['energy'] + 0.02:18.8f}  energy(sigma->0) ={step['energy'] + 0.01:18.8f}\n\n"
    )


def ml_ab(structures):
    """Text of ML_AB as VASP 6 lays it out, of ``structures``, tuples of (symbols, cell, step); kinds stay together."""
    stars, lines, rule = "*" * 50, "=" * 50, "-" * 50
    kinds = list(dict.fromkeys(symbol for symbols, *_ in structures for symbol in symbols))
    text = f" 1.0 Version\n{stars}\n     The number of configurations\n{rule}\n{len(structures):10d}\n{stars}\n"
    text += f"     The atom types in the data file\n{rule}\n     {' '.join(kinds)}\n{stars}\n     Basis set for Na\n{rule}\n"
    text += f"{1:12d}{1:7d}\n"
    for k, (symbols, cell, step) in enumerate(structures, 1):
        counts = "".join(f"     {kind:2}{symbols.count(kind):7d}\n" for kind in dict.fromkeys(symbols))
        stress = np.array(step["stress"])
        text += f"{stars}\n     Configuration num.{k:7d}\n{lines}\n     System name\n{rule}\n     rock salt\n{lines}\n"
        text += f"     The number of atoms\n{rule}\n{len(symbols):10d}\n{stars}\n"
        text += f"     Atom types and atom numbers\n{rule}\n{counts}"
        text += f"{lines}\n     CTIFOR\n{rule}\n   2.000000000000000E-003\n"
        for title, rows in (
            ("Primitive lattice vectors (ang.)", cell),
            ("Atomic positions (ang.)", step["fractions"] @ cell),
            ("Total energy (eV)", [[step["energy"]]]),
            ("Forces (eV ang.^-1)", step["forces"]),
        ):
            text += f"{lines}\n     {title}\n{rule}\n" + ROWS(
                "".join(f"{x:24.15E}" for x in row) + "\n" for row in rows
            )
        text += f"{lines}\n     Stress (kbar)\n{rule}\n     XX YY ZZ\n{rule}\n"
        text += "".join(f"{stress[i, i]:24.15E}" for i in range(3)) + f"\n{rule}\n     XY YZ ZX\n{rule}\n"
        text += "".join(f"{stress[i, (i + 1) % 3]:24.15E}" for i in range(3)) + "\n"
    return text


def vaspout(path, data, *, converged=True, scale=1.0, label="free energy    TOTEN   ", **incar):
    """Write vaspout.h5 as VASP 6 lays it out, of the same ``data``; a step may have ``failed``, for its electrons."""
    steps, kinds = data["steps"], list(dict.fromkeys(data["symbols"]))
    with h5py.File(path, "w") as file:
        for name, number in (("major", 6), ("minor", 4), ("patch", 2)):
            file[f"version/{name}"] = number
        file["original/incar/content"] = "".join(f"  {name} = {value}\n" for name, value in incar.items()).encode()
        file["results/positions/scale"] = scale
        file["results/positions/ion_types"] = np.array([f"{kind}_pv/0123abcd" for kind in kinds], dtype="S16")
        file["results/positions/number_ion_types"] = [data["symbols"].count(kind) for kind in kinds]
        group = file.create_group("intermediate/ion_dynamics")
        group["energies_tags"] = np.array([label, "energy without entropy", "energy(sigma->0)"], dtype="S24")
        energies = np.array([step["energy"] for step in steps])
        group["energies"] = np.stack([energies, energies + 0.02, energies + 0.01], axis=1)
        group["lattice_vectors"] = np.array([data["cell"] / scale for _ in steps])
        group["position_ions"] = np.array([step["fractions"] for step in steps])
        group["forces"] = np.array([step["forces"] for step in steps])
        group["stress"] = np.array([step["stress"] for step in steps])
        if converged:
            group["electronic_step_converged"] = [[float(step.get("failed", False))] for step in steps]
