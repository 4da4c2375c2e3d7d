"""Spectral density of a time series, and checks of time series."""

import math

import torch
from scipy.fft import next_fast_len

from ase_mlelec import units
from ase_mlelec.physics.arrays import check_finite

_RESOLUTION = 10.0  # cm^-1, where nothing is asked for and the trajectory is long enough
_FULL_WIDTH = math.sqrt(8 * math.log(2))  # of a Gaussian at half its height, in standard deviations
_SMALLEST_WINDOW = 1e-9  # where w(t) counts as zero
_POINTS_PER_WIDTH = 8  # of the resolution, by zero padding


# Fourier transforms


def spectral_density(series, timestep, max_wavenumber, resolution, derive: bool = False) -> tuple:
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


def check_series(name: str, series, components) -> None:
    if series.ndim < 1 or tuple(series.shape[1:]) != components or len(series) < 3:
        raise ValueError(
            f"{name}: got shape {list(series.shape)}, need [n, {', '.join(map(str, components))}] with at "
            "least 3 frames; give the whole trajectory"
        )
    check_finite(**{name: series})


def check_positive(unit: str, **named) -> None:
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
