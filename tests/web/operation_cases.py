"""Expected values of the page's operations, from the Python implementation: `python tests/web/operation_cases.py` writes them."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from im2im_zoo.processing.pipeline import fit
from im2im_zoo.processing.requirements import Operation

FILE = Path(__file__).parents[2] / "web" / "test" / "operations.json"
_PLACES = 24
_DESCRIPTION: TypeAdapter[Operation] = TypeAdapter(Annotated[Operation, Field(discriminator="id")])

CYX, YXC, YX = ("channel", "y", "x"), ("y", "x", "channel"), ("y", "x")


def _case(
    name: str, operations: list[dict[str, Any]], dtype: str, axes: tuple[str, ...], shape: tuple[int, ...]
) -> dict[str, Any]:
    return {"name": name, "operations": operations, "axes": list(axes), "shape": list(shape), "dtype": dtype}


def _operation(id_: str, **kwargs: Any) -> dict[str, Any]:
    return {"id": id_, "kwargs": kwargs} if kwargs else {"id": id_}


def _descriptions() -> list[dict[str, Any]]:
    small, wide = (3, 7, 11), (2, 300, 301)
    found = []
    for dtype in ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"):
        found += [
            _case(f"zero_mean_unit_variance {dtype}", [_operation("zero_mean_unit_variance", axes=["channel", "y", "x"])], dtype, CYX, small),
            _case(
                f"scale_range {dtype}",
                [_operation("scale_range", axes=["channel", "y", "x"], min_percentile=1.0, max_percentile=99.8)],
                dtype, CYX, wide,
            ),
            _case(f"sigmoid {dtype}", [_operation("scale_linear", gain=1e-3, offset=0.1), _operation("sigmoid")], dtype, CYX, small),
            _case(f"clip {dtype}", [_operation("clip", min=3, max=117)], dtype, CYX, small),
            _case(f"clip by percentiles {dtype}", [_operation("clip", min_percentile=3.0, max_percentile=95.0, axes=["y", "x"])], dtype, CYX, wide),
        ]  # fmt: skip
    for source in ("float32", "float64", "int32", "uint16", "int8", "bool", "uint64"):
        for target in ("uint8", "int8", "uint16", "int32", "int64", "float32", "float64", "bool"):
            found.append(
                _case(
                    f"ensure_dtype {source} to {target}",
                    [_operation("ensure_dtype", dtype=target)],
                    source,
                    CYX,
                    small,
                )
            )
    found += [
        _case("zero_mean_unit_variance by channel", [_operation("zero_mean_unit_variance", axes=["y", "x"], eps=1e-3)], "uint16", CYX, small),
        _case("zero_mean_unit_variance by channel, channels last", [_operation("zero_mean_unit_variance", axes=["y", "x"])], "uint16", YXC, (7, 11, 3)),
        _case("zero_mean_unit_variance by row", [_operation("zero_mean_unit_variance", axes=["channel", "x"])], "float32", CYX, small),
        _case("zero_mean_unit_variance of the dataset", [_operation("zero_mean_unit_variance")], "uint16", CYX, small),
        _case("zero_mean_unit_variance without channels", [_operation("zero_mean_unit_variance", axes=["y", "x"])], "uint16", YX, (9, 8)),
        _case("scale_range by channel", [_operation("scale_range", axes=["y", "x"], min_percentile=5.0, max_percentile=95.0, eps=1e-3)], "float32", CYX, wide),
        _case("scale_range by channel, channels last", [_operation("scale_range", axes=["y", "x"], min_percentile=0.1, max_percentile=99.9)], "uint16", YXC, (300, 301, 2)),
        _case("scale_range to the ends", [_operation("scale_range", axes=["batch", "channel", "y", "x"])], "int16", CYX, small),
        _case("scale_range by another tensor", [_operation("scale_range", axes=["y", "x"], reference_tensor="other", min_percentile=2.0, max_percentile=98.0)], "float32", CYX, small),
        _case("scale_range after a cast", [_operation("ensure_dtype", dtype="float32"), _operation("scale_range", axes=["channel", "y", "x"], min_percentile=1.0, max_percentile=99.8), _operation("ensure_dtype", dtype="float32")], "uint16", CYX, wide),
        _case("scale_mean_variance", [_operation("scale_mean_variance", reference_tensor="other", axes=["y", "x"])], "float32", CYX, small),
        _case("scale_mean_variance of everything", [_operation("scale_mean_variance", reference_tensor="other")], "uint16", CYX, small),
        _case("fixed_zero_mean_unit_variance", [_operation("fixed_zero_mean_unit_variance", mean=30000.0, std=123.0)], "uint16", CYX, small),
        _case("fixed_zero_mean_unit_variance by channel", [_operation("fixed_zero_mean_unit_variance", mean=[1.0, 2.0, 3.0], std=[2.0, 3.0, 5.0], axis="channel")], "uint8", CYX, small),
        _case("scale_linear by channel", [_operation("scale_linear", gain=[0.5, 2.0, 3.0], offset=[1.0, 0.0, -1.0], axis="channel")], "uint8", CYX, small),
        _case("scale_linear by channel, channels last", [_operation("scale_linear", gain=[0.5, 2.0, 3.0], offset=[1.0, 0.0, -1.0], axis="channel")], "float32", YXC, (7, 11, 3)),
        _case("binarize", [_operation("binarize", threshold=0.25)], "float32", CYX, small),
        _case("binarize by channel", [_operation("binarize", threshold=[10.0, 100.0, 200.0], axis="channel")], "uint8", CYX, small),
        _case("softmax over channels", [_operation("softmax", axis="channel")], "float32", CYX, small),
        _case("softmax over channels last", [_operation("softmax", axis="channel")], "float32", YXC, (7, 11, 3)),
        _case("softmax over x", [_operation("softmax", axis="x")], "float64", CYX, small),
        _case("clip by percentiles of the dataset", [_operation("clip", min_percentile=3.0, max_percentile=95.0)], "uint16", CYX, small),
        _case("clip from below", [_operation("clip", min=0.5)], "uint16", CYX, small),
        _case("clip from above by a percentile", [_operation("clip", max_percentile=60.0, axes=["channel", "y", "x"])], "float32", CYX, small),
        _case("sigmoid, then a threshold", [_operation("sigmoid"), _operation("binarize", threshold=0.5), _operation("ensure_dtype", dtype="uint8")], "float32", CYX, small),
    ]  # fmt: skip
    return found


def pattern(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    """Return values that `web/test/operations.test.ts` makes of the same seed."""
    value = (np.arange(np.prod(shape), dtype=np.int64) * 7919 + seed * 104729) % 65521
    made = {
        "bool": value % 2,
        "uint8": value % 256,
        "int8": value % 256 - 128,
        "uint16": value,
        "int16": value - 32768,
        "uint32": value * 65521,
        "uint64": value * 65521,
        "int32": (value - 32768) * 65521,
        "int64": (value - 32768) * 65521,
    }.get(dtype, (value - 30000) / 8192)
    return made.astype(dtype).reshape(shape)


def operation_cases() -> list[dict[str, Any]]:
    """Return all cases with the values that the Python implementation gives."""
    found = []
    for seed, case in enumerate(_descriptions(), 1):
        shape, axes = tuple(case["shape"]), case["axes"]
        image = xr.DataArray(pattern(shape, case["dtype"], seed), dims=axes, name="image")
        other = xr.DataArray(pattern(shape, "float32", seed + 1), dims=axes, name="other")
        described = [_DESCRIPTION.validate_python(plain) for plain in case["operations"]]
        result = fit(described, image, references={"image": image, "other": other})(image).transpose(*axes)
        values = result.to_numpy().ravel()
        places = sorted({int(p) for p in np.linspace(0, values.size - 1, _PLACES)})
        operations = [description.model_dump(mode="json") for description in described]
        expected = {
            "dtype": str(values.dtype),
            "places": places,
            "values": [float(values[place]) for place in places],
        }
        found.append({**case, "operations": operations, "seed": seed, "expected": expected})
    return found


if __name__ == "__main__":
    cases = ",\n".join(json.dumps(case) for case in operation_cases())
    FILE.write_text('{"cases": [\n' + cases + "\n]}\n", encoding="utf-8")
