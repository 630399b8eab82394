"""From a package, images and settings to a plan and an open network, with everything measured that the plan needs."""

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.engines import Engine, library_version
from im2im_zoo.runtime.layout.image_layout import AxisMap, Layout
from im2im_zoo.runtime.measure.cache import cache_file, read_cache, write_cache
from im2im_zoo.runtime.measure.cost import measure_cost, measure_larger, resident_bytes
from im2im_zoo.runtime.measure.overlap import measure_overlap
from im2im_zoo.runtime.measure.select_engine import Opened, open_network
from im2im_zoo.runtime.plan.memory import Cost, default_budget
from im2im_zoo.runtime.plan.plan import HaloSource, Plan
from im2im_zoo.runtime.plan.planning import plan_prediction
from im2im_zoo.runtime.settings import Resources, Settings

if TYPE_CHECKING:
    from im2im_zoo.package import Package

# A tile of so many times the voxels of the largest that was measured is not planned: a larger one is measured first.
_FAR = 8


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, the open network that runs it, and why that was chosen."""

    plan: Plan
    engine: Engine
    reason: str = ""


@dataclass
class Networks:
    """The open networks of a package, and what was measured of them: opened and measured once for any number of images.

    Attributes:
        package: the model.
        allow_code: whether Python of the package may run.
        given: an open network, to be used instead of opening one.
        cost: its measured cost, if it is known.
    """

    package: "Package"
    allow_code: bool = False
    given: Engine | None = None
    cost: Cost | None = None
    _opened: dict[tuple[Any, ...], Opened] = field(default_factory=dict)
    _halos: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    costs: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def open(
        self, settings: Settings, resources: Resources, decisions: Mapping[str, Any] | None = None
    ) -> tuple[Engine, str]:
        """Return the network for some settings, and why it was chosen.

        Args:
            decisions: of an earlier plan, which are taken again.
        """
        if self.given is not None:
            return self.given, ""
        taken = decisions or {
            "weights": settings.weights,
            "backend": settings.backend,
            "device": resources.device,
        }
        key = (
            taken["weights"],
            taken["backend"],
            taken["device"],
            settings.precision,
            resources.threads,
            decisions is None,
        )
        if key not in self._opened:
            self._opened[key] = open_network(
                self.package,
                weights=taken["weights"],
                backend=taken["backend"],
                precision=settings.precision,
                device=taken["device"],
                threads=resources.threads,
                allow_code=self.allow_code,
                measure=decisions is None,
            )
        opened = self._opened[key]
        return opened.engine, opened.reason

    def halo(self, engine: Engine, layout: Layout, settings: Settings) -> dict[str, Any]:
        """Return the arguments of `plan_prediction` for the halo, measured once for a network and a layout."""
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
    *,
    decisions: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Prepared:
    """Open the network of a package and plan its prediction on images.

    Args:
        networks: of the package.
        images: by input.
        layout: of these images (`map_axes`): images that do not fit cost nothing.
        decisions: of an earlier plan (`decisions_of`), which are taken again instead of measuring anything.
        warnings: to be kept in the plan.

    Raises:
        PackageError, PlanError: whatever is impossible, before any voxel of the images is read.
    """
    set_up_memory()
    package = networks.package
    engine, reason = networks.open(settings, resources, decisions)
    budget = default_budget() if resources.memory_bytes is None else resources.memory_bytes
    cost = networks.cost
    if decisions is not None and cost is None:
        # A process is a little larger another time; the tiles were chosen for what was measured then.
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
        "warnings": tuple(warnings),
    }
    if decisions is not None:
        again = {k: decisions[k] for k in ("cuts", "halo_source", "halo_note", "blend")}
        again["group_blocks"] = decisions.get("group_blocks")
        return Prepared(plan_prediction(package, images, **options, **again, cost=cost), engine, reason)

    def planned(cost: Cost) -> Plan:
        if settings.tile is None and settings.blend is not True:
            single = _at_once(package, images, options | {"cost": cost})
            if single is not None:
                return single
        found = networks.halo(engine, layout, settings)
        found = found | {"warnings": (*warnings, *found.get("warnings", ()))}
        return plan_prediction(package, images, **options | found | {"cost": cost})

    if cost is not None:
        return Prepared(planned(cost), engine, reason)
    measured = _Measured(package, engine, layout, budget, resources.threads, networks.costs)
    plan = planned(measured.cost())
    while plan.tile_voxels > _FAR * plan.cost.voxels:
        plan = planned(measured.cost(plan.tile_voxels // _FAR))
    return Prepared(plan, engine, reason)


def decisions_of(prepared: Prepared) -> dict[str, Any]:
    """Return the decisions of `prepare` as plain values, so that a later run takes the same."""
    plan = prepared.plan
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
    }


def _at_once(
    package: "Package", images: Mapping[str, xr.DataArray], options: Mapping[str, Any]
) -> Plan | None:
    """The plan if each sample fits the memory in one tile, where no halo matters."""
    try:
        plan = plan_prediction(package, images, **options, whole=True)
    except PlanError:
        return None
    fits = plan.memory.total <= plan.budget
    return replace(plan, halo_source="none", halo_note="no tile is cut") if fits else None


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a network takes, measured once for a package on a machine and kept in the user's cache."""

    package: "Package"
    engine: Engine
    layout: Layout
    budget: int
    threads: int | None
    costs: dict[Path, dict[str, Any]]

    def cost(self, voxels: int = 0) -> Cost:
        """What it takes, measured with tiles of that many voxels too."""
        known = self.costs.get(self._file) or read_cache(self._file)
        if known is None or set(known) != {"kept", "call", "per_voxel", "voxels"}:
            before = resident_bytes()
            found = measure_cost(self.engine, self.layout, budget=self.budget)
            # What the runs set up in the process once, which one that does not measure has still before it.
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
        write_cache(self._file, content)
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
        return cache_file("cost", hashlib.sha256(repr(parts).encode()).hexdigest())


def _overlap_options(
    package: "Package", engine: Engine, layout: Layout, settings: Settings, allow_code: bool
) -> dict[str, Any]:
    """The arguments of `plan_prediction` for the halo, and whether to blend."""
    if settings.blend:
        return {"blend": True, "halo_note": "as it was asked for"}
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
            note = f"its tiles of one size along {', '.join(short)} are too small for the halo that it needs ({note})"
        return {"blend": True, "halo_note": note}
    warnings = [f"{overlap.note}: the tiles are not exact"] if overlap.is_global else []
    source: HaloSource = "none"
    if overlap.source in ("declared", "test tensor", "receptive field"):
        source = overlap.source  # type: ignore[assignment]
    return {"halo": halo, "halo_source": source, "halo_note": overlap.note, "warnings": warnings}


def _fits_one_tile(axis: AxisMap) -> bool:
    """Whether the image is no larger than the one size that the network takes."""
    return axis.grid is not None and axis.grid.fixed and axis.size + 2 * axis.crop <= axis.grid.minimum


def _leaves_nothing(axis: AxisMap, halo: int) -> bool:
    """Whether a halo leaves no voxel of a tile of a network that takes one size only, in an image that is larger."""
    grid = axis.grid
    return (
        grid is not None
        and grid.fixed
        and not _fits_one_tile(axis)
        and 2 * max(halo, axis.crop) + 1 > grid.minimum
    )
