"""What can be measured of any network: the sizes that it takes, how far it reaches, the halo that it needs.

`probe` and `field` measure modules while they are packaged; `reach` and `halo` any function of arrays, as an engine is one.
"""

from im2im_zoo.networks.agreement import Agreement
from im2im_zoo.networks.field import receptive_field
from im2im_zoo.networks.halo import Halo, Needed, effective_halo, needed_halo
from im2im_zoo.networks.ports import NetworkAxis, Port
from im2im_zoo.networks.probe import Call, Grid, as_call, step_grid

__all__ = [
    "Agreement",
    "Call",
    "Grid",
    "Halo",
    "Needed",
    "NetworkAxis",
    "Port",
    "as_call",
    "effective_halo",
    "needed_halo",
    "receptive_field",
    "step_grid",
]
