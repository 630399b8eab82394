"""Prepare a prediction: open the network, measure its halo and memory, and plan the tiles."""

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.core.atomic import cache_json
from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.finite_json import read_json_object
from im2im_zoo.core.hashing import sha256, sha256_of
from im2im_zoo.engines import Engine, library_version
from im2im_zoo.instances.grouping import AnyGrouping
from im2im_zoo.runtime.layout.fixed_sizes import restrict_to_shapes
from im2im_zoo.runtime.layout.image_layout import AxisMap, Layout
from im2im_zoo.runtime.measure.cache import cache_file
from im2im_zoo.runtime.measure.cost import measure_cost, measure_larger, resident_bytes
from im2im_zoo.runtime.measure.overlap import measure_overlap
from im2im_zoo.runtime.measure.select_engine import SelectedEngine, open_network
from im2im_zoo.runtime.plan.memory import Cost, check_least_budget, default_budget
from im2im_zoo.runtime.plan.plan import HaloSource, Plan
from im2im_zoo.runtime.plan.planning import plan_prediction
from im2im_zoo.runtime.settings import Resources, Settings

if TYPE_CHECKING:
    from im2im_zoo.package import Package

_LOG = logging.getLogger(__name__)
# Memory is extrapolated to tiles of at most this many times the voxels of the largest measured one.
_MAX_EXTRAPOLATION = 8


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, the open network that runs it, and the reason why this network was selected."""

    plan: Plan
    engine: Engine
    reason: str = ""


@dataclass
class Networks:
    """The open networks of a package and their measurements, shared by any number of images.

    Attributes:
        package: the model.
        allow_code: whether Python code of the package may run.
        given: an open network to use instead of opening one.
        cost: the known memory cost of the network.
        in_process: measure the engines in this process, see `open_network`.
        costs: measured costs by cache file.
    """

    package: "Package"
    allow_code: bool = False
    given: Engine | None = None
    cost: Cost | None = None
    in_process: bool = False
    _selected: dict[tuple[Any, ...], SelectedEngine] = field(default_factory=dict)
    _halos: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    costs: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def open(
        self, settings: Settings, resources: Resources, decisions: Mapping[str, Any] | None = None
    ) -> tuple[Engine, str]:
        """Open the network for some settings.

        Args:
            settings: weights, backend and precision.
            resources: device and threads.
            decisions: of an earlier plan, to reuse instead of measuring.

        Returns:
            The network, and the reason why it was selected.
        """
        if self.given is not None:
            return self.given, ""
        choice = decisions or {
            "weights": settings.weights,
            "backend": settings.backend,
            "device": resources.device,
        }
        key = (
            choice["weights"],
            choice["backend"],
            choice["device"],
            settings.precision,
            resources.threads,
            decisions is None,
        )
        if key not in self._selected:
            self._selected[key] = open_network(
                self.package,
                weights=choice["weights"],
                backend=choice["backend"],
                precision=settings.precision,
                device=choice["device"],
                threads=resources.threads,
                allow_code=self.allow_code,
                measure=decisions is None,
                in_process=self.in_process,
            )
        selected = self._selected[key]
        return selected.engine, selected.reason

    def halo(self, engine: Engine, layout: Layout, settings: Settings) -> dict[str, Any]:
        """Return the halo arguments of `plan_prediction`, measured once per network and layout."""
        key = (id(engine), repr(settings.halo), settings.blend, repr(layout.network_axes))
        if key not in self._halos:
            self._halos[key] = _overlap_options(self.package, engine, layout, settings, self.allow_code)
        return self._halos[key]


def prepare(
    networks: Networks,
    images: Mapping[str, xr.DataArray],
    layout: Layout,
    settings: Settings,
    resources: Resources,
    grouping: AnyGrouping | None = None,
    *,
    decisions: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Prepared:
    """Open the network of a package and plan its prediction on images.

    Args:
        networks: of the package.
        images: by input.
        layout: of these images (`map_axes`).
        settings: choices that change the result.
        resources: memory, processes and devices.
        grouping: instance segmentation to use instead of the package's.
        decisions: of an earlier plan (`decisions_of`), to reuse instead of measuring.
        warnings: to include in the plan.

    Raises:
        PackageError, PlanError: the prediction is impossible; raised before any voxel of the images is read.
    """
    set_up_memory()
    package = networks.package
    if decisions is None and networks.cost is None and resources.memory_bytes is not None:
        check_least_budget(resources.memory_bytes, resident_bytes())
    engine, reason = networks.open(settings, resources, decisions)
    layout = restrict_to_shapes(layout, getattr(engine, "input_shapes", None))
    budget = default_budget() if resources.memory_bytes is None else resources.memory_bytes
    cost = networks.cost
    if decisions is not None and cost is None:
        # A process varies in size between runs; the tiles were chosen for the cost measured in the first.
        cost = Cost(**decisions["cost"])
    options: dict[str, Any] = {
        "layout": layout,
        "memory": budget,
        "tile": settings.tile,
        "weights": engine.weights_format,
        "backend": engine.backend,
        "precision": engine.precision,
        "dtype": settings.dtype,
        "workers": resources.processes,
        "group": settings.group,
        "grouping": grouping,
        "warnings": tuple(warnings),
    }
    if decisions is not None:
        plan = plan_prediction(package, images, **options, **_decided(decisions), cost=cost)
        return Prepared(plan, engine, reason)

    def planned(cost: Cost) -> Plan:
        if settings.tile is None and settings.blend is not True:
            single = _plan_whole(package, images, options | {"cost": cost})
            if single is not None:
                return single
        found = networks.halo(engine, layout, settings)
        found = found | {"warnings": (*warnings, *found.get("warnings", ()))}
        return plan_prediction(package, images, **options | found | {"cost": cost})

    if cost is not None:
        return Prepared(planned(cost), engine, reason)
    measured = _CostMeasurement(package, engine, layout, budget, resources.threads, networks.costs)
    plan = planned(measured.cost())
    while plan.tile_voxels > _MAX_EXTRAPOLATION * plan.cost.voxels:
        plan = planned(measured.cost(plan.tile_voxels // _MAX_EXTRAPOLATION))
    return Prepared(plan, engine, reason)


def repeat_plan(
    package: "Package",
    images: Mapping[str, xr.DataArray],
    layout: Layout,
    settings: Settings,
    grouping: AnyGrouping | None,
    decisions: Mapping[str, Any],
    plain: Mapping[str, Any],
) -> Plan:
    """Return the plan of an earlier prediction with the same settings and images, without opening its network.

    Args:
        package, images, layout, settings, grouping: see `prepare`.
        decisions: of the earlier plan (`decisions_of`).
        plain: the earlier plan (`Plan.to_json`).
    """
    return plan_prediction(
        package,
        images,
        layout=restrict_to_shapes(layout, decisions.get("input_shapes")),
        memory=int(plain["budget"]),
        weights=decisions["weights"],
        backend=decisions["backend"],
        precision=plain["precision"],
        dtype=settings.dtype,
        workers=int(plain["workers"]),
        group=settings.group,
        grouping=grouping,
        cost=Cost(**decisions["cost"]),
        **_decided(decisions),
    )


def _decided(decisions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `plan_prediction` for the tiles of an earlier plan."""
    cuts = {k: decisions[k] for k in ("cuts", "halo_source", "halo_note", "blend")}
    return cuts | {"group_blocks": decisions.get("group_blocks")}


def decisions_of(prepared: Prepared) -> dict[str, Any]:
    """Return the decisions of `prepare` as JSON values, so that a later run makes the same."""
    plan = prepared.plan
    shapes = getattr(prepared.engine, "input_shapes", None)
    return {
        "weights": plan.weights_format,
        "backend": plan.backend,
        "device": prepared.engine.device,
        "cuts": plan.cuts,
        "halo_source": plan.halo_source,
        "halo_note": plan.halo_note,
        "blend": plan.blend,
        "group_blocks": None if plan.grouping is None else plan.grouping.decisions,
        "cost": asdict(plan.cost),
        "input_shapes": None if shapes is None else [list(shape) for shape in shapes],
    }


def _plan_whole(
    package: "Package", images: Mapping[str, xr.DataArray], options: Mapping[str, Any]
) -> Plan | None:
    """Return the plan with one tile per sample, or None if that exceeds the memory."""
    try:
        plan = plan_prediction(package, images, **options, whole=True)
    except PlanError:
        return None
    fits = plan.memory.total <= plan.budget
    return replace(plan, halo_source="none", halo_note="the image is one tile") if fits else None


@dataclass(frozen=True, slots=True)
class _CostMeasurement:
    """The memory cost of a network, measured once per package and machine and kept in the user's cache."""

    package: "Package"
    engine: Engine
    layout: Layout
    budget: int
    threads: int | None
    costs: dict[Path, dict[str, Any]]

    def cost(self, voxels: int = 0) -> Cost:
        """Return the cost, measured with tiles of at least `voxels` voxels."""
        known = self.costs.get(self._file) or read_json_object(self._file)
        if set(known) != {"kept", "call", "per_voxel", "voxels"}:
            _LOG.info("Measuring the memory of the network (once per package)")
            before = resident_bytes()
            found = measure_cost(self.engine, self.layout, budget=self.budget)
            # Memory that the first run of a network in a process sets up once.
            known = self._keep(found, max(0, found.process - before))
        kept = int(known["kept"])
        found = Cost(
            resident_bytes() + kept,
            int(known["call"]),
            float(known["per_voxel"]),
            voxels=int(known["voxels"]),
        )
        if voxels > found.voxels:
            found = measure_larger(self.engine, self.layout, found, voxels)
            self._keep(found, kept)
        return found

    def _keep(self, cost: Cost, kept: int) -> dict[str, Any]:
        content = {"kept": kept, "call": cost.call, "per_voxel": cost.per_voxel, "voxels": cost.voxels}
        cache_json(self._file, content)
        self.costs[self._file] = content
        return content

    @property
    def _file(self) -> Path:
        engine, layout = self.engine, self.layout
        entry = self.package.weights_entry(engine.weights_format)
        sizes = [(m.name, m.role, m.grid, m.size if m.role == "whole" else None) for m in layout.network_axes]
        parts = [
            str(entry.sha256 or sha256(self.package.path(entry))),
            (
                engine.weights_format,
                library_version(engine.backend),
                engine.precision,
                engine.device,
                self.threads,
            ),
            (platform.machine(), platform.processor(), os.cpu_count()),
            (sizes, [(i.id, i.axes, i.given, i.sizes.get("channel")) for i in layout.inputs]),
        ]
        return cache_file("cost", sha256_of(repr(parts)))


def _overlap_options(
    package: "Package", engine: Engine, layout: Layout, settings: Settings, allow_code: bool
) -> dict[str, Any]:
    """Return the arguments of `plan_prediction` for halo and blending."""
    if settings.blend:
        return {"blend": True, "halo_note": "as requested"}
    if settings.halo not in ("auto", "exact"):
        return {"halo": settings.halo}
    overlap = measure_overlap(
        package,
        engine,
        [m.network for m in layout.network_axes if m.network is not None],
        uncut=[m.name for m in layout.network_axes if _fits_one_tile(m)],
        exact=settings.halo == "exact",
        allow_code=allow_code,
    )
    halo = {m.name: overlap.halo.get(m.name, 0) for m in layout.network_axes}
    short = [m.name for m in layout.network_axes if _leaves_nothing(m, halo[m.name])]
    if settings.blend is None and (overlap.is_global or short):
        note = overlap.note
        if short and not overlap.is_global:
            note = f"the network's fixed tile size along {', '.join(short)} is too small for the halo it needs ({note})"
        return {"blend": True, "halo_note": note}
    warnings = [f"{overlap.note}: tiles differ from the whole image"] if overlap.is_global else []
    source: HaloSource = "none"
    if overlap.source in ("declared", "test tensor", "receptive field"):
        source = overlap.source  # type: ignore[assignment]
    return {"halo": halo, "halo_source": source, "halo_note": overlap.note, "warnings": warnings}


def _fits_one_tile(axis: AxisMap) -> bool:
    """Return whether the image fits the only size that the network takes."""
    return axis.grid is not None and axis.grid.fixed and axis.size + 2 * axis.crop <= axis.grid.minimum


def _leaves_nothing(axis: AxisMap, halo: int) -> bool:
    """Return whether a halo leaves nothing of the only tile size that the network takes, in a larger image."""
    grid = axis.grid
    return (
        grid is not None
        and grid.fixed
        and not _fits_one_tile(axis)
        and 2 * max(halo, axis.crop) + 1 > grid.minimum
    )
