"""The only place with conversion factors (CODATA 2018, the set behind Quantum ESPRESSO 6.7 to all printed digits).

The public API speaks ASE units: eV, Å, e, amu, K. Files of other programs are converted here and nowhere else.
"""

HARTREE = 27.211386245988  # eV
RYDBERG = HARTREE / 2  # eV
BOHR = 0.529177210903  # Å
KB = 8.617333262145179e-5  # eV/K
GPA = 1 / 160.2176634  # eV/Å^3 per GPa
KJ_PER_MOL = 1 / 96.48533212331  # eV
KCAL_PER_MOL = 4.184 * KJ_PER_MOL  # eV
COULOMB = HARTREE * BOHR  # eV Å: e²/(4π ε_0), the energy of two charges e at 1 Å
DEBYE = 1 / (2.99792458 * 1.602176634)  # e Å: 1e-21 C m²/s over the speed of light
CM = 1e8  # Å
SPEED_OF_LIGHT = 2997.92458  # Å/fs
PLANCK = 4.135667696923859  # eV fs: h, not ħ
SIEMENS_PER_METRE = 1 / 1.602176634e6  # e²/(eV fs Å) per S/m
WATT_PER_M3_K = 1e-26 / 1.602176634  # eV/(Å^3 fs K) per W/(m^3 K)

HARTREE_PER_BOHR = HARTREE / BOHR  # eV/Å
HARTREE_PER_BOHR3 = HARTREE / BOHR**3  # eV/Å^3
