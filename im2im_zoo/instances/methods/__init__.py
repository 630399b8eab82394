"""From dense maps to instance labels: one file a method, of numpy alone, which a package ships as it is.

Each has `group(maps, **parameters)`: maps (channel, (z,) y, x) of one image at one time point, float32; labels ((z,) y, x),
int32, 0 background, 1..N in raster order of the objects' seeds.
"""
