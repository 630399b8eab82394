"""Networks, one file each, and measurements of any network: valid sizes, receptive field, required halo.

`probe` and `radius` measure modules at export; `receptive_field` and `halo` any function of arrays, e.g. an engine.
"""

from im2im_zoo.networks.halo import Halo, RequiredHalo, effective_halo, required_halo
from im2im_zoo.networks.probe import Call, Grid, as_call, step_grid
from im2im_zoo.networks.radius import receptive_field_radius
from im2im_zoo.networks.tensor_axis import NetworkAxis
from im2im_zoo.networks.tile_errors import Agreement

__all__ = [
    "Agreement",
    "Call",
    "Grid",
    "Halo",
    "NetworkAxis",
    "RequiredHalo",
    "as_call",
    "effective_halo",
    "receptive_field_radius",
    "required_halo",
    "step_grid",
]
