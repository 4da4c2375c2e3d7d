r"""Nets whose hidden layer is drawn at random and not trained; the last layer is fitted in closed form.

.. math::

    h_k = \tanh\Big(\sum_f W_{fk} x_f + b_k\Big), \qquad F_o = \sum_k V_{ok} h_k + c_o

With enough drawn functions such a net is a Gaussian process, whose smoothness follows from the size of W. Only V and c
are fitted, by ridge regression, so that there is one minimum and no overfitting that a ridge could not prevent. Features
x have unit root mean square length. Where the descriptor has a smoothness prior p, W falls as :math:`\sqrt{p}`: spectra
are rougher functions of the positions than energies.

Heads of vectors and tensors, :math:`\sum_o F_o B_o`, pair every drawn function with one drawn direction,
:math:`V_{ok} = a_k U_{ok}`, so that the number of unknowns a does not grow with the number of tensors B.

References
----------
Rahimi and Recht, Advances in Neural Information Processing Systems 20 (2007); Williams, Neural Comput. 10, 1203 (1998),
for the Gaussian process of such nets.
"""

import torch
from torch import Tensor

from ase_mlelec.data.batches import Batch, Batches, join_environments
from ase_mlelec.descriptors.base import Environment
from ase_mlelec.heads.vector import CenterHead
from ase_mlelec.model import Model

SIZE = 0.7  # root mean square of the argument of tanh, without the constant b, whose root mean square is 1
SAMPLE = 32  # structures from which the length of x is found


class DrawnNet:
    """Columns of the linear problem of a head with one drawn hidden layer.

    Parameters
    ----------
    model : Model
        Its head has ``nets`` with one hidden layer and has been standardized; the layer is drawn here.
    name : str
        Quantity of the head.
    batches : Batches
        Training structures.
    seed : int
    """

    def __init__(self, model: Model, name: str, batches: Batches, seed: int):
        self.model, self.name, self.head = model, name, model.heads[name]
        self.directions: list[Tensor] = []
        generator = torch.Generator().manual_seed(seed)
        step = max(1, len(batches) // SAMPLE)
        sample = join_environments([self._environment(batches.batch([k])) for k in range(0, len(batches), step)])
        for k, species in enumerate(self._species()):
            own = sample.features[sample.species == species]
            self._draw(k, own if len(own) else sample.features[:0], generator)

    def columns(self, batch: Batch) -> Tensor:
        """Derivatives [N, d, P] of the values of all atoms, in d components, by the P unknowns.

        Spectra have one component, whose unknowns are the same for all energies; their values are in units of the scale
        of the head.
        """
        environment = self._environment(batch)
        return torch.cat(
            [
                self._of_species(k, environment, (environment.species == species)[:, None, None])
                for k, species in enumerate(self._species())
            ],
            dim=2,
        )

    @torch.no_grad()
    def set_last(self, solution: Tensor) -> None:
        """Set the last layers from the unknowns [P, S], in the order of the columns."""
        nets = self.head.nets
        for k, (layer, own) in enumerate(zip(nets.last, solution.to(nets.scale).chunk(len(nets.last)))):
            of_functions, of_constants = own.split([layer.in_features, len(own) - layer.in_features])
            if self.directions:
                layer.weight.copy_(self.directions[k].T * of_functions[:, 0])
                layer.bias.copy_(of_constants[:, 0])
            else:
                layer.weight.copy_(of_functions.T)
                layer.bias.copy_(of_constants[0])

    def scale_of_targets(self) -> Tensor | float:
        """Divisor of targets: spectra are fitted in units of the scale of the head."""
        return 1.0 if self.directions else self.head.nets.scale

    def _species(self):
        return getattr(self.head, "centers", range(len(self.model.species)))

    def _environment(self, batch):
        descriptor = self.model.descriptor_of(self.name)
        with torch.no_grad():
            return batch.environment or descriptor(batch.system, batch.edges())

    @torch.no_grad()
    def _draw(self, k, features, generator):
        """Draw the hidden layer of the k-th net from the features [C, F] of its atoms."""
        nets, layer = self.head.nets, self.head.nets.hidden[k][0]
        prior = self.model.descriptor_of(self.name).feature_weights()
        # x is proportional to the prior itself already
        tilt = torch.ones_like(nets.shift[k]) if prior is None else prior.to(nets.shift).clamp(min=1e-12).rsqrt()
        x = (features - nets.shift[k]) * nets.inverse[k] * tilt
        length = x.square().sum(dim=1).mean().sqrt() if len(x) else x.new_ones(())
        size = torch.where(length > 1e-9, SIZE / length, 0.0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(nets.shift)

        layer.weight.copy_(short(size * tilt[:, None] * normal(*layer.weight.shape)))
        layer.bias.copy_(short(normal(len(layer.bias))))
        if isinstance(self.head, CenterHead):
            n_out = nets.last[k].out_features
            self.directions.append(normal(layer.weight.shape[1], n_out))

    @torch.no_grad()
    def _of_species(self, k, environment, mine):
        """Columns [N, d, p] of the unknowns of one net, zero for atoms of other species."""
        nets, rows = self.head.nets, mine[:, 0, 0].nonzero()[:, 0]
        x = (environment.features[rows] - nets.shift[k]) * nets.inverse[k]
        hidden = nets.hidden[k](x)
        if not self.directions:
            own = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)[:, None]
        else:
            basis = self._basis(environment, rows) * nets.scale
            own = torch.cat([(basis @ self.directions[k].T) * hidden[:, None], basis], dim=2)
        return own.new_zeros(len(mine), *own.shape[1:]).index_copy(0, rows, own)

    def _basis(self, environment: Environment, rows: Tensor) -> Tensor:
        """Tensors of the head [C, d, O]."""
        assert environment.frame is not None  # the constructor of the model has checked it
        return self.head.basis(environment.frame[rows]).flatten(2).transpose(1, 2)


def short(numbers: Tensor) -> Tensor:
    """Random numbers of the same sizes with mantissas of two bits, in bfloat16.

    Any numbers of such sizes will do, and files of models are short, the more so where they are packed (see
    ase_mlelec.model_file.write).
    """
    mantissa, exponent = torch.frexp(numbers)
    return torch.ldexp((4 * mantissa).round() / 4, exponent).bfloat16()
