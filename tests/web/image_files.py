"""Small image files for the tests of the page's readers, and their values: `python tests/web/image_files.py` writes them."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

FILE = Path(__file__).parents[2] / "web" / "test" / "images.json"


def values(dtype: str, *shape: int) -> NDArray[Any]:
    """Return values that differ along every axis."""
    numbers = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) * 37 % 251
    if np.dtype(dtype).kind == "f":
        return (numbers / 16 - 3).astype(dtype)
    scale = 1 if np.dtype(dtype).itemsize == 1 else 211
    return ((numbers - (100 if np.dtype(dtype).kind == "i" else 0)) * scale).astype(dtype)


def _tiff(array: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, array, software=False, **{"metadata": None, "photometric": "minisblack", **options}
    )
    return stream.getvalue()


def _png(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    return array[None, None]


def _colours(array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, -1, 0)[None]


def _tczyx(array: NDArray[Any]) -> NDArray[Any]:
    """Return (t, z, c, y, x) as (t * z, c, y, x)."""
    return array.reshape(-1, *array.shape[2:])


_Make = tuple[NDArray[Any], Callable[[NDArray[Any]], bytes], Callable[[NDArray[Any]], NDArray[Any]]]


def _files() -> dict[str, _Make]:
    found: dict[str, _Make] = {}
    for dtype in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64"):
        found[f"{dtype}.tif"] = (values(dtype, 5, 7), _tiff, _plain)
    grey = values("uint16", 40, 33)
    found["big-endian.tif"] = (grey, lambda a: _tiff(a, byteorder=">"), _plain)
    found["bigtiff.tif"] = (grey, lambda a: _tiff(a, bigtiff=True), _plain)
    found["strips.tif"] = (grey, lambda a: _tiff(a, rowsperstrip=3), _plain)
    found["tiles.tif"] = (grey, lambda a: _tiff(a, tile=(16, 16)), _plain)
    for name in ("lzw", "deflate", "packbits", "zstd"):
        found[f"{name}.tif"] = (grey, lambda a, name=name: _tiff(a, compression=name), _plain)  # type: ignore[misc]
    for name in ("lzw", "deflate"):
        found[f"{name} with differences.tif"] = (
            grey,
            lambda a, name=name: _tiff(a, compression=name, predictor=True),  # type: ignore[misc]
            _plain,
        )
    found["float with differences.tif"] = (
        values("float32", 20, 21),
        lambda a: _tiff(a, compression="deflate", predictor=True),
        _plain,
    )
    found["colour.tif"] = (values("uint8", 6, 5, 3), lambda a: _tiff(a, photometric="rgb"), _colours)
    found["colour 16 bit.tif"] = (values("uint16", 6, 5, 3), lambda a: _tiff(a, photometric="rgb"), _colours)
    found["colour in planes.tif"] = (
        values("uint8", 3, 6, 5),
        lambda a: _tiff(a, photometric="rgb", planarconfig="separate"),
        lambda a: a[None],
    )
    found["pages.tif"] = (values("uint16", 4, 6, 5), _tiff, lambda a: a[:, None])
    stack = values("uint16", 2, 3, 2, 6, 5)  # t, z, c, y, x
    found["imagej.tif"] = (stack, lambda a: _tiff(a, imagej=True, metadata={"axes": "TZCYX"}), _tczyx)
    found["imagej big-endian.tif"] = (
        stack,
        lambda a: _tiff(a, imagej=True, byteorder=">", metadata={"axes": "TZCYX"}),
        _tczyx,
    )
    found["imagej with one directory.tif"] = (
        stack,
        lambda a: _imagej_of_one_directory(a, "<"),
        _tczyx,
    )
    found["imagej with one directory, big-endian.tif"] = (
        stack,
        lambda a: _imagej_of_one_directory(a, ">"),
        _tczyx,
    )
    found["ome.tif"] = (
        values("uint16", 2, 2, 3, 6, 5),  # t, c, z, y, x
        lambda a: _tiff(a, ome=True, metadata={"axes": "TCZYX", "Channel": {"Name": ["DAPI", "GFP"]}}),
        lambda a: _tczyx(np.swapaxes(a, 1, 2)),
    )
    found["grey.png"] = (values("uint8", 5, 7), _png, _plain)
    found["grey 16 bit.png"] = (values("uint16", 5, 7), _png, _plain)
    found["colour.png"] = (values("uint8", 5, 7, 3), _png, _colours)
    found["alpha.png"] = (values("uint8", 5, 7, 4), _png, _colours)
    return found


def _imagej_of_one_directory(array: NDArray[Any], byteorder: Any) -> bytes:
    """Return a stack as ImageJ writes those beyond 4 GB: all planes behind one directory."""
    return _tiff(array, imagej=True, byteorder=byteorder, truncate=True, metadata={"axes": "TZCYX"})


def image_files() -> list[dict[str, Any]]:
    """Return the files in base64, with their values by plane (time, then z) and channel."""
    found = []
    for name, (array, write, arrange) in _files().items():
        planes = arrange(array)
        dtype = "float32" if array.dtype == np.float16 else str(array.dtype)
        content = {
            "name": name,
            "dtype": dtype,
            "shape": list(planes.shape),
            "values": [float(v) for v in planes.ravel()[:: max(1, planes.size // 200)]],
            "every": max(1, planes.size // 200),
            "file": base64.b64encode(write(array)).decode(),
        }
        found.append(content)
    return found


def refused_files() -> list[dict[str, Any]]:
    """Return files that the page refuses, and words of the reason."""
    whole = _tiff(values("uint16", 40, 33))
    jpeg2000 = _tiff(values("uint8", 32, 32), compression="jpeg2000")
    lzma = _tiff(values("uint8", 32, 32), compression="lzma")
    files = {
        "jpeg2000.tif": (jpeg2000, "compressed with JPEG 2000, which the page cannot read"),
        "lzma.tif": (lzma, "compressed with LZMA, which the page cannot read"),
        "cut short.tif": (whole[: len(whole) // 2], "damaged"),
        "only a start.tif": (whole[:8], "damaged"),
        "complex.tif": (_tiff(np.zeros((4, 4), np.complex64)), "sample format 6"),
        "text.tif": (b"this is no image at all", "no image that this page can read"),
        "empty.tif": (b"", "is empty"),
        "damaged.png": (_png(values("uint8", 5, 7))[:40], "damaged"),
    }
    return [
        {"name": name, "reason": reason, "file": base64.b64encode(content).decode()}
        for name, (content, reason) in files.items()
    ]


if __name__ == "__main__":
    groups = {"files": image_files(), "refused": refused_files()}
    lines = [
        f'"{key}": [\n' + ",\n".join(json.dumps(one) for one in group) + "\n]"
        for key, group in groups.items()
    ]
    FILE.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
