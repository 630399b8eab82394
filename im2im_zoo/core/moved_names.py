"""Modules, classes and functions that are named otherwise than in an earlier release: the one table, and the look-up.

Recipes, run folders and packages of earlier releases name parts of im2im_zoo by dotted paths. A path that is in this
table, or below one that is, means what is there today.
"""

# From the name in an earlier release, of a module or of what is in one, to today's. Every name here is one that a file of a
# user can hold; an entry stays for ever, and is changed if what it names moves again.
MOVED: dict[str, str] = {
    "im2im_zoo.grouping": "im2im_zoo.instances.methods",
}


def current_name(path: str) -> str:
    """Return today's dotted path of what an earlier release named `path`; any other path is returned as it is.

    The longest entry that `path` begins with counts, so that a class may go elsewhere than the rest of its module.
    """
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        moved = MOVED.get(".".join(parts[:count]))
        if moved is not None:
            return ".".join([moved, *parts[count:]])
    return path
