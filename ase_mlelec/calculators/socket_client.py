"""A client of the i-PI protocol: ASE's, which also sends dipoles, Born charges and polarizabilities as JSON."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.socketio import IPIProtocol, SocketServer, actualunixsocketname
from ase.calculators.socketio import SocketClient as _Client
from numpy.typing import NDArray

from ase_mlelec.quantities import DIPOLE
from ase_mlelec.units import BOHR

EXTRAS = (DIPOLE, "born_charges", "polarizability")


class SocketClient(_Client):
    """Client of i-PI, or of ASE's ``SocketIOCalculator``, whose answers have a string of JSON beside energy and forces.

    The keys of the JSON are those that i-PI's driven dynamics and its outputs by ``extra_type`` read, in atomic units:
    ``dipole`` [3], ``BEC`` [3 N, 3] with dM_a/dr_ib in row 3 i + b and column a, and ``polarizability`` [3, 3].

    Parameters
    ----------
    extras : sequence of str
        Some of dipole, born_charges and polarizability, which the calculator must have.
    port, unixsocket, host, timeout, log
        As in ASE: a port on ``host``, or the name of a Unix socket.

    Raises
    ------
    ValueError
        For other names of extras.
    ConnectionError
        Where no program waits at the socket.

    References
    ----------
    Ceriotti, More and Manolopoulos, Comput. Phys. Commun. 185, 1019 (2014), for the protocol.

    Examples
    --------
    ``SocketClient(unixsocket="ice", extras=["born_charges"]).run(atoms)``, while i-PI waits at the socket "ice".
    """

    def __init__(self, *, extras: Sequence[str] = (), **options: Any) -> None:
        unknown = sorted(set(extras) - set(EXTRAS))
        if unknown:
            raise ValueError(f"extras: got '{unknown[0]}', need some of {', '.join(EXTRAS)}; correct it")
        where = _place(**options)
        if where.startswith("/") and not os.path.exists(where):
            raise ConnectionError(f"no program waits at {where}; start it first, such as i-pi input.xml")
        try:
            super().__init__(**options)
        except OSError as error:
            raise ConnectionError(
                f"no program waits at {where} ({error.strerror or error}); start it first, such as i-pi input.xml"
            ) from None
        self.extras = tuple(extras)
        if self.comm.rank == 0:
            self.protocol: Any = _Protocol(self.protocol)

    def calculate(self, atoms: Atoms, use_stress: bool) -> tuple[float, NDArray, NDArray]:
        """Energy, forces and virial, as in ASE; the extras wait to be sent with them."""
        found = super().calculate(atoms, use_stress)
        if self.comm.rank == 0 and self.extras:
            self.protocol.extras = json.dumps(extras_of(atoms, self.extras))
        return found


def _place(*, unixsocket=None, host="localhost", port=None, **others):
    """Where the other program waits, for messages."""
    return actualunixsocketname(unixsocket) if unixsocket else f"{host}:{port or SocketServer.default_port}"


class _Protocol(IPIProtocol):
    """The protocol with a string that is sent with the forces."""

    extras = ""

    def __init__(self, former: IPIProtocol) -> None:
        super().__init__(former.socket)
        self.log = former.log

    def sendforce(self, energy, forces, virial, morebytes=None):
        text = self.extras.encode("ascii") or b"\0"  # of one byte at least, see ASE
        super().sendforce(energy, forces, virial, np.frombuffer(text, dtype=np.byte))


def extras_of(atoms: Atoms, names: Sequence[str]) -> dict[str, list]:
    """The extras ``names`` of a structure in atomic units, dict of lists by i-PI's keys."""
    calc: Any = atoms.calc
    found: dict[str, list] = {}
    if DIPOLE in names:
        found[DIPOLE] = (atoms.get_dipole_moment() / BOHR).tolist()
    if "born_charges" in names:
        charges = calc.get_born_charges(atoms)
        found["BEC"] = charges.transpose(0, 2, 1).reshape(-1, 3).tolist()
    if "polarizability" in names:
        found["polarizability"] = (calc.get_polarizability(atoms) / BOHR**3).tolist()
    return found
