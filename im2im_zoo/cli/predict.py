"""`im2im-zoo predict`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from im2im_zoo.cli.console import print_json, progress, quantity, results, say

if TYPE_CHECKING:
    import xarray as xr

    from im2im_zoo.package import Package
    from im2im_zoo.runtime import Plan, PredictionResult
    from im2im_zoo.runtime.planning import Halo

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}


def parse_memory(text: str) -> int:
    """Bytes of a size such as 4GB, 500 MB, 2GiB or 1000000."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not found:
        raise typer.BadParameter(
            f"{text!r} is no size; write for example 4GB or 500MB", param_hint="--memory"
        )
    return int(float(found[1]) * (_UNITS | _BINARY_UNITS)[found[2] or ""])


def parse_halo(text: str) -> "Halo":
    """The halo as a number of voxels, "declared" or "exact"."""
    if text in ("declared", "exact"):
        return "exact" if text == "exact" else "declared"
    if text.isdigit():
        return int(text)
    raise typer.BadParameter(f"{text!r}; say declared, exact, or a number of voxels", param_hint="--halo")


def parse_tile(text: str | None, axes: Sequence[str]) -> dict[str, int] | None:
    """The tile by space axis: of one number for all of `axes`, or of `y=256,x=512`."""
    if text is None:
        return None
    parts = (
        [part.partition("=") for part in text.split(",")] if "=" in text else [(a, "=", text) for a in axes]
    )
    if not all(size.strip().isdigit() and axis.strip() in axes for axis, _, size in parts):
        wanted = ",".join(f"{axis}=256" for axis in axes)
        raise typer.BadParameter(f"{text!r}; say a number of voxels, or {wanted}", param_hint="--tile")
    return {axis.strip(): int(size) for axis, _, size in parts}


def parse_channels(text: str | None) -> list[int | str] | None:
    """Channels by index or name, separated by commas."""
    if text is None:
        return None
    return [int(c) if c.strip().isdigit() else c.strip() for c in text.split(",")]


def run(
    package: str,
    image: str,
    output: Path,
    *,
    axes: str | None,
    channels: str | None,
    memory: str | None,
    halo: str,
    tile: str | None,
    weights: str | None,
    device: str,
    plan_only: bool,
    overwrite: bool,
    allow_code: bool,
    as_json: bool,
) -> None:
    """Plan, and unless only the plan is wanted, predict."""
    budget = None if memory is None else parse_memory(memory)
    overlap, chosen = parse_halo(halo), parse_channels(channels)
    from im2im_zoo.images import open_image
    from im2im_zoo.package import open_package

    with open_package(package) as opened:
        cut = parse_tile(tile, [str(axis.id) for axis in opened.inputs[0].axes if axis.type == "space"])
        lazy = open_image(image, axes=axes, channels=chosen)
        if plan_only:
            plan = plan_with_engine(opened, lazy, budget, overlap, cut, weights, device, allow_code)
            show_plan(plan, as_json=as_json)
            return
        done = predict_with_progress(
            opened,
            lazy,
            output,
            memory=budget,
            halo=overlap,
            tile=cut,
            weights=weights,
            device=device,
            allow_code=allow_code,
            overwrite=overwrite,
        )
    if as_json:
        print_json(result_json(done))


def plan_with_engine(
    package: "Package",
    image: "xr.DataArray",
    memory: int | None,
    halo: "Halo",
    tile: dict[str, int] | None,
    weights: str | None,
    device: str,
    allow_code: bool,
) -> "Plan":
    """The plan of a prediction, with the memory of the network measured."""
    from im2im_zoo.runtime import measure_cost, open_network, plan_prediction
    from im2im_zoo.runtime.mapping import map_axes

    maps = map_axes(package, image)
    network = open_network(package, weights=weights, device=device, allow_code=allow_code)
    cost = measure_cost(network, maps, [str(axis.id) for axis in package.inputs[0].axes])
    return plan_prediction(
        package, image, memory=memory, halo=halo, tile=tile, weights=network.weights_format, cost=cost
    )


def predict_with_progress(
    package: "Package | Path", image: "xr.DataArray | Path", output: Path, **options: Any
) -> "PredictionResult":
    """Predict with a progress bar; options are those of `runtime.predict`."""
    from im2im_zoo.runtime import predict

    with progress("Predicting", "voxels", counted=False) as bar:
        done = predict(
            package, image, output, progress=lambda voxels, total: bar(voxels, total, ""), **options
        )
    for warning in done.plan.warnings:
        say(f"warning: {warning}")
    if done.not_finite:
        say(f"warning: {done.not_finite} values of {output} are NaN or infinite: the network failed there")
    say(
        f"Done: {output}: {done.tiles} tile(s) in {done.seconds:.1f} s, {quantity(done.voxels_per_second)}voxels/s, "
        f"peak memory {quantity(done.peak_bytes)}B"
    )
    return done


def result_json(done: "PredictionResult") -> dict[str, Any]:
    """The figures of a prediction as plain values."""
    return {
        "output": str(done.output),
        "seconds": done.seconds,
        "voxels": done.voxels,
        "voxels_per_second": done.voxels_per_second,
        "tiles": done.tiles,
        "not_finite": done.not_finite,
        "peak_bytes": done.peak_bytes,
        "output_bytes": done.output_bytes,
        "plan": done.plan.to_json(),
    }


def show_plan(plan: "Plan", as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        print_json(plan.to_json(tiles=True))
    else:
        results.print(str(plan), markup=False)
