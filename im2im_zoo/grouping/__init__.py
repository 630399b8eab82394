"""From dense maps to instance labels. One file a method, which needs numpy only: a package ships it as it is.

Each has `group(maps, **parameters)`: float32 maps (channel, (z,) y, x) of one image at one time point to int32 labels
((z,) y, x), 0 background, 1..N in raster order. A recipe names it in `output.grouping`. This module imports none of them.
"""
