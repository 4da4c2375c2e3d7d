"""Sections of descriptors: [descriptor] and [electronic], [power_spectrum], [bispectrum]."""

from typing import Annotated

from pydantic import Field, model_validator

from ase_mlelec.train.config.base import Cutoff, Length, Section, SettingError, Width


class DescriptorConfig(Section):
    """Descriptor of atoms: arguments of DeepPotSE."""

    cutoff: Cutoff = 6.0
    """Radius of an environment, Å."""
    smooth: Length = 1.8
    """Distance at which neighbors begin to fade out towards the cutoff, Å."""
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8, strict=False)] = (24,)
    """Layers of the embedding; the last is the number of radial channels."""
    n_axis: Annotated[int, Field(ge=1, le=4096)] = 8
    """Channels of the second factor of the invariants, at most the last entry of ``widths``."""
    l_max: Annotated[int, Field(ge=1, le=3)] = 3
    """Largest angular momentum."""
    n_basis: Annotated[int, Field(ge=0, le=256)] = 16
    """Radial basis functions; 0: embedding nets instead."""
    sel: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(max_length=118, strict=False)] = ()
    """Expected number of neighbors of each species, which scales the sums over neighbors; []: from the volume of the
    cutoff sphere."""
    one_side: bool = True
    """Whether an embedding depends on the species of the neighbor alone; false: also on the species of the center."""
    n_products: Annotated[int, Field(ge=0, le=4096)] = 0
    """Channels in which second moments multiply first moments, for vectors and tensors; at most the last entry of
    ``widths``, with ``l_max`` of 2 or 3; 0: none."""

    @model_validator(mode="after")
    def _check_together(self):
        if not self.smooth < self.cutoff:
            raise SettingError("smooth", f"got {self.smooth:g} Å, need less than the cutoff, {self.cutoff:g}")
        for name in ("n_axis", "n_products"):
            if getattr(self, name) > self.widths[-1]:
                need = f"need at most the last of the widths, {self.widths[-1]}"
                raise SettingError(name, f"got {getattr(self, name)}, {need}")
        if self.n_products and self.l_max < 2:
            raise SettingError(
                "n_products", f"got {self.n_products} with l_max = {self.l_max}, need 0, or l_max of 2 or 3"
            )
        return self


class PowerSpectrumConfig(Section):
    """Descriptor that replaces [descriptor]: ACE invariants.

    It serves scalar quantities, and energies that are linear in the features ([energy] widths = []).
    """

    cutoff: Cutoff = 6.0
    """Radius of an environment, Å."""
    inner: Length = 0.0
    """Inner end of the range of the radial functions, Å; 0: nine tenths of the shortest distance in the training data."""
    n_pair: Annotated[int, Field(ge=1, le=100)] = 12
    """Radial functions of two-body terms."""
    n_radial: Annotated[int, Field(ge=1, le=50)] = 5
    """Radial functions of three-body terms, at most ``n_pair``."""
    l_max: Annotated[int, Field(ge=0, le=20)] = 8
    """Largest angular momentum of three-body terms."""
    near: Length = 4.5
    """Cutoff of four-body and five-body terms, Å; 0: no such terms."""
    roughest: Annotated[float, Field(ge=0, le=30)] = 9.0
    """Largest roughness of four-body terms; 0: no such terms. The largest roughness of five-body terms is 3/7 of it."""
    roughest_5: Annotated[float, Field(ge=0, le=30)] | None = None
    """Largest roughness of five-body terms, if not 3/7 of ``roughest``; 0: no such terms."""

    @model_validator(mode="after")
    def _check_together(self):
        if self.n_radial > self.n_pair:
            raise SettingError("n_radial", f"got {self.n_radial}, need at most n_pair, {self.n_pair}")
        if not self.inner < self.cutoff:
            raise SettingError("inner", f"got {self.inner:g} Å, need less than the cutoff, {self.cutoff:g}")
        return self


class BispectrumConfig(Section):
    """Descriptor of grid points for [ldos]: arguments of Bispectrum, without cutoffs and weights of single species."""

    twojmax: Annotated[int, Field(ge=1, le=16)] = 10
    """Twice the largest angular momentum of the hyperspherical harmonics."""
    cutoff: Cutoff = 4.67637
    """Radius of an environment, Å."""
    rmin0: Length = 0.0
    """Distance that is mapped to the pole of the three-sphere, Å."""
    n_radial: Annotated[int, Field(ge=0, le=200)] = 0
    """Radial sums of each species in addition to the bispectrum; 0: none."""

    @model_validator(mode="after")
    def _check_together(self):
        if not self.rmin0 < self.cutoff:
            raise SettingError("rmin0", f"got {self.rmin0:g} Å, need less than the cutoff, {self.cutoff:g}")
        return self
