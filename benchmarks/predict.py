"""Whole predictions by im2im_zoo beside bioimageio.core and MONAI: `python benchmarks/predict.py`. Prints a table.

Each prediction runs in a process of its own (`systems`), one after the other, round after round, so that what else the
machine does falls on all alike. What is compared are medians of the ratios within a round. See README.md.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from cases import Case
from systems import Job

OURS, TILES, IDEAL = "im2im_zoo", "its tiles, calls alone", "ideal cover, calls alone"
# Memory of freed activations is kept for the next ones, instead of going back to the system and being zeroed anew.
_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}
_LIBRARIES = ("torch", "onnxruntime", "openvino", "numpy", "zarr", "bioimageio.core", "monai", "im2im_zoo")

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class System:
    """One row of the table: what runs, at which side of its tiles, with which allocator, into what kind of file.

    `tuned`: not as its users have it; it runs in the first round only.
    """

    name: str
    action: str
    ending: str = ""
    side: int = 0
    allocator: bool = False
    tuned: bool = False


def systems_of(case: Case, *, quick: bool) -> list[System]:
    """The rows: ours first, since the others use what it chose."""
    declared = [
        System(OURS, "im2im_zoo", ".ome.zarr"),
        System(TILES, "tiles_alone"),
        System(IDEAL, "ideal", ".npy"),
        System(f"bioimageio.core, {case.block}", "bioimageio.core", ".tif", case.block),
        System(f"MONAI, {case.window}", "MONAI", ".tif", case.window),
    ]
    if quick:
        return declared
    tuned = [
        System(f"bioimageio.core, {case.block}, allocator", "bioimageio.core", ".tif", case.block, True),
        System(f"bioimageio.core, {case.tuned_block}", "bioimageio.core", ".tif", case.tuned_block),
        System(f"bioimageio.core, {case.tuned_block}, allocator", "bioimageio.core", ".tif", case.tuned_block, True),
        System(f"MONAI, {case.window}, allocator", "MONAI", ".tif", case.window, True),
    ]  # fmt: skip
    for side in case.tuned_windows:
        tuned.append(System(f"MONAI, {side}", "MONAI", ".tif", side))
        tuned.append(System(f"MONAI, {side}, allocator", "MONAI", ".tif", side, True))
    return declared + [replace(s, tuned=True) for s in tuned]


def run_job(job: Job, *, allocator: bool = False) -> Figures:
    """The figures of one process, with its peak of memory; or with `failed`, the end of what it said."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(job.root.parent / "cache")}
    environment.update(_ALLOCATOR if allocator else {})
    script = Path(__file__).with_name("systems.py")
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(asdict(job))],
            stdout=said,
            stderr=complained,
            env=environment,
        )
        peak = _watch(process)
        said.seek(0)
        complained.seek(0)
        if process.returncode != 0:
            return {"failed": f"exit {process.returncode}: {complained.read()[-500:].strip()}"}
        figures: Figures = json.loads(said.read().splitlines()[-1])
    return {**figures, "peak_bytes": peak}


def _watch(process: "subprocess.Popen[bytes]") -> int:
    """Wait for a process; the most resident memory that it was seen to have had."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident_peak(process.pid))
        time.sleep(0.05)
    return peak


def _resident_peak(process: int) -> int:
    """The system's own mark of the peak where there is one (a process may set it back), else what is resident now."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return int(psutil.Process(process).memory_info().rss)
    except (OSError, psutil.Error):  # it has just ended
        return 0


def run_case(
    case: str, folder: Path, *, quick: bool, rounds: int, threads: int | None, tuned_rows: bool
) -> Figures:
    """All systems on one case, `rounds` times in turn."""
    root = folder / case
    base = Job("make", case, quick, str(root), threads=threads)
    rows = [s for s in systems_of(base.of, quick=quick) if tuned_rows or not s.tuned]
    _must(run_job(base))
    _must(run_job(replace(base, action="exact", output=str(root / "exact.npy"))))
    # The first prediction with a package also measures what then is in the user's cache.
    first = _must(_run_system(rows[0], base, compared=False))
    _say(f"{case} first use of the package: {_short(first)}")
    found: dict[str, list[Figures]] = {s.name: [] for s in rows}
    tuned: Figures = {}
    for number in range(rounds):
        for at, system in enumerate(rows):
            if system.tuned and number:
                continue
            if system.name == IDEAL:
                tuned = tuned or fastest_cover(base)
                rows[at] = system = replace(system, side=tuned["side"], allocator=tuned["allocator"])
            figures = _run_system(system, base, compared=number == 0)
            found[system.name].append(figures)
            _say(f"{case} round {number + 1}: {system.name}: {_short(figures)}")
            if system.name == OURS:
                _must(figures)
    return {**summary(base.of, found, tuned), "first_use_s": first["wall_s"]}


def _run_system(system: System, base: Job, *, compared: bool) -> Figures:
    output = base.root / f"output{system.ending}"
    job = replace(base, action=system.action, side=system.side, output=str(output))
    figures = run_job(job, allocator=system.allocator)
    if compared and system.ending and "failed" not in figures:
        figures.update(_must(run_job(replace(base, action="compare", compared=str(output)))) | figures)
    return figures


def fastest_cover(base: Job) -> Figures:
    """The side of tiles, and the allocator, at which the network takes the least time a voxel."""
    tried = []
    for side in base.of.covers:
        for allocator in (False, True):
            figures = run_job(replace(base, action="tune", side=side), allocator=allocator)
            if "failed" not in figures:
                tried.append({"side": side, "allocator": allocator, "s_per_voxel": figures["s_per_voxel"]})
    best: Figures = min(tried, key=lambda t: float(t["s_per_voxel"]))
    return {**best, "tried": tried}


def summary(case: Case, found: Mapping[str, Sequence[Figures]], tuned: Figures) -> Figures:
    """Medians of each system, and of the ratios to ours within each round that it ran in."""
    ours, ideal, alone = found[OURS], found[IDEAL], found[TILES]
    rows = {}
    for name, rounds in found.items():
        rows[name] = {"rounds": list(rounds)}
        if any("failed" in r for r in rounds):
            continue
        medians = {k: _median([r[k] for r in rounds]) for k in ("wall_s", "cpu_s", "peak_bytes")}
        ratios = {
            f"{k}_over_ours": _median([r[f"{k}_s"] / o[f"{k}_s"] for r, o in zip(rounds, ours, strict=False)])
            for k in ("wall", "cpu")
        }
        rows[name] |= medians | ratios
    return {
        **asdict(case),
        "systems": rows,
        "ideal": tuned,
        "chosen": ours[-1]["chosen"],
        "ours_over_ideal": _median([o["wall_s"] / i["wall_s"] for o, i in zip(ours, ideal, strict=True)]),
        "running_over_ideal": _median([o["running_s"] / i["wall_s"] for o, i in zip(ours, ideal, strict=True)]),
        "overhead_percent": _median(
            [100 * (o["running_s"] / a["wall_s"] - 1) for o, a in zip(ours, alone, strict=True)]
        ),
    }  # fmt: skip


def table(case: Figures) -> str:
    """A case as Markdown."""
    shape, chosen = " x ".join(map(str, case["shape"])), case["chosen"]
    lines = [
        f"### {case['name']}: {shape}, BasicUNet of {case['features'][0]} features, halo {chosen['halo']}",
        "",
        "| system | wall s | CPU s | peak GiB | wall / im2im_zoo's | CPU / im2im_zoo's | largest error, std | inside |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in case["systems"].items():
        if "wall_s" not in row:
            lines.append(f"| {name} | failed | | | | | | |")
            continue
        errors = [row["rounds"][0].get(k) for k in ("error_std", "inside_error_std")]
        lines.append(
            f"| {name} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['peak_bytes'] / 2**30:.2f} | "
            f"{row['wall_over_ours']:.2f} | {row['cpu_over_ours']:.2f} | "
            + " | ".join("" if e is None else f"{e:.1e}" for e in errors)
            + " |"
        )
    ideal = case["ideal"]
    return "\n".join(
        [
            *lines,
            "",
            f"im2im_zoo ran {chosen['weights']} with {chosen['backend']} ({chosen['precision']}) in {chosen['tiles']} tiles "
            f"of {chosen['tile']}; the whole call took {case['ours_over_ideal']:.2f} times the ideal cover (tiles of "
            f"{ideal['side']}), running the plan {case['running_over_ideal']:.2f} times; reading, statistics, writing and "
            f"the loop added {case['overhead_percent']:.1f}% to the calls of the network. The first use of the package took "
            f"{case['first_use_s']:.1f} s.",
            "",
        ]
    )


def machine(threads: int | None) -> Figures:
    """What it ran on."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [n.partition(":")[2].strip() for n in cpu.read_text().splitlines() if n.startswith("model name")]
        if cpu.is_file()
        else []
    )
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if all(v is not None for v in values) else float("nan")


def _must(figures: Figures) -> Figures:
    if "failed" in figures:
        sys.exit(figures["failed"])
    return figures


def _short(figures: Figures) -> str:
    if "failed" in figures:
        return str(figures["failed"])
    return f"{figures['wall_s']:.1f} s, {figures['cpu_s']:.1f} CPU s, {figures['peak_bytes'] / 2**30:.2f} GiB"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=["2d", "3d", "all"], default="all")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--quick", action="store_true", help="small images, one round, no tuned rows: a minute or two"
    )
    parser.add_argument("--no-tuned", action="store_true", help="leave out the tuned rows")
    parser.add_argument("--rounds", type=int, help="default: 3, or 1 with --quick")
    parser.add_argument("--threads", type=int, help="of every network (default: as each library chooses)")
    parser.add_argument(
        "--folder", type=Path, help="for the images, some GB (default: the system's temporary one)"
    )
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    wanted = ["2d", "3d"] if arguments.case == "all" else [arguments.case]
    results: Figures = {"machine": machine(arguments.threads), "rounds": rounds, "cases": []}
    print(", ".join(f"{k} {v}" for k, v in results["machine"].items() if v is not None), flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for case in wanted:
            found = run_case(
                case,
                Path(folder),
                quick=arguments.quick,
                rounds=rounds,
                threads=arguments.threads,
                tuned_rows=not arguments.no_tuned,
            )
            results["cases"].append(found)
            print("\n" + table(found), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
