"""Groupings that an RDF names, by their libraries: `stardist_postprocessing` and `cellpose_flow_dynamics`.

Packages that StarDist exports do not name the operation, but state its arguments in `config.stardist`.

Both libraries are extras (`pip install 'im2im_zoo[stardist]'`). The operations need the network's maps of a whole image and
may change its shape, so they are not steps of a pipeline: the output tensor is used as the maps (`maps_tensor`), and the
operation is the package's grouping, like one by a file (`instances.grouping`).
"""

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.instances.function import GroupFunction
from im2im_zoo.instances.library.calls import group_by_cellpose, group_by_stardist

if TYPE_CHECKING:
    from bioimageio.spec.model import v0_5

LIBRARIES: Mapping[str, str] = {"stardist_postprocessing": "stardist", "cellpose_flow_dynamics": "cellpose"}


@dataclass(frozen=True, slots=True)
class LibraryGrouping:
    """The instance segmentation of a package by a library.

    Attributes:
        operation: its id in the RDF.
        output: id of the output tensor, which is used as the maps.
        kwargs: of the operation.
        scale: voxels of the labels per voxel of the maps, by axis, where it is not 1 (StarDist's grid).
        named: whether the RDF names the operation, so that its output and test tensor are the labels.
    """

    operation: str
    output: str
    kwargs: Mapping[str, Any]
    scale: Mapping[str, int]
    named: bool = True

    @property
    def source(self) -> str:
        """Name of the library."""
        return LIBRARIES[self.operation]

    @property
    def callable(self) -> str:
        """Name of the operation."""
        return self.operation

    def to_json(self) -> dict[str, Any]:
        """Return the grouping as JSON values, with the installed version of the library or None."""
        try:
            version = importlib.metadata.version(self.source)
        except importlib.metadata.PackageNotFoundError:
            version = None
        return {
            "source": self.source,
            "version": version,
            "callable": self.operation,
            "kwargs": dict(self.kwargs),
            "output": self.output,
            "scale": dict(self.scale),
        }

    @property
    def copies(self) -> tuple[int, int]:
        """Peak memory of a call in copies of its maps and of its labels.

        Measured with foreground only: StarDist 0.9.2 with 32 rays 890 bytes per voxel, Cellpose 4.2.1 in 2D 510 bytes.
        """
        return (7, 6) if self.operation == "stardist_postprocessing" else (40, 10)

    @property
    def is_installed(self) -> bool:
        """Whether the library is installed."""
        return importlib.util.find_spec(self.source) is not None

    def method(self, root: Path) -> None:
        """Return None, as it is not a method of im2im_zoo."""

    def is_ours(self, root: Path) -> bool:
        """Return True: it runs without consent, as no code of the package is run."""
        return True

    def load(self, root: Path, *, allow_code: bool) -> GroupFunction:
        """Load the function.

        Args:
            root, allow_code: ignored; for the interface of `Grouping.load`.

        Raises:
            PackageError: the library is not installed; the message names the extra that installs it.
        """
        make = {"stardist_postprocessing": group_by_stardist, "cellpose_flow_dynamics": group_by_cellpose}[
            self.operation
        ]
        try:
            function = make(dict(self.kwargs))
        except ImportError as error:
            raise PackageError(
                f"the output {self.output} needs {self.operation} of the library {self.source}, which cannot be imported "
                f"({error}): pip install 'im2im_zoo[{self.source}]', or write only the maps with --no-grouping"
            ) from error
        space = [a for a in ("z", "y", "x") if a in self.scale]
        return GroupFunction(self.operation, function, {}, tuple(self.scale[a] for a in space) or None)


def library_grouping(tensors: "Sequence[v0_5.OutputTensorDescr]") -> LibraryGrouping | None:
    """Return the grouping by a library that an RDF's output names, or None.

    Raises:
        PackageError: it is not the last operation of the only output, or does not match the output's axes.
    """
    found = [(t, op) for t in tensors for op in t.postprocessing if op.id in LIBRARIES]
    if not found:
        return None
    tensor, operation = found[0]
    what = f"the {operation.id} of the output {tensor.id}"
    if len(tensors) > 1 or len(found) > 1:
        raise PackageError(
            f"{what}: a package with such an operation must have one output, with one such operation"
        )
    behind = [op.id for op in tensor.postprocessing[_place(tensor) + 1 :] if op.id != "ensure_dtype"]
    if behind:
        raise PackageError(f"{what} is followed by {', '.join(behind)}; only ensure_dtype may follow it")
    space = _space(what, tensor)
    kwargs: dict[str, Any] = {k: v for k, v in dict(operation.kwargs).items() if v is not None}
    if operation.id == "stardist_postprocessing":
        scale = dict(zip(space, map(int, kwargs["grid"]), strict=False))
        if len(kwargs["grid"]) != len(space):
            raise PackageError(
                f"{what}: its grid {kwargs['grid']} must have one value for each axis of {', '.join(space)}"
            )
        return LibraryGrouping(
            operation.id, str(tensor.id), kwargs, scale if set(scale.values()) != {1} else {}
        )
    if kwargs["do_3D"] != ("z" in space):
        raise PackageError(
            f"{what}: do_3D is {kwargs['do_3D']}, but the output has the axes {', '.join(space)}; set do_3D only for volumes"
        )
    return LibraryGrouping(operation.id, str(tensor.id), kwargs, {})


def stardist_grouping(config: object, tensors: "Sequence[v0_5.OutputTensorDescr]") -> LibraryGrouping | None:
    """Return the grouping of a package that StarDist exported, whose output is the maps; None for any other package.

    Args:
        config: of the RDF, as JSON values.
        tensors: the output tensors.
    """
    theirs = config.get("stardist") if isinstance(config, Mapping) else None
    network = theirs.get("config") if isinstance(theirs, Mapping) else None
    thresholds = theirs.get("thresholds") if isinstance(theirs, Mapping) else None
    if not isinstance(network, Mapping) or not isinstance(thresholds, Mapping) or len(tensors) != 1:
        return None
    space = tuple(a for a in ("z", "y", "x") if a in [str(axis.id) for axis in tensors[0].axes])
    channels = next((len(a.channel_names) for a in tensors[0].axes if a.type == "channel"), 0)
    grid, rays = network.get("grid"), network.get("n_rays")
    # Networks with classes have more channels, and the operation only supports rays in a golden spiral.
    spiral = network.get("rays_json") or {"name": "Rays_GoldenSpiral", "kwargs": {}}
    if not isinstance(rays, int) or channels != rays + 1 or spiral.get("name") != "Rays_GoldenSpiral":
        return None
    if not isinstance(grid, Sequence) or len(grid) != len(space) or not {"prob", "nms"} <= set(thresholds):
        return None
    kwargs: dict[str, Any] = {
        "prob_threshold": float(thresholds["prob"]),
        "nms_threshold": float(thresholds["nms"]),
        "n_rays": rays,
        "grid": tuple(map(int, grid)),
        "b": 2,  # StarDist's default
    }
    if len(space) == 3:
        kwargs["anisotropy"] = tuple(spiral["kwargs"].get("anisotropy") or (1.0, 1.0, 1.0))
    scale: dict[str, int] = {a: int(g) for a, g in zip(space, grid, strict=True)} if set(grid) != {1} else {}
    return LibraryGrouping("stardist_postprocessing", str(tensors[0].id), kwargs, scale, named=False)


def maps_tensor(tensor: "v0_5.OutputTensorDescr") -> "v0_5.OutputTensorDescr":
    """Return the output tensor of the network: the RDF's, or its maps if the RDF names a library's operation.

    The maps have the operation's channels, the labels' sizes divided by its grid, and the RDF's preceding operations.
    """
    from bioimageio.spec.model import v0_5

    place = _place(tensor)
    if place == len(tensor.postprocessing):
        return tensor
    grouping = library_grouping([tensor])
    if grouping is None:
        raise ValueError("the operation is not an instance segmentation")
    axes = [_maps_axis(a, grouping) for a in tensor.axes]
    data = v0_5.IntervalOrRatioDataDescr(type="float32")
    return tensor.model_copy(
        update={"axes": axes, "data": data, "postprocessing": list(tensor.postprocessing[:place])}
    )


def _place(tensor: "v0_5.OutputTensorDescr") -> int:
    """Return the index of the grouping among the operations, or their number if there is none."""
    return next(
        (i for i, op in enumerate(tensor.postprocessing) if op.id in LIBRARIES), len(tensor.postprocessing)
    )


def _space(what: str, tensor: "v0_5.OutputTensorDescr") -> tuple[str, ...]:
    """Return the space axes of the tensor in the order z, y, x.

    Raises:
        PackageError: the tensor has other axes than those of maps.
    """
    axes = [str(a.id) for a in tensor.axes]
    if "channel" not in axes or not {"y", "x"} <= set(axes) <= {"batch", "channel", "z", "y", "x"}:
        raise PackageError(f"{what} has the axes {', '.join(axes)}; it must have batch, channel, (z,) y, x")
    return tuple(a for a in ("z", "y", "x") if a in axes)


def _channels(grouping: LibraryGrouping, three: bool) -> list[str]:
    if grouping.operation == "stardist_postprocessing":
        return ["probability", *(f"distance{n}" for n in range(grouping.kwargs["n_rays"]))]
    return [*(["flow_z"] if three else []), "flow_y", "flow_x", "cell_probability"]


def _maps_axis(axis: Any, grouping: LibraryGrouping) -> Any:
    if axis.type == "channel":
        three = bool(grouping.kwargs.get("do_3D"))
        return axis.model_copy(update={"channel_names": _channels(grouping, three)})
    grid = grouping.scale.get(str(axis.id), 1)
    if grid == 1:
        return axis
    size, where = axis.size, f"the output {grouping.output}'s size along {axis.id}"
    if isinstance(size, int):
        if size % grid:
            raise PackageError(f"{where}, {size}, is not a multiple of StarDist's grid of {grid}")
        size = size // grid
    elif hasattr(size, "axis_id"):
        if size.offset % grid:
            raise PackageError(
                f"{where} has an offset, {size.offset}, that is not a multiple of StarDist's grid of {grid}"
            )
        size = size.model_copy(update={"offset": size.offset // grid})
    change = {"size": size, "scale": axis.scale * grid}
    if getattr(axis, "halo", 0):
        change["halo"] = -(-int(axis.halo) // grid)
    return axis.model_copy(update=change)
