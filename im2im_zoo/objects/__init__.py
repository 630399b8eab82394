"""Objects of a label image: their measurements as a table, and their outlines.

Images of any size: they are read in parts, and one row an object is kept in memory.
"""

from im2im_zoo.objects.files import FORMATS, check_objects_path, write_objects
from im2im_zoo.objects.geojson import outlines
from im2im_zoo.objects.table import object_table

__all__ = ["FORMATS", "check_objects_path", "object_table", "outlines", "write_objects"]
