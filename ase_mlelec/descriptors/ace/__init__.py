"""ACE invariants: products of the density of neighbors, coupled to what no rotation changes, order by order.

With A_snlm = sum over neighbors j of species s of R_n(r_j) Y_lm(r_j), the atomic basis, correlation order 1 are the
A_sn00 (two-body terms), order 2 the power spectrum sum_m A_snlm A_s'n'lm (three-body), and higher orders means over all
directions of products of three and four densities (four- and five-body).

References
----------
Bartók et al., Phys. Rev. B 87, 184115 (2013), section II; Drautz, Phys. Rev. B 99, 014104 (2019).
"""

from ase_mlelec.descriptors.ace.descriptor import ACE
from ase_mlelec.descriptors.ace.orders import Order, standard_orders

__all__ = ["ACE", "Order", "standard_orders"]
