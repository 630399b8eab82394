"""Objects of a label image: their measurements as a table, and their outlines.

Images of any size: they are read in parts, and one row an object is kept in memory.
"""

from im2im_zoo.objects.files import check_objects_path, write_objects, write_several

__all__ = ["check_objects_path", "write_objects", "write_several"]
