"""ACE invariants: rotation-invariant products of the density of neighbors, by correlation order.

The atomic basis is A_snlm = sum over neighbors j of species s of R_n(r_j) Y_lm(r_j). Correlation order 1 has the
two-body terms A_sn00, order 2 the power spectrum sum_m A_snlm A_s'n'lm (three-body terms). Orders 3 and 4 have means
over all directions of products of three and four densities (four- and five-body terms).

References
----------
Bartók et al., Phys. Rev. B 87, 184115 (2013), section II; Drautz, Phys. Rev. B 99, 014104 (2019).
"""

from ase_mlelec.descriptors.ace.descriptor import ACE
from ase_mlelec.descriptors.ace.orders import Order, standard_orders

__all__ = ["ACE", "Order", "standard_orders"]
