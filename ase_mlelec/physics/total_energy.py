r"""Total free energy of electrons and ions from the local density of states, without orbitals.

.. math::

    A = E_\mathrm{b} - TS - U + E_\mathrm{xc} - V_\mathrm{xc} + V_\mathrm{ii}

E_b is the band energy, U the Hartree energy, V_xc = ∫ n v_xc, and V_ii the energy of the ions in a neutralizing
background. Pseudopotentials appear nowhere: what they do is inside the eigenvalues, and therefore in E_b, so that
energies must be on the absolute scale of the DFT code, never relative to the Fermi level.

References: Ellis et al. 2021, Eq. (9).
"""

from torch import Tensor

from ase_mlelec.physics import ewald, fermi, grid, hartree
from ase_mlelec.physics import xc as exchange_correlation
from ase_mlelec.physics.arrays import check_finite, numpy_or_torch


@numpy_or_torch
def from_ldos(
    ldos: Tensor,
    energies: Tensor,
    cell: Tensor,
    positions: Tensor,
    charges: Tensor,
    temperature: Tensor,
    *,
    xc: str = "lda_pz",
    core_density: Tensor | None = None,
    mu: Tensor | None = None,
) -> dict:
    """Total free energy and its terms from the local density of states.

    Parameters
    ----------
    ldos : Tensor [G1, G2, G3, S], 1/(eV Å^3) including spin degeneracy
    energies : Tensor [S], eV, increasing
        On the absolute scale of the eigenvalues.
    cell : Tensor [3, 3], Å
    positions : Tensor [N, 3], Å
    charges : Tensor [N], e
        Of the valence electrons.
    temperature : Tensor [], K
        Of the electrons.
    xc : str
        "lda_pz", "lda_pw", "pbe" or "pbesol".
    core_density : Tensor [G1, G2, G3], electrons/Å^3
        Of pseudopotentials with core correction.
    mu : Tensor [], eV
        By default the Fermi level at which the DOS holds sum(charges) electrons.

    Returns
    -------
    dict of Tensors [], eV
        Band, entropy (-TS), hartree, xc, xc_potential, ion_ion, total and fermi_level, differentiable with respect to
        every argument but energies.

    Raises
    ------
    ValueError
        For shapes that disagree, NaN, negative charges, an unknown functional, a cell of no volume, atoms on top of
        each other, more electrons than the DOS holds, and an energy grid that ends below the Fermi level.

    References
    ----------
    Ellis et al. 2021, Eqs. (9)-(13).
    """
    fermi.check_grid(energies)
    if ldos.ndim != 4 or 0 in ldos.shape or ldos.shape[3] != len(energies):
        raise ValueError(
            f"ldos: got shape {list(ldos.shape)}, need [G1, G2, G3, {len(energies)}] to match energies; "
            "put the energy axis last"
        )
    check_finite(ldos=ldos)
    grid.check_cell(cell)
    _check_ions(positions, charges)
    _check_numbers(temperature=temperature, mu=mu)
    dos = ldos.mean((0, 1, 2)) * grid.volume(cell)
    if mu is None:
        mu = fermi.fermi_level(energies, dos, charges.sum(), temperature)
    density = ldos @ fermi.integration_weights(energies, mu, temperature)[0]
    return from_dos_and_density(
        dos, energies, density, cell, positions, charges, temperature, xc=xc, core_density=core_density, mu=mu
    )


@numpy_or_torch
def from_dos_and_density(
    dos: Tensor,
    energies: Tensor,
    density: Tensor,
    cell: Tensor,
    positions: Tensor,
    charges: Tensor,
    temperature: Tensor,
    *,
    xc: str = "lda_pz",
    core_density: Tensor | None = None,
    mu: Tensor | None = None,
) -> dict[str, Tensor]:
    """As from_ldos, from the two integrals of the LDOS that the total free energy depends on.

    They are independent arguments here. In terms of the LDOS D both follow from it and the Fermi level,
    dos = ∫ D dr and density = w_N(μ)·D with w_N of fermi.integration_weights, so that whoever differentiates with
    respect to D piece by piece adds ∂A/∂density ∂density/∂μ ∂μ/∂dos to ∂A/∂dos: A is not stationary in μ.

    Parameters
    ----------
    dos : Tensor [S], states/eV per cell
    density : Tensor [G1, G2, G3], electrons/Å^3
        Valence.

    Notes
    -----
    the other arguments, the result and the errors are as in from_ldos

    References
    ----------
    Ellis et al. 2021, Eqs. (9), (11), (12).
    """
    fermi.check_dos(energies, dos)
    if dos.ndim != 1:
        raise ValueError(
            f"dos: got shape {list(dos.shape)}, need [{len(energies)}]; pass the sum over all atoms or grid points"
        )
    _check_ions(positions, charges)
    _check_numbers(temperature=temperature, mu=mu)
    if mu is None:
        mu = fermi.fermi_level(energies, dos, charges.sum(), temperature)
    _check_level(mu, energies)
    _, energy_weights, entropy_weights = fermi.integration_weights(energies, mu, temperature)
    terms = {
        "band": energy_weights @ dos,
        "entropy": entropy_weights @ dos,
        **from_density(density, cell, positions, charges, xc=xc, core_density=core_density),
    }
    terms["total"] = (
        terms["band"] + terms["entropy"] - terms["hartree"] + terms["xc"] - terms["xc_potential"] + terms["ion_ion"]
    )
    terms["fermi_level"] = mu
    return terms


@numpy_or_torch
def from_density(
    density: Tensor,
    cell: Tensor,
    positions: Tensor,
    charges: Tensor,
    *,
    xc: str = "lda_pz",
    core_density: Tensor | None = None,
) -> dict:
    """Terms of the total free energy that follow from the density and the ions.

    Parameters
    ----------
    density : Tensor [G1, G2, G3], electrons/Å^3
        Valence.
    cell : Tensor [3, 3], Å
    positions : Tensor [N, 3], Å
    charges : Tensor [N], e
        Of the valence electrons.
    xc : str
        "lda_pz", "lda_pw", "pbe" or "pbesol".
    core_density : Tensor [G1, G2, G3], electrons/Å^3
        Of pseudopotentials with core correction.

    Returns
    -------
    dict of Tensors [], eV
        Hartree, xc, xc_potential and ion_ion.

    Raises
    ------
    ValueError
        As from_ldos does.

    References
    ----------
    Ellis et al. 2021, Eq. (9).
    """
    _check_ions(positions, charges)
    xc_energy, xc_potential = exchange_correlation.energies(density, cell, xc=xc, core_density=core_density)
    return {
        "hartree": hartree.energy(density, cell),
        "xc": xc_energy,
        "xc_potential": xc_potential,
        "ion_ion": ewald.energy(positions, charges, cell),
    }


def _check_ions(positions, charges):
    if charges is None or not charges.numel():
        raise ValueError(
            "charges: got none, need one per atom; pass the numbers of valence electrons of the pseudopotentials"
        )
    ewald.check_charges(positions, charges)
    if (charges < 0).any():
        raise ValueError(
            f"charges: got {charges.min().item():g} e, need numbers of valence electrons; the ions are "
            "the positive charges here"
        )


def _check_numbers(**named):
    for name, value in named.items():
        if value is not None and value.ndim:
            raise ValueError(f"{name}: got shape {list(value.shape)}, need one number; call once for each")


def _check_level(mu, energies):
    if not energies[0] <= mu <= energies[-1]:
        raise ValueError(
            f"energies: got a grid from {energies[0]:g} to {energies[-1]:g} eV, need one that holds the "
            f"Fermi level, {mu.item():g} eV; extend the grid of the LDOS, or check the electrons"
        )
