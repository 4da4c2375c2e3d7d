"""The client of the i-PI protocol, with ASE's server and with i-PI itself."""

import json
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest
from ase import units as ase_units
from ase.calculators.socketio import SocketIOCalculator
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from small_models import WANNIER, random_model

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.calculators.socket_client import SocketClient, extras_of
from ase_mlelec.quantities import DIPOLE
from ase_mlelec.testing import random_atoms
from ase_mlelec.units import BOHR
from ase_mlelec_entry_points.cli.main import main

HEADS = ("energy", DIPOLE, "polarizability")


def calculator(**options):
    return DeepWannierCalculator(random_model(heads=HEADS, metadata=WANNIER), **options)


def structure():
    return random_atoms("Si2O4", [[5.0, 0, 0], [0.7, 5.4, 0], [0, -0.5, 5.2]], shortest=1.4)


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def patiently(make):
    """``make()`` as soon as a program waits at the socket."""
    for _ in range(600):
        try:
            return make()
        except ConnectionError:
            time.sleep(0.1)
    raise TimeoutError("no program waits")


def test_server_of_ase(tmp_path):
    """Energy, forces and stress through a socket, and the extras that ASE's server itself does not show."""
    atoms, name = structure(), f"mlelec_{tmp_path.name}"
    with SocketIOCalculator(unixsocket=name) as server:
        served = atoms.copy()
        served.calc = calculator()
        client = patiently(lambda: SocketClient(unixsocket=name, extras=HEADS[1:]))
        thread = in_thread(client.run, served, True)
        atoms.calc = server
        found = [atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()]
        answer = server.server.protocol.calculate(atoms.positions + 0.01, atoms.cell.array)
    thread.join()
    wanted = structure()
    wanted.calc = calculator()
    assert found[0] == pytest.approx(wanted.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(found[1], wanted.get_forces(), atol=1e-10)
    np.testing.assert_allclose(found[2], wanted.get_stress(), atol=1e-10)
    wanted.positions += 0.01
    extras = json.loads(answer["morebytes"].tobytes())
    assert extras.keys() == {DIPOLE, "polarizability"}
    np.testing.assert_allclose(np.multiply(extras[DIPOLE], BOHR), wanted.get_dipole_moment(), atol=1e-8)
    np.testing.assert_allclose(
        np.multiply(extras["polarizability"], BOHR**3), wanted.calc.get_polarizability(), atol=1e-7
    )


def test_born_charges_by_displacement():
    atoms = structure()
    atoms.calc = calculator()
    rows = np.array(extras_of(atoms, ["born_charges"])["BEC"])
    moved = structure()
    moved.calc = calculator()
    dipoles = []
    for step in 1e-4, -1e-4:
        moved.positions = atoms.positions
        moved.positions[3, 1] += step
        dipoles.append(moved.get_dipole_moment())
    np.testing.assert_allclose(rows[3 * 3 + 1], (dipoles[0] - dipoles[1]) / 2e-4, atol=1e-6)


def test_bad_input(tmp_path, capsys):
    with pytest.raises(ValueError, match="extras: got 'charges', need some of dipole, born_charges, polarizability"):
        SocketClient(extras=["charges"])
    structure().write(tmp_path / "a.xyz")
    random_model().save(tmp_path / "m.safetensors")
    arguments = ["drive", str(tmp_path / "m.safetensors"), str(tmp_path / "a.xyz")]
    for more, message in (
        (["--extras", "born_charges"], "lacks some of born_charges"),
        (["--unix", "mlelec_nobody"], "no program waits at /tmp/ipi_mlelec_nobody"),
        (["--unix", "a", "--port", "1"], "got --unix a and --port 1; give one of them"),
    ):
        assert main([*arguments, *more]) == 1
        assert message in capsys.readouterr().err


INPUT = """
<simulation verbosity='low'>
  <output prefix='run'>
    <trajectory filename='pos' stride='1' format='xyz' cell_units='angstrom'> positions{angstrom} </trajectory>
    <trajectory filename='dipole' stride='1' extra_type='dipole'> extras </trajectory>
  </output>
  <total_steps> 5 </total_steps>
  <ffsocket mode='unix' name='driver'> <address> NAME </address> </ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='ase'> start.xyz </file>
    </initialize>
    <forces> <force forcefield='driver'/> </forces>
    <motion mode='driven_dynamics'>
      <driven_dynamics mode='eda-nve'>
        <timestep units='femtosecond'> 0.5 </timestep>
        <efield>
          <amp shape='(3)' units='atomic_unit'> [ FIELD ] </amp>
        </efield>
        <bec mode='driver'/>
      </driven_dynamics>
    </motion>
  </system>
</simulation>
"""


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("i-pi") is None, reason="needs i-PI (pip install ipi)")
def test_dynamics_of_i_pi_in_a_field(tmp_path):
    """i-PI adds the force of a field by the Born charges of the extras: the dynamics is that of our own field."""
    atoms, field, name = structure(), np.array([0.3, -0.2, 0.4]), f"mlelec_{tmp_path.name}"  # V/Å
    write(tmp_path / "start.xyz", atoms)
    in_atomic_units = field / (ase_units.Hartree / ase_units.Bohr)
    text = INPUT.replace("NAME", name).replace("FIELD", ", ".join(f"{x:.12f}" for x in in_atomic_units))
    (tmp_path / "input.xml").write_text(text)
    random_model(heads=HEADS, metadata=WANNIER).save(tmp_path / "m.safetensors")
    with open(tmp_path / "log", "w") as log:
        program = subprocess.Popen(["i-pi", "input.xml"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        served = atoms.copy()
        served.calc = calculator()
        client = patiently(lambda: SocketClient(unixsocket=name, extras=(DIPOLE, "born_charges")))
        client.run(served, use_stress=True)
        assert program.wait(timeout=60) == 0, (tmp_path / "log").read_text()[-2000:]
    finally:
        program.kill()
    ours = atoms.copy()
    ours.calc = calculator(electric_field=field)
    images = read(tmp_path / "run.pos_0.xyz", index=":", format="xyz")
    dipoles = np.loadtxt(tmp_path / "run.dipole_0")
    dynamics = VelocityVerlet(ours, timestep=0.5 * ase_units.fs)
    plain = atoms.copy()
    plain.calc = calculator()
    for k, image in enumerate(images):
        if k:
            dynamics.run(1)
        np.testing.assert_allclose(image.positions, ours.positions, atol=2e-5)
        plain.positions = image.positions
        np.testing.assert_allclose(dipoles[k] * BOHR, plain.get_dipole_moment(), atol=1e-4)
    assert np.abs(ours.positions - atoms.positions).max() > 1e-3
