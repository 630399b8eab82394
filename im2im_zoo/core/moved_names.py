"""Table of modules, classes and functions that were renamed after a release, and its look-up.

Recipes, run folders and packages of earlier releases name parts of im2im_zoo by dotted paths. A path in this table, or
below one, is replaced by its current one.
"""

# From the name in an earlier release, of a module or of a member of one, to the current name. A user's file can hold any name
# here, so an entry stays for ever, and is changed if its target moves again.
MOVED: dict[str, str] = {
    "im2im_zoo.grouping": "im2im_zoo.instances.methods",
    "im2im_zoo.networks.with_softmax": "im2im_zoo.networks.with_processing",
}


def current_name(path: str) -> str:
    """Return the current dotted path of a path from an earlier release; any other path is returned as it is.

    The longest matching entry counts, so a class can move to another place than the rest of its module.
    """
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        moved = MOVED.get(".".join(parts[:count]))
        if moved is not None:
            return ".".join([moved, *parts[count:]])
    return path
