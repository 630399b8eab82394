"""What an image is called, by its path or address. Opens nothing."""

from im2im_zoo.images.address import Place
from im2im_zoo.images.open import image_suffixes

# Formats of microscopes that are read through bioio.
_MICROSCOPES = (".czi", ".lif", ".nd2")


def stem_of(path: Place) -> str:
    """The name without the suffix of its format: `a` for `a.tif`, `a.ome.tif` and `a.ome.zarr`.

    An image within a zarr is named by its way there: `plate-A-1-0` for `plate.ome.zarr/A/1/0`.
    """
    outer = outer_zarr(path)
    if outer is not None:
        return "-".join((stem_of(outer), *path.relative_to(outer).parts))
    return path.name[: len(path.name) - len(suffix_of(path))]


def outer_zarr(path: Place) -> Place | None:
    """The zarr that an image is within."""
    return next((parent for parent in path.parents if parent.name.lower().endswith(".zarr")), None)


def known_suffixes() -> tuple[str, ...]:
    """Of all formats that can be read, with every extra."""
    return (*image_suffixes().readable, *_MICROSCOPES)


def suffix_of(path: Place) -> str:
    """The suffix of a format that can be read, as the name has it in lower case; "" if it has none."""
    lower = path.name.lower()
    fitting = [s for s in known_suffixes() if lower.endswith(s) and len(lower) > len(s)]
    return max(fitting, key=len, default="")
