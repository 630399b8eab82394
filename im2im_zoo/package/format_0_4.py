"""RDFs of format 0.4 that are valid, and that the converter of bioimageio.spec cannot bring to 0.5 as they are written."""

import copy
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

# Sizes of an output that are this simple a fraction of the input's are a scale; others are cropped at their ends.
_LARGEST_RATIO = 64


def make_convertible(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an RDF whose outputs with a halo have sizes that follow an input's; RDFs of 0.5 and others as they are.

    Format 0.4 lets an output have a fixed size and a halo, which 0.5 cannot state: there only a size that follows another one may have a
    halo. If the input's size is fixed, too, both say the same.

    Args:
        raw: content of the RDF, which is not changed.
    """
    content = copy.deepcopy(dict(raw))
    if not str(content.get("format_version", "")).startswith("0.4"):
        return content
    inputs, outputs = (content.get(key) for key in ("inputs", "outputs"))
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        return content
    for output in outputs:
        if isinstance(output, dict) and any(_whole_numbers(output.get("halo"))):
            reference = next((t for t in inputs if isinstance(t, dict) and _can_follow(output, t)), None)
            if reference is not None:
                output["shape"] = _following(output, reference)
    return content


def _can_follow(output: Mapping[str, Any], reference: Mapping[str, Any]) -> bool:
    """Return whether both tensors have fixed sizes, and the input has all axes that the output has a halo along."""
    axes, known = str(output.get("axes", "")), str(reference.get("axes", ""))
    shape, halo = _whole_numbers(output.get("shape")), _whole_numbers(output.get("halo"))
    fixed = len(axes) == len(shape) == len(halo) and len(known) == len(_whole_numbers(reference.get("shape")))
    return fixed and "name" in reference and all(a in known for a, n in zip(axes, halo, strict=True) if n)


def _following(output: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size of an output as that of an input times a scale, plus twice an offset."""
    sizes = dict(zip(str(reference["axes"]), _whole_numbers(reference["shape"]), strict=True))
    scales: list[float | None] = []
    offsets: list[float] = []
    for axis, size in zip(str(output["axes"]), _whole_numbers(output["shape"]), strict=True):
        if axis == "b":
            scale: float | None = 1.0
            offset = 0.0
        elif axis not in sizes:
            scale, offset = None, size / 2
        elif axis in ("c", "i"):
            scale, offset = 1.0, (size - sizes[axis]) / 2
        else:
            ratio = Fraction(size, sizes[axis])
            is_scale = max(ratio.numerator, ratio.denominator) <= _LARGEST_RATIO and 1 in (
                ratio.numerator,
                ratio.denominator,
            )
            scale = float(ratio) if is_scale else 1.0
            offset = 0.0 if is_scale else (size - sizes[axis]) / 2
        scales.append(scale)
        offsets.append(offset)
    return {"reference_tensor": reference["name"], "scale": scales, "offset": offsets}


def _whole_numbers(value: object) -> Sequence[int]:
    """Return a list of whole numbers; () if it is something else."""
    is_list = isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    return value if is_list else ()  # type: ignore[return-value]
