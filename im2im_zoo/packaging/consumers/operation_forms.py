"""Forms of operations that some programs lack or compute differently: a gain for each channel, percentiles, null arguments."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Effect of a form of an operation in a program, and a remedy.
FORMS: Mapping[str, tuple[str, str]] = {
    "casts": ("it leaves out the cast to another type than float32 ({id})", "cast the image before"),
    "clip_one_limit": ("its {id} needs both limits", "give it both limits (min, max)"),
    "clip_percentiles": ("its {id} has no percentiles", "give its limits as numbers (min, max)"),
    "many_gains": (
        "its {id} takes the first gain and offset for all channels",
        "export again: im2im-zoo puts it into the network",
    ),
    "many_means": (
        "its {id} fails with a mean and std for each channel",
        "export again: im2im-zoo puts it into the network",
    ),
    "many_thresholds": ("its {id} has no threshold for each channel", "give one threshold"),
    "nulls": ("it fails at an argument of {id} that is null", "leave the argument out"),
    "no_axes": ("its {id} fails without axes", "write the axes"),
    "one_gain": (
        "it cannot read a {id} whose gain or offset is one number",
        "write them as lists, or export again: im2im-zoo puts it into the network",
    ),
    "other_axes": ("its {id} is over y and x, whatever its axes are", "take the statistics over y and x"),
    "percentiles": (
        "its {id} takes values of pixels for percentiles, where others interpolate: results differ by up to some thousandths, on "
        "small images by more",
        "",
    ),
    "planes": (
        "its {id} of each channel (or plane) is wrong: each changes all others as well",
        "train with statistics over all channels, or with numbers that are fixed",
    ),
    "reference_tensor": ("its {id} ignores the reference tensor", "take the statistics of the tensor itself"),
    "small_std": ("its {id} adds 1e-6 to the std", "train on images of larger numbers"),
}


def forms_of(operation: Any, tensor: Any) -> Iterator[str]:
    """Yield forms of an operation on a tensor that some programs lack or compute otherwise."""
    kwargs: Any = getattr(operation, "kwargs", None)
    stated = getattr(kwargs, "model_fields_set", ())
    if any(getattr(kwargs, name) is None for name in stated if name != "reference_tensor"):
        yield "nulls"
    check = _CHECKS.get(operation.id)
    if check is not None:
        yield from check(kwargs, tensor)


def _clip_forms(kwargs: Any, tensor: Any) -> Iterator[str]:
    percentiles = (getattr(kwargs, "min_percentile", None), getattr(kwargs, "max_percentile", None))
    if percentiles != (None, None):
        yield "clip_percentiles"
    elif kwargs.min is None or kwargs.max is None:
        yield "clip_one_limit"


def _scale_linear_forms(kwargs: Any, tensor: Any) -> Iterator[str]:
    lists = [n for n in (kwargs.gain, kwargs.offset) if isinstance(n, list | tuple)]
    if len(lists) < 2:
        yield "one_gain"
    if any(len({*n}) > 1 for n in lists):
        yield "many_gains"


def _fixed_forms(kwargs: Any, tensor: Any) -> Iterator[str]:
    if isinstance(kwargs.mean, list | tuple) or isinstance(kwargs.std, list | tuple):
        yield "many_means"
    elif kwargs.std < _SMALL_STD:
        yield "small_std"


# 1e-6 beside it is a ten thousandth.
_SMALL_STD = 1e-2


def _scale_range_forms(kwargs: Any, tensor: Any) -> Iterator[str]:
    yield "percentiles"
    if kwargs.reference_tensor is not None:
        yield "reference_tensor"
    yield from _axes_forms(kwargs)


def _zero_mean_forms(kwargs: Any, tensor: Any) -> Iterator[str]:
    yield from _axes_forms(kwargs)
    if kwargs.axes is None:
        return
    held = {str(a) for a in kwargs.axes}
    if any(str(a.id) not in held and a.type != "batch" and not _is_single(a) for a in tensor.axes):
        yield "planes"


def _axes_forms(kwargs: Any) -> Iterator[str]:
    if kwargs.axes is None:
        yield "no_axes"
    elif {str(a) for a in kwargs.axes} - {"batch", "channel"} != {"y", "x"}:
        yield "other_axes"


def _is_single(axis: Any) -> bool:
    return axis.type == "channel" and len(axis.channel_names) == 1


def _binarize_forms(kwargs: Any, tensor: Any) -> Iterator[str]:
    if not isinstance(kwargs.threshold, int | float):
        yield "many_thresholds"


def _cast_forms(kwargs: Any, tensor: Any) -> Iterator[str]:
    if kwargs.dtype != "float32" and kwargs.dtype != getattr(tensor.data, "type", None):
        yield "casts"


_CHECKS: Mapping[str, Callable[[Any, Any], Iterator[str]]] = {
    "binarize": _binarize_forms,
    "clip": _clip_forms,
    "ensure_dtype": _cast_forms,
    "fixed_zero_mean_unit_variance": _fixed_forms,
    "scale_linear": _scale_linear_forms,
    "scale_range": _scale_range_forms,
    "zero_mean_unit_variance": _zero_mean_forms,
}
