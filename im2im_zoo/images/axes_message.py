"""Message about an image whose file does not name all its axes, made from what the file states."""

from collections.abc import Sequence

from im2im_zoo.core.axes import AxisName, axes_letters

_MEANINGS: dict[AxisName, str] = {
    "z": "planes of a stack",
    "time": "time points",
    "channel": "channels",
    "index": "any other",
}


def describe_unknown_axes(
    shape: Sequence[int], names: Sequence[AxisName | None], note: str = "", alternative: str = ""
) -> str:
    """Return what is known of the axes of an image, and how to declare them.

    Args:
        shape: of the voxels in the file.
        names: of its dimensions, None where one has no name; () if none has.
        note: what the file states besides.
        alternative: what to do instead.

    Example:
        >>> describe_unknown_axes((5, 40, 48), (None, "y", "x"))
        'has the shape (5, 40, 48), of which y and x are known, and does not say which axis the dimension of 5 is; declare it: --axes zyx (planes of a stack), tyx (time points), cyx (channels) or iyx (any other)'
        >>> describe_unknown_axes((512, 512, 3), ())
        'has the shape (512, 512, 3) and does not say which axes these are; declare them with one letter a dimension in the order of the shape: --axes with letters of y, x, z (planes of a stack), t (time points), c (channels), i (any other)'
    """
    stated = f"{note}; it " if note else ""
    instead = f"; {alternative}" if alternative else ""
    known = [name for name in names if name is not None]
    unknown = [number for number, name in enumerate(names) if name is None]
    if not known or len(set(known)) < len(known) or len(names) != len(shape):
        letters = ", ".join(f"{axes_letters([axis])} ({text})" for axis, text in _MEANINGS.items())
        return (
            f"{stated}has the shape {tuple(shape)} and does not say which axes these are; declare them with one letter a dimension in the "
            f"order of the shape: --axes with letters of y, x, {letters}{instead}"
        )
    free = {axis: text for axis, text in _MEANINGS.items() if axis not in known}
    listed = " and ".join((", ".join(known[:-1]), known[-1])) if len(known) > 1 else known[0]
    sizes = " and ".join(str(shape[number]) for number in unknown)
    about = f"{stated}has the shape {tuple(shape)}, of which {listed} are known, and does not say which "
    if len(unknown) == 1:
        options = [
            f"{axes_letters([axis if name is None else name for name in names])} ({text})"
            for axis, text in free.items()
        ]
        return f"{about}axis the dimension of {sizes} is; declare it: --axes {', '.join(options[:-1])} or {options[-1]}{instead}"
    pattern = "".join("?" if name is None else axes_letters([name]) for name in names)
    letters = ", ".join(f"{axes_letters([axis])} ({text})" for axis, text in free.items())
    return f"{about}axes the dimensions of {sizes} are; declare them: --axes {pattern}, with a letter of {letters} for each ?{instead}"
