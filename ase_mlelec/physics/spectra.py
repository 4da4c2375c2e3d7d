r"""Infrared and Raman spectra and the dielectric constant from what dipoles and polarizabilities do along a trajectory.

The spectrum of a series x(t) is the Fourier transform of its time correlation function,

.. math::

    S(\omega) = \int \langle x(0) x(t) \rangle \, w(t) \, e^{-i\omega t} \, dt, \qquad
    w(t) = \exp(-(\sigma t)^2/2),

where the window w stands for a finite resolution: S is convolved with a Gaussian of standard deviation σ, which leaves
integrals alone and spectra positive. The transform is a zero-padded FFT there and back, so that a million frames take
a second.

References: Zhang et al. 2020, Eq. (6); McQuarrie, Statistical Mechanics, 1976, Ch. 21.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics.arrays import check_finite, numpy_or_torch

_RESOLUTION = 10.0  # cm^-1, where nothing is asked for and the trajectory is long enough
_FULL_WIDTH = math.sqrt(8 * math.log(2))  # of a Gaussian at half its height, in standard deviations
_SMALLEST_WINDOW = 1e-9  # where w(t) counts as zero
_POINTS_PER_WIDTH = 8  # of the resolution, by zero padding


def spectral_density(
    series: Tensor, timestep: Any, max_wavenumber: Any, resolution: Any, derive: bool = False
) -> tuple:
    """Wavenumbers and S(ω) of a series [n, k], summed over k; of the series' time derivative where asked for."""
    check_positive("fs", timestep_fs=timestep)
    check_positive("cm^-1", max_wavenumber=max_wavenumber)
    highest = units.CM / (2 * units.SPEED_OF_LIGHT * timestep)
    if max_wavenumber > highest:
        raise ValueError(
            f"max_wavenumber: got {max_wavenumber:g} cm^-1 with frames every {timestep:g} fs, which tell "
            f"up to {highest:.0f} cm^-1; store frames more often, or lower max_wavenumber"
        )
    width = 2 * math.pi * units.SPEED_OF_LIGHT / units.CM * _resolution(resolution, len(series) * timestep)
    width = (width / _FULL_WIDTH).item()  # σ, rad/fs
    timestep = timestep.item()
    lags = _correlation(series.diff(dim=0) / timestep if derive else series, width, timestep, derive)
    time = timestep * torch.arange(len(lags)).to(lags)
    lags = lags * torch.exp(-((width * time) ** 2) / 2)
    n_fft = next_fast_len(math.ceil(2 * math.pi * _POINTS_PER_WIDTH / (_FULL_WIDTH * width * timestep)), real=True)
    spectrum = timestep * (2 * torch.fft.rfft(lags, n_fft).real - lags[0])
    wavenumbers = units.CM / (units.SPEED_OF_LIGHT * timestep * n_fft) * torch.arange(len(spectrum)).to(lags)
    wanted = wavenumbers <= max_wavenumber
    return wavenumbers[wanted], spectrum[wanted]


def _correlation(series, width, timestep, difference):
    """Σ_k <x_k(0) x_k(t)> [lags] of a series [n, k], as far as the window reaches; 1/n for every lag keeps S positive.

    Of the difference quotient of a series, `difference` makes the derivative: the quotient has ``|sin(y)/y|²`` of its
    power, y = ω timestep/2.
    """
    n = len(series)
    n_lags = min(n, math.ceil(math.sqrt(-2 * math.log(_SMALLEST_WINDOW)) / (width * timestep)))
    n_fft = next_fast_len(n + n_lags, real=True)  # the first n_lags of the circular correlation do not wrap
    power = sum(torch.fft.rfft(column.contiguous(), n_fft).abs().square() for column in series.T)
    if difference:
        power = power / torch.sinc(torch.arange(len(power)).to(power) / n_fft) ** 2
    return torch.fft.irfft(power, n_fft)[:n_lags] / n


def _resolution(resolution, duration):
    """Resolution in cm^-1: the requested one, checked against the length of the trajectory, or a suitable default."""
    smallest = finest_resolution(duration)
    if resolution is None:
        return (2 * smallest).clamp(min=_RESOLUTION)
    check_positive("cm^-1", resolution=resolution)
    if resolution < smallest:
        raise ValueError(
            f"resolution: got {resolution:g} cm^-1 for a trajectory of {duration:g} fs, need at least "
            f"{smallest:.3g} cm^-1; run {smallest / resolution:.1f} times as long, or ask for less"
        )
    return resolution


def check_series(name: str, series: Tensor, components: tuple[int, ...]) -> None:
    if series.ndim < 1 or tuple(series.shape[1:]) != components or len(series) < 3:
        raise ValueError(
            f"{name}: got shape {list(series.shape)}, need [n, {', '.join(map(str, components))}] with at "
            "least 3 frames; give the whole trajectory"
        )
    check_finite(**{name: series})


def check_positive(unit: str, **named: Any) -> None:
    for name, value in named.items():
        if value.ndim or not 0 < value < math.inf:
            got = f"shape {list(value.shape)}" if value.ndim else f"{value:g} {unit}"
            raise ValueError(f"{name}: got {got}, need one positive number in {unit}")


def finest_resolution(duration_fs: float) -> float:
    """The finest resolution that a trajectory allows, cm^-1: one wave in its duration, fs.

    Examples
    --------
    >>> round(finest_resolution(1000.0), 1)       # of 1 ps
    33.4
    """
    return units.CM / (units.SPEED_OF_LIGHT * duration_fs)


@numpy_or_torch
def infrared(
    dipoles: Tensor,
    timestep_fs: float,
    temperature: float,
    volume: float,
    *,
    max_wavenumber: float = 4000,
    resolution: float | None = None,
    quantum_correction: str | None = None,
) -> tuple:
    r"""Infrared absorption: absorption coefficient times refractive index.

    .. math::

        \alpha(\omega) n(\omega) = \frac{\beta}{6 \varepsilon_0 c V}
        \int \langle \dot M(0) \cdot \dot M(t) \rangle \, e^{-i\omega t} \, dt

    The derivative belongs to the band-limited series through the frames, exact below the Nyquist frequency; a constant
    added to the dipoles, such as by another origin or branch, has no effect.

    Parameters
    ----------
    dipoles : Tensor [n, 3], e Å
        On one branch (see physics.dipole.unwrap), n >= 3.
    timestep_fs : float, fs between frames
    temperature : float, K
    volume : float, Å^3
    max_wavenumber : float, cm^-1
        End of the spectrum.
    resolution : float, cm^-1
        Full width at half maximum that a sharp line gets; default 10 cm^-1, or twice the smallest that the trajectory
        allows, one wave in its duration.
    quantum_correction : None or "harmonic"
        Harmonic vibrations absorb the same in classical and in quantum mechanics, and None gives that: the factor
        βħω/(1 - e^-βħω) between their correlation functions has canceled against induced emission in Eq. (6).
        "harmonic" multiplies by it: absorption without induced emission.

    Returns
    -------
    wavenumbers : array [K], cm^-1
    alpha_n : array [K], cm^-1

    Raises
    ------
    ValueError
        For wrong shapes, NaN, a trajectory shorter than the resolution asked for, frames too far apart for
        max_wavenumber, and numbers that are not positive.

    References
    ----------
    Zhang et al. 2020, Eq. (6), in SI units.
    """
    return _absorption(
        "dipoles", dipoles, timestep_fs, temperature, volume, max_wavenumber, resolution, quantum_correction
    )


@numpy_or_torch
def infrared_from_derivative(
    derivatives: Tensor,
    timestep_fs: float,
    temperature: float,
    volume: float,
    *,
    max_wavenumber: int = 4000,
    resolution: float | None = None,
    quantum_correction: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As infrared, from the time derivatives of the dipoles, such as Σ ``Z*·v`` of Born charges and velocities.

    Parameters
    ----------
    derivatives : Tensor [n, 3], e Å/fs
    """
    return _absorption(
        "derivatives", derivatives, timestep_fs, temperature, volume, max_wavenumber, resolution, quantum_correction
    )


def _absorption(kind, series, timestep_fs, temperature, volume, max_wavenumber, resolution, correction):
    check_series(kind, series, (3,))
    check_positive("K", temperature=temperature)
    check_positive("Å^3", volume=volume)
    wavenumbers, spectrum = spectral_density(series, timestep_fs, max_wavenumber, resolution, derive=kind == "dipoles")
    per_angstrom = 2 * math.pi * units.COULOMB / (3 * units.KB * temperature * units.SPEED_OF_LIGHT * volume) * spectrum
    return wavenumbers, units.CM * per_angstrom * _quantum_factor(wavenumbers, temperature, correction)


@numpy_or_torch
def raman(
    polarizabilities: Tensor,
    timestep_fs: float,
    temperature: float,
    *,
    max_wavenumber: int = 4000,
    resolution: float | None = None,
    quantum_correction: str | None = None,
) -> tuple:
    r"""Raman spectra from the isotropic and the anisotropic part of the polarizability.

    With the mean a = Tr α/3 and β = α - a 1, as spectral densities per wavenumber of the fluctuations,

    .. math::

        \text{isotropic: of } \langle \delta a(0) \, \delta a(t) \rangle, \qquad
        \text{anisotropic: of } \langle \mathrm{Tr} \, \delta\beta(0) \, \delta\beta(t) \rangle / 10,

    light scattered with the polarization of the laser is isotropic + 4/3 anisotropic, across it anisotropic. Measured
    intensities have a factor (ν_laser - ν)^4 more.

    Parameters
    ----------
    polarizabilities : Tensor [n, 3, 3], Å^3
        n >= 3.
    quantum_correction : None for the classical spectrum
        "harmonic" for βħω/(1 - e^-βħω) times that, which is the Stokes side of harmonic vibrations.
    Other arguments
        As in infrared.

    Returns
    -------
    wavenumbers : array [K], cm^-1
    isotropic : array [K]
    anisotropic : array [K], Å^6 cm
        Without correction their integrals over all wavenumbers are <δa²> and <Tr δβ²>/10.

    Raises
    ------
    ValueError
        As infrared does.

    References
    ----------
    Berne and Pecora, Dynamic Light Scattering, 1976, Sec. 3.3.
    """
    check_series("polarizabilities", polarizabilities, (3, 3))
    check_positive("K", temperature=temperature)
    fluctuation = polarizabilities - polarizabilities.mean(0)
    mean = fluctuation.diagonal(dim1=1, dim2=2).mean(1)
    anisotropy = fluctuation - mean[:, None, None] * torch.eye(3).to(mean)
    wavenumbers, isotropic = spectral_density(mean[:, None], timestep_fs, max_wavenumber, resolution)
    anisotropic = spectral_density(anisotropy.reshape(-1, 9), timestep_fs, max_wavenumber, resolution)[1] / 10
    # S(ω) counts both signs of ω, and there are 2πc of angular frequency per wavenumber
    factor = 2 * units.SPEED_OF_LIGHT / units.CM * _quantum_factor(wavenumbers, temperature, quantum_correction)
    return wavenumbers, factor * isotropic, factor * anisotropic


@numpy_or_torch
def dielectric_constant(
    dipoles: Tensor, temperature: float, volume: float, electronic: float = 1.0, zero_mean: bool = False
) -> Any:
    r"""Static dielectric constant from the fluctuations of the dipole under periodic boundary conditions.

    .. math::

        \varepsilon = \varepsilon_\infty + \frac{\langle M^2 \rangle - \langle M \rangle^2}{3 \varepsilon_0 V kT}

    Parameters
    ----------
    dipoles : Tensor [n, 3], e Å
        On one branch (see physics.dipole.unwrap).
    temperature : float, K
    volume : float, Å^3
    electronic : float
        ``ε_∞``, the dielectric constant of the electrons with the ions at rest.
    zero_mean : bool
        Take the mean dipole as zero, as it is in a liquid of whole molecules. That of a run not much longer than the
        relaxation of the dipole makes the constant too small, and its error as well.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For wrong shapes, NaN, and numbers that are not positive.

    References
    ----------
    Neumann, Mol. Phys. 50, 841 (1983).
    """
    check_series("dipoles", dipoles, (3,))
    check_positive("K", temperature=temperature)
    check_positive("Å^3", volume=volume)
    fluctuation = (dipoles if zero_mean else dipoles - dipoles.mean(0)).square().sum(1).mean()
    return electronic + 4 * math.pi * units.COULOMB * fluctuation / (3 * volume * units.KB * temperature)


# Series


def in_order(times: NDArray, *series: NDArray) -> tuple:
    """Bring frames into the order of time, however a file has them.

    Parameters
    ----------
    times : array [n], fs
    series : arrays [n, ...]

    Returns
    -------
    (timestep_fs, ``*series``)

    Raises
    ------
    ValueError
        For time stamps that are doubled or not evenly spaced, and for series of other lengths.
    """
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or len(times) < 2 or any(len(values) != len(times) for values in series):
        raise ValueError(
            f"times: got shape {list(times.shape)} for series of {[len(values) for values in series]} "
            "frames, need one time per frame and two frames; give them all"
        )
    order = np.argsort(times, kind="stable")
    steps = np.diff(times[order])
    usual = np.median(steps)
    # the clock of a long run is a sum of many rounded steps, and files have few digits
    off = np.abs(steps - usual) > 0.01 * usual
    if usual <= 0 or off.any():
        frame = int(off.argmax())
        raise ValueError(
            f"times: got steps of {steps.min():g} to {steps.max():g} fs, the first odd one after "
            f"{times[order[frame]]:g} fs, need even steps; leave out doubled frames, or cut the "
            "trajectory where its interval changes"
        )
    return (times[order[-1]] - times[order[0]]) / len(steps), *(np.asarray(values)[order] for values in series)


def block_error(function: Callable, series: NDArray, n_blocks: int = 5) -> tuple:
    """Value of a function of a time series, and its standard error from blocks of the series.

    ::

        alpha_n, error = block_error(lambda part: infrared(part, 0.5, 300, volume, resolution=20)[1], dipoles)

    Parameters
    ----------
    function : callable of [m, ...]
        Returns an array whose shape does not depend on m.
    series : array [n, ...]
        In the order of time.
    n_blocks : int
        At least 2.

    Returns
    -------
    tuple
        (value, error) of the kind of the function.

    Raises
    ------
    ValueError
        For fewer than 2 blocks or fewer frames than blocks.

    References
    ----------
    Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989).
    """
    if not 2 <= n_blocks <= len(series):
        raise ValueError(f"n_blocks: got {n_blocks} for {len(series)} frames, need at least 2 blocks of a frame")
    length = len(series) // n_blocks
    parts = [function(series[k * length : (k + 1) * length]) for k in range(n_blocks)]
    whole, mean = function(series), sum(parts) / n_blocks
    if np.shape(whole) != np.shape(mean):
        raise ValueError(
            f"function: got shape {np.shape(whole)} for the series and {np.shape(mean)} for a block, need "
            "one shape; give it a resolution"
        )
    return whole, (sum((part - mean) ** 2 for part in parts) / (n_blocks - 1) / n_blocks) ** 0.5


def _quantum_factor(wavenumbers, temperature, correction):
    """x/(1 - e^-x), x = βħω, or 1."""
    if correction not in (None, "none", "harmonic"):
        raise ValueError(f"quantum_correction: got {correction!r}, need None or 'harmonic'")
    if correction != "harmonic":
        return torch.ones_like(wavenumbers)
    x = units.PLANCK * units.SPEED_OF_LIGHT / units.CM * wavenumbers / (units.KB * temperature)
    safe = torch.where(x > 0, x, 1.0)
    return torch.where(x > 0, safe / -torch.expm1(-safe), 1.0)
