"""Small OME-Zarr images for the tests of the page's reader, and their values: `python tests/web/zarr_files.py` writes them."""

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from image_files import values
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.storage import MemoryStore

FILE = Path(__file__).parents[2] / "web" / "test" / "zarrs.json"
_FILL = 7


def _axes(names: str) -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    return [
        {"name": n, "type": kinds.get(n, "space")} | ({"unit": "nanometer"} if n in "zyx" else {})
        for n in names
    ]


def _image(array: NDArray[Any], names: str, version: str, **more: Any) -> dict[str, Any]:
    """Return the attributes of an image of two levels; a pixel has 250 nm."""
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [250.0 * 2**level if n in "yx" else 1.0 for n in names]}
            ],
        }
        for level in range(2)
    ]
    image = {"axes": _axes(names), "datasets": datasets}
    return {"version": version, "multiscales": [image], **more}


def _entries(store: MemoryStore) -> dict[str, bytes]:
    return {name: buffer.to_bytes() for name, buffer in store._store_dict.items()}


def zarr_entries(
    array: NDArray[Any], names: str, version: str, *, inside: str = "", **options: Any
) -> dict[str, bytes]:
    """Return the files of an OME-Zarr of two levels, by path.

    Args:
        array: level 0; level 1 is every second pixel along y and x.
        names: axes of the array, such as `tczyx`.
        version: of OME-Zarr, 0.4 (zarr 2) or 0.5 (zarr 3).
        inside: path of the image, where its root has the attributes of a bioformats2raw container.
        options: further arguments of `zarr.create_array`.
    """
    kind: Any = 3 if version == "0.5" else 2
    store = MemoryStore()
    channels = array.shape[names.index("c")] if "c" in names else 1
    labels = {"omero": {"channels": [{"label": f"channel {i}"} for i in range(channels)]}}
    attributes = _image(array, names, version, **labels)
    root = zarr.create_group(store, zarr_format=kind, path=inside)
    root.attrs.update({"ome": attributes} if version == "0.5" else attributes)
    if inside:
        outer = {"bioformats2raw.layout": 3}
        outermost = zarr.open_group(store, mode="a", zarr_format=kind)
        outermost.attrs.update({"ome": outer} if version == "0.5" else outer)
    coarse = tuple(slice(None, None, 2 if n in "yx" else 1) for n in names)
    for level, content in enumerate((array, array[coarse])):
        chunks = tuple(min(size, 4) if n in "yx" else 1 for n, size in zip(names, content.shape, strict=True))
        settings: dict[str, Any] = {
            "chunks": chunks,
            "fill_value": _FILL,
            "config": {"write_empty_chunks": False},
            **options,
        }
        if kind == 2:
            settings.setdefault("chunk_key_encoding", {"name": "v2", "separator": "/"})
        if "shards" in settings:
            settings["shards"] = tuple(
                size * (2 if n in "yx" else 1) for n, size in zip(names, settings["chunks"], strict=True)
            )
        made = root.create_array(
            str(level), shape=content.shape, dtype=settings.pop("dtype", content.dtype), **settings
        )
        made[...] = content
    return _entries(store)


def zip_of(files: Mapping[str, bytes], *, folder: str = "", stored: bool = True) -> bytes:
    """Return a zip of files, by path."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(folder + name, (1980, 1, 1, 0, 0, 0)), files[name])
    return stream.getvalue()


def _with_missing(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array[..., :4, :4] = _FILL
    return array


_Case = tuple[NDArray[Any], str, bytes]


def _cases() -> dict[str, _Case]:
    found: dict[str, _Case] = {}

    def add(
        name: str,
        array: NDArray[Any],
        names: str,
        version: str,
        *,
        folder: str = "",
        stored: bool = True,
        **options: Any,
    ) -> None:
        files = zarr_entries(array, names, version, **options)
        found[name] = (array, names, zip_of(files, folder=folder, stored=stored))

    plane, stack = values("uint16", 9, 11), values("uint16", 2, 2, 3, 9, 11)
    compressors: dict[str, tuple[str, dict[str, Any]]] = {
        "blosc lz4": ("0.4", {"compressors": numcodecs.Blosc("lz4", shuffle=1)}),
        "blosc zstd": ("0.4", {"compressors": numcodecs.Blosc("zstd", shuffle=2)}),
        "zlib": ("0.4", {"compressors": numcodecs.Zlib()}),
        "gzip": ("0.4", {"compressors": numcodecs.GZip()}),
        "lz4": ("0.4", {"compressors": numcodecs.LZ4()}),
        "zstd": ("0.4", {"compressors": numcodecs.Zstd()}),
        "uncompressed": ("0.4", {"compressors": None}),
        "blosc of zarr 3": ("0.5", {"compressors": BloscCodec(cname="zstd")}),
        "gzip of zarr 3": ("0.5", {"compressors": GzipCodec()}),
        "zstd of zarr 3": ("0.5", {"compressors": ZstdCodec(checksum=True)}),
        "uncompressed of zarr 3": ("0.5", {"compressors": None}),
        "shards": ("0.5", {"compressors": ZstdCodec(), "shards": True}),
        "shards of blosc": ("0.5", {"compressors": BloscCodec(), "shards": True}),
    }
    for name, (version, options) in compressors.items():
        add(f"{name}.zip", plane, "yx", version, **options)
    for dtype in ("uint8", "int16", "uint32", "int64", "float32", "float64"):
        add(f"{dtype}.zip", values(dtype, 5, 7), "yx", "0.5")
    add("bool.zip", values("uint8", 5, 7) > 100, "yx", "0.5", fill_value=False)
    add("big-endian.zip", plane, "yx", "0.4", dtype=">u2")
    add("column by column.zip", plane, "yx", "0.4", order="F")
    add("transposed.zip", plane, "yx", "0.5", filters=[TransposeCodec(order=(1, 0))])
    add("stack 0.4.zip", stack, "tczyx", "0.4")
    add("stack 0.5.ozx", stack, "tczyx", "0.5", shards=True)
    add("other axes.zip", values("uint8", 3, 2, 5, 7), "zcyx", "0.5")
    add("missing chunks.zip", _with_missing(values("uint16", 2, 9, 11)), "cyx", "0.4")
    add("missing chunks of shards.zip", _with_missing(values("uint16", 2, 9, 11)), "cyx", "0.5", shards=True)
    add("dots in names.zip", stack, "tczyx", "0.4", chunk_key_encoding={"name": "v2", "separator": "."})
    add("in a folder, compressed.zip", plane, "yx", "0.5", folder="image.ome.zarr/", stored=False)
    add("compressed shards.zip", plane, "yx", "0.5", shards=True, stored=False)
    add("container.zip", plane, "yx", "0.4", inside="0")
    return found


def _planes(array: NDArray[Any], names: str) -> NDArray[Any]:
    """Return an array as (time * z, channel, y, x)."""
    missing = [n for n in "tzcyx" if n not in names]
    full = array.reshape((1,) * len(missing) + array.shape)
    ordered = np.transpose(full, ["".join([*missing, *names]).index(n) for n in "tzcyx"])
    return ordered.reshape(-1, *ordered.shape[2:])


def zarr_files() -> list[dict[str, Any]]:
    """Return the files in base64, with their values by plane (time, then z) and channel."""
    return [
        {
            "name": name,
            "dtype": str(array.dtype),
            "shape": list(_planes(array, names).shape),
            "values": [float(v) for v in _planes(array, names).ravel()],
            "file": base64.b64encode(content).decode(),
        }
        for name, (array, names, content) in _cases().items()
    ]


def refused_zarrs() -> list[dict[str, Any]]:
    """Return zips that the page refuses, and words of the reason."""
    plane = values("uint16", 9, 11)
    good = zarr_entries(plane, "yx", "0.5")
    cut = good | {name: content[:5] for name, content in good.items() if name.startswith("0/c/")}
    plate = {"ome": {"version": "0.5", "plate": {"wells": [{"path": "A/1"}]}}}
    group = {"zarr_format": 3, "node_type": "group"}
    huge = json.loads(good["0/zarr.json"]) | {"shape": [20000, 20000]}
    files = {
        "no zarr.zip": ({"notes.txt": b"none"}, "is no OME-Zarr"),
        "plate.zip": (
            {"zarr.json": json.dumps({**group, "attributes": plate}).encode()},
            "is a plate of wells: open one of its images, such as A/1/0",
        ),
        "no image.zip": (
            {"zarr.json": json.dumps({**group, "attributes": {}}).encode()},
            "without the metadata of an image",
        ),
        "cut short.zip": (cut, "is damaged"),
        "lzma.zip": (
            zarr_entries(plane, "yx", "0.4", compressors=numcodecs.LZMA()),
            "compressed with lzma, which this page cannot read",
        ),
        "another axis.zip": (zarr_entries(values("uint8", 3, 4, 5), "ayx", "0.5"), "has the axis a"),
        "no values.zip": (
            zarr_entries(np.zeros((4, 5), np.complex64), "yx", "0.5", fill_value=0),
            "complex64",
        ),
        "huge.zip": (
            {
                "zarr.json": good["zarr.json"],
                "0/zarr.json": json.dumps(huge).encode(),
                "1/zarr.json": json.dumps(huge).encode(),
            },
            "has 20000 x 20000 pixels, more than the 268,435,456 that a page can run",
        ),
    }
    return [
        {"name": name, "reason": reason, "file": base64.b64encode(zip_of(content)).decode()}
        for name, (content, reason) in files.items()
    ]


if __name__ == "__main__":
    groups = {"files": zarr_files(), "refused": refused_zarrs()}
    lines = [
        f'"{key}": [\n' + ",\n".join(json.dumps(one) for one in group) + "\n]"
        for key, group in groups.items()
    ]
    FILE.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
