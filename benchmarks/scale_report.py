"""Table and picture of scale.py, and the plan for larger systems."""

import numpy as np

PLAN = """\
## A plan for 10^6 atoms, 10^9 grid points, 10^5 functions

On paper: nothing here was run at these sizes. P processes; numbers are float64 unless stated. What `torchrun` shares
today is in `docs/performance.rst`; what is missing is marked.

**Energy, forces, density of states of 10^6 atoms.** The chunks of atoms are independent. Memory beside them grew by
{list_kb:.0f} kB for each atom of silicon: list of neighbors, spectra of the atoms, and what energy and spectra share.
For 10^6 atoms that is {list_kb:.0f} GB, which one process holds on a large machine only. *Missing*: domains. A domain
of n atoms needs the positions of the atoms within the cutoff of its surface, about 6 n^(2/3) c/d atoms for a cutoff
of c and a distance of d between atoms: at n = 30,000 as many as 20,000, 24 bytes each, and sends as many forces back.
That is 1 MB for each step and process, against ten seconds of work. The spectra of atoms are summed in each domain: S
numbers from each process, once. LAMMPS, with a model that is written for it, has such domains.

**ML-DFT of 10^9 points.** {per_point:.0f} µs for each point, so {hours:.0f} core hours: 100 processes take {wall:.0f}
minutes. Each process keeps its own points only, {bytes_per_point:.0f} bytes for each: {own:.2f} GB at P = 100 (today
every process keeps all points, {all_points:.0f} GB: *missing* are points and density in slabs). Communication before
the Fermi level: the mean of the last hidden layer, 144 numbers from each process. After it: the density, 8 GB in
slabs of the first axis, in which each process needs no more than its own slab. A Fourier transform in slabs exchanges
the half spectrum once, 16 bytes/2 for each point and so 80 MB from each of 100 processes, and returns a number; for
forces it goes back once more. Exchange and correlation of LDA need no neighbors; those of PBE three more transforms.
Forces: each process adds up 3 N + 9 numbers, 24 MB at 10^6 atoms, in one sum. The ion-ion energy goes by way of a
mesh and grows as N log N, {ewald:.0f} s at 131,072 atoms; it is evaluated by every process alike.

**k-points.** Eigenvalues at k-points are independent: each process takes every P-th, and needs H(R), {r_bytes:.0f}
bytes for each function of MoS2. What is added up is a spectrum. *Missing* in `torchrun`, as are the random vectors of
kernel polynomials, which are independent too.

**10^5 functions.** H(k) is sparse, {nnz:.0f} elements for each function of MoS2, 16 bytes and an index each:
{h_gb:.1f} GB. A moment of a vector is one product with H: {moment:.2f} s at 10^5 functions on one core. With P
processes each takes rows of H and the elements of the vector near them; for bilayers a strip of rows needs the
elements of two strips of the neighbors' within 12 Å. Interior eigenvalues by shift and invert need a factorization,
which fills up: they end at some 10,000 functions on one machine.
"""


def report(results, models):
    lines = [
        "# Large systems: time and memory",
        "",
        "Written by `python benchmarks/scale.py`. Processor seconds of one thread, float64 inside; GB is the largest "
        "memory of the process. The machine had two cores and other work; its load is stated, and processor seconds are up "
        "to twice those of an idle machine.",
        "",
        models,
        "",
    ]
    for name, section in (
        ("energy", _energy),
        ("ldos", _ldos),
        ("streamed", _streamed),
        ("processes", _processes),
        ("mos2", _hamiltonian),
    ):
        if name in results and (name != "ldos" or {"terms", "ions", "streamed", "spacing"} <= results.keys()):
            lines += section(results)
    if {"energy", "ldos", "terms", "ions", "mos2"} <= results.keys():
        lines.append(_plan(results))
    return "\n".join(lines)


def _load(rows):
    loads = [row["load"] for row in rows]
    return f"{min(loads):.1f} to {max(loads):.1f}" if len(loads) > 1 else f"{loads[0]:.1f}"


def _energy(results):
    rows = results["energy"]
    yield f"## Silicon, model `si`: energy, forces, density of states, Fermi level (load {_load(rows)})"
    yield ""
    yield "| atoms | energy and forces, ms per atom | density of states, ms per atom | Fermi level, s | GB | kB per atom |"
    yield "|---" * 6 + "|"
    for row in rows:
        per_atom = [1e3 * row["seconds"][name] / row["atoms"] for name in ("energy and forces", "density of states")]
        memory = 1e6 * (row["GB"] - rows[0]["GB"]) / row["atoms"]
        shown = f"{memory:.0f}" if row is not rows[0] else ""
        yield (
            f"| {row['atoms']:,} | {per_atom[0]:.2f} | {per_atom[1]:.2f} | {row['seconds']['Fermi level']:.3f} | "
            f"{row['GB']:.2f} | {shown} |"
        )
    yield ""
    yield "Memory per atom is beyond that of the smallest cell, which is PyTorch, the model and one chunk for the most part."
    yield ""
    yield "![Cost per atom](scale.png)"
    yield ""


def whole_grid(row, terms, ions):
    """Seconds of each step for the whole grid."""
    scale, times = row["points"] / row["slice"], row["seconds"]
    found = {name: times[name] * scale for name in ("fingerprints", "net", "projections", "chunks")}
    found["search of neighbors"] = times["search of neighbors"] * row["points"] / row["searched"]
    found["guess of the Fermi level"] = sum(found.values()) / 64
    found["neighbors of atoms"] = times["neighbors of atoms"]
    return found | terms["seconds"] | ions["seconds"]


def _ldos(results):
    row, terms, ions = results["ldos"][0], results["terms"][0], results["ions"][0]
    times = whole_grid(row, terms, ions)
    total, at_slice = sum(times.values()), 1e6 * row["seconds"]["fingerprints"] / row["slice"]
    yield f"## Aluminium, model `al`: total free energy of {row['atoms']:,} atoms on {row['points']:,} points"
    yield ""
    yield (
        f"What is done point by point is measured on a slice of {row['slice']:,} points of the whole cell, the "
        f"shortest of three times, and scaled "
        f"(load {_load([row, terms])}, of the ion-ion energy {_load([ions])}); "
        f"fingerprints take {at_slice:.0f} µs for each point. The Hartree energy is measured on a "
        "density of the full size, exchange and correlation on a sixteenth of it, and the ion-ion energy on "
        f"all atoms, with {ions['GB']:.1f} GB beside the density, which has {8e-9 * row['points']:.1f} GB."
    )
    yield ""
    yield "| step | seconds |"
    yield "|---|---|"
    for name, seconds in times.items():
        yield f"| {name} | {seconds:,.0f} |"
    yield f"| all, hours | {total / 3600:.2f} |"
    yield ""
    columns = (8 + 4 * (row["projections"] - 1)) * row["points"] / 1e9
    yield (
        f"Memory: {row['GB']:.2f} GB in the slice (PyTorch, model, atoms, a chunk), and {row['projections']} projections "
        f"for every point, the first in float64 and the others in float32, {columns:.2f} GB: together "
        f"{row['GB'] + columns:.2f} GB. The density takes the place of the first projection, and the others are gone "
        "before the Fourier transform"
        f", which takes {terms['GB']:.2f} GB with the density."
    )
    yield ""
    yield (
        f"The aim is two hours. At the spacing of the training data, {4.05 / 20:.4f} Å, it is "
        f"{'met' if total <= 7200 else 'missed'}; "
        f"{100 * times['fingerprints'] / total:.0f} % are fingerprints, for which the number of points decides. On 32 "
        'atoms, coarser grids (`model.metadata["grid_spacing_A"]`) give:'
    )
    yield ""
    yield "| spacing, Å | energy, meV per atom off | Fermi level, meV off | all steps for 131,072 atoms, hours |"
    yield "|---" * 4 + "|"
    reference, by_point = results["streamed"][0], [name for name in times if name in row["seconds"]]
    by_point = sum(times[name] for name in [*by_point, "guess of the Fermi level"] if name != "neighbors of atoms")
    for other in [reference, *results["spacing"]]:
        share = other["points"] / reference["points"]
        hours = (total - (1 - share) * by_point) / 3600
        off = [1e3 * (other[name] - reference[name]) for name in ("energy", "fermi_level")]
        spacing = 8.1 / other["points"] ** (1 / 3)
        yield f"| {spacing:.3f} | {off[0]:+.4f} | {off[1]:+.4f} | {hours:.1f} |"
    yield ""


def _streamed(results):
    kept, streamed = results["streamed"]
    yield "The same energy from end to end, with the LDOS of all points kept and streamed:"
    yield ""
    yield "| atoms | points | | energy, eV per atom | seconds | GB beyond the start |"
    yield "|---" * 6 + "|"
    for name, row in (("kept", kept), ("streamed", streamed)):
        yield (
            f"| {row['atoms']} | {row['points']:,} | {name} | {row['energy']:.9f} | "
            f"{row['seconds']['total free energy']:.1f} | {row['GB'] - row['GB before']:.3f} |"
        )
    yield ""
    yield "The model is in float32, in which kept coordinates are rounded; in float64 both agree to 1e-12 (tests)."
    yield ""


def _processes(results):
    rows = results["processes"]
    yield "## Two processes of torchrun"
    yield ""
    yield "| work | processor seconds of one | of each of two | ratio to the busier one | wall seconds, one and two | load |"
    yield "|---" * 6 + "|"
    titles = {
        "grid": "ML-DFT, 32 atoms, 64,000 points: energy, forces, stress",
        "evaluate": "`evaluate`, 64 structures of 64 atoms: energy, forces, density of states",
        "training": "gradient descent of a Deep Potential, 16 structures of 32 atoms in a step, 6 steps",
        "longer training": "the same, 26 steps",
    }
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        each = ", ".join(f"{seconds:.2f}" for seconds in two["seconds"])
        yield (
            f"| {titles[one['kind']]} | {one['seconds'][0]:.2f} | {each} | {one['seconds'][0] / max(two['seconds']):.2f} | "
            f"{one['wall']:.1f}, {two['wall']:.1f} | {_load([one, two])} |"
        )
    yield ""
    yield (
        "The ratio of processor seconds is what two idle cores would give, if nothing but the work of a process took time; "
        "processor seconds depend on what else the machine does; of two runs in "
        "turns the shortest counts. Wall times depend on what else the cores do. What "
        "is loaded once, such as PyTorch's optimizer, was loaded before" + _each_step(rows)
    )
    yield ""


def _each_step(rows):
    """What the steps of the two trainings take beyond the preparation."""
    most = {(row["kind"], row["processes"]): max(row["seconds"]) for row in rows}
    if ("longer training", 2) not in most:
        return "."
    one, two = (most["longer training", n] - most["training", n] for n in (1, 2))
    return f"; the 20 further steps alone take {one:.2f} s, and {two:.2f} s of each of two, a ratio of {one / two:.2f}."


def line_of(rows, value):
    """Value at 100,000 functions, on the line through the two largest cells."""
    (x1, y1), (x2, y2) = [(row["functions"], value(row)) for row in rows[-2:]]
    return y2 + (y2 - y1) / (x2 - x1) * (1e5 - x2)


def _hamiltonian(results):
    yield "## Twisted bilayers: sparse Hamiltonian and its density of states (256 moments of 4 vectors)"
    yield ""
    yield "| | degrees | atoms | functions | Hamiltonian, s | density of states, s | elements per function | GB |"
    yield "|---" * 8 + "|"
    for name in ("graphene", "mos2"):
        for row in results.get(name, ()):
            times = row["seconds"]
            yield (
                f"| `{name}` | {abs(row['angle']):.2f} | {row['atoms']:,} | {row['functions']:,} | "
                f"{times['Hamiltonian']:.1f} | {times['density of states']:.1f} | {row['elements per function']:.0f} | "
                f"{row['GB']:.2f} |"
            )
        rows = results.get(name, ())
        if len(rows) > 1:
            made, dos, memory = (
                line_of(rows, value)
                for value in (
                    lambda row: row["seconds"]["Hamiltonian"],
                    lambda row: row["seconds"]["density of states"],
                    lambda row: row["GB"],
                )
            )
            yield f"| `{name}`, extrapolated | | | 100,000 | {made:.0f} | {dos:.0f} | | {memory:.1f} |"
    yield ""
    yield (
        f"Load {_load([row for name in ('graphene', 'mos2') for row in results.get(name, ())])}. The last line of each is "
        "on the line through the two largest cells; the aim is 24 GB."
    )
    yield ""


def _plan(results):
    ldos, energy, mos2 = results["ldos"][0], results["energy"], results["mos2"][-1]
    points = ldos["seconds"]
    per_point = 1e6 * sum(points[name] for name in ("fingerprints", "net", "projections", "chunks")) / ldos["slice"]
    list_kb = 1e6 * (energy[-1]["GB"] - energy[0]["GB"]) / energy[-1]["atoms"]
    moment = line_of(results["mos2"], lambda row: row["seconds"]["density of states"]) / (256 / 2 * 4)
    return PLAN.format(
        list_kb=list_kb,
        per_point=per_point,
        hours=per_point * 1e9 / 1e6 / 3600,
        wall=per_point * 1e9 / 1e6 / 60 / 100,
        bytes_per_point=8 + 4 * (ldos["projections"] - 1),
        all_points=8 + 4 * (ldos["projections"] - 1),
        own=(8 + 4 * (ldos["projections"] - 1)) / 100,
        ewald=results["ions"][0]["seconds"]["ion-ion energy"],
        r_bytes=mos2["elements per function"] * 12,
        nnz=mos2["elements per function"],
        h_gb=mos2["elements per function"] * 1e5 * 20 / 1e9,
        moment=moment,
    )


def picture(results, path, colors):
    """Cost per atom against the number of atoms."""
    from matplotlib.figure import Figure

    rows = results.get("energy")
    if not rows:
        return
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes, atoms = figure.subplots(), np.array([row["atoms"] for row in rows])
    for name, color in zip(("energy and forces", "density of states"), colors):
        axes.plot(atoms, 1e3 * np.array([row["seconds"][name] for row in rows]) / atoms, "o-", color=color, label=name)
    axes.set(xscale="log", xlabel="atoms of silicon", ylabel="processor time, ms per atom", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
