"""The objects of a label image: a table of what they measure, and their outlines. How good they are is in `evaluation`.

Any size of image: it is read in parts, and what is kept is a row an object.
"""

from im2im_zoo.objects.files import FORMATS, check_objects_path, write_objects
from im2im_zoo.objects.geojson import outlines
from im2im_zoo.objects.table import object_table

__all__ = ["FORMATS", "check_objects_path", "object_table", "outlines", "write_objects"]
