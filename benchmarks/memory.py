"""Peak memory of predictions beside what they were allowed: `python benchmarks/memory.py`. Prints a table.

Each prediction runs by the command line, in a process of its own; the peak is that of the resident memory of all its
processes together, sampled every 5 ms. Images are larger than most budgets; the package is one of `cases`, and one of instances. See README.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import tifffile
import zarr
from cases import Case, write_case

_NARROW = (8, 8, 16, 32, 64, 8)
BUDGETS = ("600MB", "1GB", "2GB")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of prediction: its name, package and image, and options of `predict`."""

    name: str
    case: str
    image: str
    options: tuple[str, ...] = ()


ROWS = (
    Row("2D, ONNX Runtime, OME-Zarr", "2d", "image.ome.zarr", ("--backend", "onnxruntime")),
    Row("2D, OpenVINO", "2d", "image.ome.zarr", ("--backend", "openvino")),
    Row("2D, torch", "2d", "image.ome.zarr", ("--backend", "torch", "--weights", "torchscript")),
    Row("2D, one strip of zlib, TIFF", "2d", "strip.tif", ("--backend", "onnxruntime")),
    Row("2D, one chunk", "2d", "chunk.zarr", ("--backend", "onnxruntime", "--axes", "yx")),
    Row("2D, float64", "2d", "float64.zarr", ("--backend", "onnxruntime", "--axes", "yx")),
    Row("2D, two workers", "2d", "image.ome.zarr", ("--backend", "onnxruntime", "--workers", "2")),
    Row("3D, ONNX Runtime", "3d", "image.ome.zarr", ("--backend", "onnxruntime")),
    Row("3D, OpenVINO", "3d", "image.ome.zarr", ("--backend", "openvino")),
    Row("3D, torch", "3d", "image.ome.zarr", ("--backend", "torch", "--weights", "torchscript")),
    Row("3D, two workers", "3d", "image.ome.zarr", ("--backend", "onnxruntime", "--workers", "2")),
    Row("2D, instances", "instances", "image.ome.zarr", ("--backend", "onnxruntime", "--objects", "objects.csv")),
)  # fmt: skip


def make(folder: Path, side: int) -> None:
    """Write the packages and the images."""
    for case in (
        Case("2d", _NARROW, (side, side), 512, 512, 256, (), (), 640),
        Case("3d", (4, 4, 8, 16, 32, 4), (32, side // 4, side // 4), 384, 384, 128, (), (), 320),
    ):
        write_case(case, folder / case.name)
    flat = folder / "2d"
    voxels = tifffile.imread(flat / "image.tif")
    tifffile.imwrite(flat / "strip.tif", voxels, compression="zlib", rowsperstrip=side)
    for name, values, chunk in (("chunk", voxels, side), ("float64", voxels.astype(np.float64), 1024)):
        array = zarr.create_array(
            flat / f"{name}.zarr", shape=values.shape, chunks=(chunk, chunk), dtype=values.dtype
        )
        array[:] = values
    make_instances(folder)


def make_instances(folder: Path) -> None:
    """Write a copy of the package of 2D whose outputs are segmented by connected components."""
    import shutil

    from im2im_zoo.instances.methods import components

    place = folder / "instances"
    shutil.copytree(folder / "2d", place)
    code = Path(components.__file__)
    shutil.copy(code, place / "package" / code.name)
    import hashlib

    import yaml

    file = place / "package" / "rdf.yaml"
    rdf = yaml.safe_load(file.read_text())
    rdf.setdefault("config", {})["im2im_zoo"] = {
        "grouping": {
            "source": code.name, "sha256": hashlib.sha256(code.read_bytes()).hexdigest(), "callable": "group",
            "kwargs": {"threshold": 0.5}, "output": "out",
        }
    }  # fmt: skip
    file.write_text(yaml.safe_dump(rdf, sort_keys=False))


def run(folder: Path, row: Row, budget: str) -> dict[str, object]:
    """Predict; return the exit code, the projected and the real peak in bytes, and the seconds."""
    place = folder / row.case
    output = place / "result.ome.zarr"
    command = [
        sys.executable, "-m", "im2im_zoo", "predict", "package", row.image, output.name, "--memory", budget, "--json", "--halo",
        "declared", "--overwrite", *row.options,
    ]  # fmt: skip
    start = time.monotonic()
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        peaks = [0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks))
        watcher.start()
        printed, said = process.communicate()
        watcher.join()
    found = {"code": process.returncode, "peak": peaks[0], "seconds": round(time.monotonic() - start, 1)}
    if process.returncode == 0:
        return found | {"projected": json.loads(printed)["plan"]["memory"]["total"]}
    return found | {"said": said.strip().splitlines()[-1:]}


def _watch(pid: int, peaks: list[int]) -> None:
    try:
        first = psutil.Process(pid)
        while first.is_running() and first.status() != psutil.STATUS_ZOMBIE:
            peaks[0] = max(peaks[0], sum(_resident(first)))
            time.sleep(0.005)
    except psutil.NoSuchProcess:
        return


def _resident(first: psutil.Process) -> Iterator[int]:
    for process in (first, *first.children(recursive=True)):
        try:
            yield process.memory_info().rss
        except psutil.NoSuchProcess:
            continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192, help="of the 2D image (default: %(default)s)")
    parser.add_argument("--row", action="append", help="part of a row's name (default: all)")
    parser.add_argument("--budget", action="append", help=f"for --memory (default: {', '.join(BUDGETS)})")
    asked = parser.parse_args()
    print(
        "| prediction | --memory | planned, MB | peak, MB | seconds |\n|---|---:|---:|---:|---:|", flush=True
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, asked.side)
        for row in ROWS:
            if asked.row and not any(word in row.name for word in asked.row):
                continue
            for budget in asked.budget or BUDGETS:
                found = run(folder, replace(row), budget)
                if found["code"] == 0:
                    cells = (_mb(found["projected"]), _mb(found["peak"]), found["seconds"])
                else:
                    cells = (f"refused: {found['said']}", _mb(found["peak"]), found["seconds"])
                print(f"| {row.name} | {budget} | " + " | ".join(map(str, cells)) + " |", flush=True)


def _mb(count: object) -> str:
    return f"{int(str(count)) / 1e6:.0f}"


if __name__ == "__main__":
    main()
