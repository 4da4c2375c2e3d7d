"""Section [local_frame]: the descriptor of DPMD."""

from typing import Annotated

from pydantic import Field, model_validator

from ase_mlelec.train.config.base import Cutoff, Name, Section, SettingError

Numbers = Annotated[tuple[Annotated[int, Field(ge=0, le=100_000)], ...], Field(max_length=118, strict=False)]
Pair = Annotated[tuple[Name, Name], Field(strict=False)]


class LocalFrameConfig(Section):
    """Descriptor that replaces [descriptor]: DPMD's coordinates of the neighbors in local frames, for scalar quantities.

    Its energies jump where neighbors that are equally far exchange their places, and where one crosses the cutoff, in
    silicon by a tenth of an eV (benchmarks/LOCAL_FRAMES.md). It is for comparison with the literature; [descriptor] is
    smooth.
    """

    cutoff: Cutoff = 6.0
    """Radius of an environment, Å."""
    sel: Numbers = ()
    """Largest number of neighbors of each species, in the alphabetical order of the symbols; structures with more are
    refused. []: the largest numbers in the structures of the data."""
    full: Numbers = ()
    """How many of the nearest neighbors of each species have coordinates, in the order of ``sel``; the others have the
    inverse distance alone. []: the nearest 16 of each species at most."""
    axes: dict[Name, Pair] = Field(default={})
    """Species of the two neighbors that define the frame, by the species of the center, such as {O = ["H", "H"]}; by
    default the two nearest neighbors of any species."""

    @model_validator(mode="after")
    def _check_together(self):
        if 0 in self.sel:
            raise SettingError("sel", f"got {list(self.sel)}, need numbers of at least 1")
        if self.sel and self.full and len(self.sel) != len(self.full):
            raise SettingError("full", f"got {list(self.full)}, need as many numbers as in sel, {list(self.sel)}")
        if any(m > n for m, n in zip(self.full, self.sel)):
            raise SettingError("full", f"got {list(self.full)}, need at most the numbers of sel, {list(self.sel)}")
        return self
