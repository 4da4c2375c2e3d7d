"""A look at data before a training: what they hold, what looks wrong, and the configuration that follows.

``mlelec init`` prints and writes what these functions return. Frames are read and looked at without torch.
"""

from ase_mlelec.survey.choices import configuration
from ase_mlelec.survey.report import report
from ase_mlelec.survey.whole import Survey, survey

__all__ = ["Survey", "configuration", "report", "survey"]
