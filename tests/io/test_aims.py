"""Outputs of FHI-aims, as version 221103 writes them: whole steps whose electrons converged."""

import numpy as np
import pytest

from ase_mlelec.data.frames import read_frames

HEAD = """          Invoking FHI-aims ...
  | Number of atoms                   :        2
  | Number of spin channels           :        1
  Input geometry:
  | Unit cell:
  |        0.00000000        2.71500000        2.71500000
  |        2.71500000        0.00000000        2.71500000
  |        2.71500000        2.71500000        0.00000000
  | Atomic structure:
  |       Atom                x [A]            y [A]            z [A]
  |    1: Species Si            0.00000000        0.00000000        0.00000000
  |    2: Species Si            1.35750000        1.35750000        1.35750000
  The structure contains        2 atoms,  and a total of         28.000 electrons.
  | Number of Kohn-Sham states (occupied + empty):       20
  | Number of k-points                             :        8
"""
END = "          Leaving FHI-aims.\n          Have a nice day.\n" + 60 * "-" + "\n"
FAILED = " * WARNING! SELF-CONSISTENCY CYCLE DID NOT CONVERGE\n * USING YOUR PRESELECTED ACCURACY CRITERIA.\n"


def loop(k, converged=True):
    """The electrons of one step, with energies in hartree and eV, and forces."""
    energy = -15752 + 0.1 * k
    return f"""
          Begin self-consistency loop: {"Re-i" if k else "I"}nitialization.
          Begin self-consistency iteration #    1
  | Electronic free energy        :        {(energy - 0.1) / 27.2113845:.8f} Ha       {energy - 0.1:.8f} eV
{"  Self-consistency cycle converged." if converged else FAILED}
  Energy and forces in a compact form:
  | Total energy uncorrected      :         {energy:.15E} eV
  | Total energy corrected        :         {energy - 0.05:.15E} eV  <-- do not rely on this value
  | Electronic free energy        :         {energy - 0.1:.15E} eV
  Total atomic forces (unitary forces cleaned) [eV/Ang]:
  |    1          0.100000000000000E+00          0.000000000000000E+00          0.000000000000000E+00
  |    2         -0.100000000000000E+00          0.000000000000000E+00          0.000000000000000E+00
"""


def place(k):
    """The structure of a step of molecular dynamics, which follows the electrons."""
    return f"""  Atomic structure (and velocities) as used in the preceding time step:
  lattice_vector         0.00000000        2.71500000        2.71500000
  lattice_vector         2.71500000        0.00000000        2.71500000
  lattice_vector         2.71500000        2.71500000        0.00000000
            atom         {0.01 * k:.8f}        0.00000000        0.00000000  Si
        velocity         0.10000000        0.00000000        0.00000000
            atom         1.35750000        1.35750000        1.35750000  Si
        velocity         0.10000000        0.00000000        0.00000000
"""


def dynamics(n_steps, failed=()):
    return HEAD + "".join(loop(k, k not in failed) + place(k) for k in range(n_steps))


def check(frames, steps):
    assert len(frames) == len(steps)
    for each, k in zip(frames, steps):
        assert each.labels["energy"] == pytest.approx(-15752.1 + 0.1 * k, abs=1e-6)
        np.testing.assert_allclose(each.labels["forces"], [[0.1, 0, 0], [-0.1, 0, 0]])
        assert each.atoms.positions[0, 0] == pytest.approx(0.01 * k)


def test_run(tmp_path, recwarn):
    path = tmp_path / "aims.out"
    path.write_text(dynamics(3) + END)
    check(read_frames(path), [0, 1, 2])
    assert not recwarn.list  # such as of ASE's plans for its readers


def test_run_that_did_not_finish(tmp_path):
    """A step that is cut off has no energy but one of its electrons, in hartree."""
    path = tmp_path / "aims.out"
    path.write_text(dynamics(3) + loop(3)[:240])
    with pytest.warns(UserWarning, match="aims.out: the run did not finish; its 3 whole steps are read"):
        check(read_frames(path), [0, 1, 2])
    path.write_text(HEAD + loop(0)[:240])
    with pytest.raises(ValueError, match="aims.out: .*no step that has ended and whose electrons converged"):
        read_frames(path)


def test_electrons_that_did_not_converge(tmp_path):
    path = tmp_path / "aims.out"
    path.write_text(dynamics(3, failed=[1]) + END)
    with pytest.warns(UserWarning, match="aims.out: 1 of 3 steps did not converge, and are left out"):
        check(read_frames(path), [0, 2])


MIXER = "  Self-consistency cycle not yet converged - restarting mixer to attempt better convergence.\n"


def restarted(k, converged=True):
    """A step whose electrons converge, or not, in a second loop."""
    first = loop(k).split("  Self-consistency cycle converged.")[0]
    return first + MIXER + loop(k, converged).replace("loop: Initialization", "loop: Re-initialization")


def test_loops_that_restart_the_mixer_are_no_steps(tmp_path):
    """By the number of loops, the step after the one that failed would be left out in its place."""
    path = tmp_path / "aims.out"
    whole = HEAD + restarted(0) + place(0) + loop(1) + place(1) + loop(2, False) + place(2) + loop(3) + place(3)
    path.write_text(whole + END)
    with pytest.warns(UserWarning, match="aims.out: 1 of 4 steps did not converge, and are left out"):
        check(read_frames(path), [0, 1, 3])
    path.write_text(HEAD + loop(0) + place(0) + restarted(1, False) + place(1) + loop(2) + place(2) + END)
    with pytest.warns(UserWarning, match="aims.out: 1 of 3 steps did not converge, and are left out"):
        check(read_frames(path), [0, 2])


def test_step_that_is_cut_off_after_a_restarted_mixer(tmp_path):
    path = tmp_path / "aims.out"
    path.write_text(HEAD + restarted(0) + place(0) + loop(1) + place(1) + loop(2)[:240])
    with pytest.warns(UserWarning, match="aims.out: the run did not finish; its 2 whole steps are read"):
        check(read_frames(path), [0, 1])


def relaxation(n_steps, failed=()):
    """Steps, each with its structure before the electrons."""
    parts = [HEAD + "  Geometry relaxation: BFGS.\n"]
    for k in range(n_steps):
        parts += [
            place(k).replace(
                "Atomic structure (and velocities) as used in the preceding time step", "Updated atomic structure"
            )
        ] * bool(k)
        parts += [loop(k, k not in failed), "  Geometry optimization: Attempting to predict improved coordinates.\n"]
    return "".join(parts)


def test_relaxation(tmp_path):
    path = tmp_path / "aims.out"
    path.write_text(relaxation(3) + "  Present geometry is converged.\n" + END)
    check(read_frames(path), [0, 1, 2])
    path.write_text(relaxation(3, [1]) + "  Present geometry is converged.\n" + END)
    with pytest.warns(UserWarning, match="aims.out: 1 of 3 steps did not converge, and are left out"):
        check(read_frames(path), [0, 2])
