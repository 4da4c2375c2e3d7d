"""From vectors to neighbors to points of the sphere in four dimensions, with weights."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shells:
    """How neighbors are weighted: per species cutoff (Å) and weight, and the constants of the map to the sphere."""

    cutoffs: tuple
    weights: tuple
    rfac0: float
    rmin0: float
    switch: bool

    def on_sphere(self, vec: Tensor, kind: Tensor, sphere: Tensor, weight: Tensor) -> None:
        """Write Re and Im of (a, b) [2, 2, P, K] and w f [P, K] of vectors [3, P, K] to neighbors of a kind [P, K].

        At r = 0 they take their limit for r -> 0.
        """
        w, _, _, argument, c, s = self._radial(vec, kind)
        sphere[0, 0] = c
        torch.mul(vec[2], s, out=sphere[1, 0])
        torch.mul(vec[1], s, out=sphere[0, 1]).neg_()
        torch.mul(vec[0], s, out=sphere[1, 1])
        torch.mul(self._fade(argument), w, out=weight)

    def _fade(self, argument):
        """f of (r - rmin0)/(R - rmin0): 0 from 1 on."""
        if not self.switch:
            return (argument < 1).to(argument.dtype)
        return torch.cos(argument.clamp(min=0).mul_(torch.pi)).add_(1).mul_(0.5)

    def _radial(self, vec, kind):
        """Weight w, R - rmin0, r, (r - rmin0)/(R - rmin0) or 1 beyond the cutoff, cos(t) and sin(t)/r.

        As in LAMMPS, r < rmin0 has (a, b) of the opposite sign.
        """
        if len(self.cutoffs) == 1:
            cutoff, weight = self.cutoffs[0], self.weights[0]
        else:
            cutoff, weight = (torch.take(vec.new_tensor(values), kind) for values in (self.cutoffs, self.weights))
        reach = cutoff - self.rmin0
        r = (vec * vec).sum(dim=0).sqrt_().clamp_(min=torch.finfo(vec.dtype).tiny ** 0.25)
        argument = ((r - self.rmin0) / reach).clamp_(max=1)  # cosines of large numbers, in empty slots, are slow
        angle = (self.rfac0 * torch.pi) * argument
        c, s = torch.cos(angle), torch.sin(angle) / r
        if self.rmin0:
            side = torch.where(argument > 0, 1.0, -1.0).to(r.dtype)
            c, s = c * side, s * side
        return weight, reach, r, argument, c, s

    def back(self, vec: Tensor, kind: Tensor, of_sphere: Tensor, of_weight: Tensor) -> Tensor:
        """Gradient [3, P, K] with respect to vec from those with respect to what ``on_sphere`` writes."""
        (of_c, of_b_re), (of_a_im, of_b_im) = of_sphere
        weight, reach, r, argument, c, s = self._radial(vec, kind)
        x, y, z = vec
        of_s = of_a_im * z - of_b_re * y + of_b_im * x
        kappa = self.rfac0 * torch.pi / reach
        # dc/dr = -kappa s r, ds/dr = (kappa c - s)/r
        slope = (kappa * c - s) / (r * r)
        if not self.rmin0:  # cancels near r = 0
            t = (kappa * r) ** 2
            series = kappa**3 * (-1 / 3 + t * (1 / 30 + t * (-1 / 840 + t / 45360)))
            slope = torch.where(t < 0.01, series, slope)
        radial = of_s * slope - of_c * (kappa * s)
        if self.switch:
            fade = weight / reach * torch.sin(argument.clamp(min=0).mul_(torch.pi)) / r
            radial -= of_weight * (argument < 1) * (fade * (torch.pi / 2))
        return torch.stack([radial * x + s * of_b_im, radial * y - s * of_b_re, radial * z + s * of_a_im])
