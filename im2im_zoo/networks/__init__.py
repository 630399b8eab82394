"""Networks of our own, one file each, and `probe`, which measures what any network needs to be tiled."""

from im2im_zoo.networks.halo import Halo, effective_halo
from im2im_zoo.networks.probe import Call, Grid, as_call, receptive_field, step_grid

__all__ = ["Call", "Grid", "Halo", "as_call", "effective_halo", "receptive_field", "step_grid"]
