"""Repulsion of two nuclei that are close: the universal screened Coulomb energy of Ziegler, Biersack and Littmark."""

from torch import Tensor

from ase_mlelec.units import COULOMB

# phi(x) = sum of c exp(-d x)
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
LENGTH = 0.46850  # Å, 0.8854 bohr radii
EXPONENT = 0.23


def zbl(r: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """E(r) = Z1 Z2 e^2/(4 pi eps0 r) phi(r/a), a = 0.4685 Å/(Z1^0.23 + Z2^0.23), eV.

    Parameters
    ----------
    r : Tensor [E], Å
    first, second : Tensor [E]
        Atomic numbers.

    References
    ----------
    Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Solids, Pergamon (1985).
    """
    first, second = first.to(r.dtype), second.to(r.dtype)
    x = r * (first**EXPONENT + second**EXPONENT) / LENGTH
    return COULOMB * first * second / r * sum(c * (-d * x).exp() for c, d in SCREENING)
