"""The open model: plan and run predictions, to files or in memory.

Modules in the order of a prediction: `inputs` -> `layout` (axes) -> `prepare` (`measure`, `plan`) -> `execute` (stages).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PlanError
from im2im_zoo.engines import Engine
from im2im_zoo.images import memory_image
from im2im_zoo.instances.blockwise.sample import Code
from im2im_zoo.instances.grouping import INSTANCES
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.execute.delivery import choose_delivery
from im2im_zoo.runtime.execute.executors import executor_for
from im2im_zoo.runtime.execute.in_memory import prepare_whole, run_in_memory
from im2im_zoo.runtime.execute.outputs import check_writable, output_paths
from im2im_zoo.runtime.execute.prediction_result import PredictionResult
from im2im_zoo.runtime.execute.prediction_run import PredictionRun
from im2im_zoo.runtime.execute.tile_stages import Progress
from im2im_zoo.runtime.execute.work_folder import work_folder
from im2im_zoo.runtime.file_prediction import FilePrediction
from im2im_zoo.runtime.inputs import Image, Request
from im2im_zoo.runtime.layout.mapping import images_by_input, map_axes
from im2im_zoo.runtime.plan.memory import Cost
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.prepare import Networks, Prepared, prepare
from im2im_zoo.runtime.segmentation import check_segmentation, segmentation_of
from im2im_zoo.runtime.settings import Resources, Settings

Images = xr.DataArray | Mapping[str, xr.DataArray]


@dataclass
class Model:
    """An open model, whose network is opened and measured once and then predicts any number of images.

    Open one with `im2im_zoo.open_model`. `close` it, or use it in a `with` block, to remove the folder of a zipped package.

    Attributes:
        package: the model's package.
        allow_code: whether Python code of the package may run (`pytorch_state_dict`, `custom` operations, third-party
            instance methods).
        engine: an open network to use instead of selecting one.
        cost: its known memory cost.

    Example:
        >>> import im2im_zoo as zoo
        >>> with zoo.open_model("nuclei_2d") as model:
        ...     print(model.package.name)
        Nuclei in 2D fluorescence
    """

    package: Package
    allow_code: bool = False
    engine: Engine | None = None
    cost: Cost | None = None
    networks: Networks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.networks = Networks(self.package, self.allow_code, self.engine, self.cost)

    def plan(
        self,
        image: Image,
        *,
        inputs: Mapping[str, Image] | None = None,
        axes: str | None = None,
        channels: Sequence[int | str] | None = None,
        join: Sequence[Image] = (),
        settings: Settings | None = None,
        resources: Resources | None = None,
        strict: bool = False,
    ) -> Plan:
        """Return the plan that `predict` follows, without reading voxels or writing files.

        Args:
            image, inputs, axes, channels, join, settings, resources, strict: see `predict`.

        Raises:
            PackageError, ImageError, AxesError, PlanError: the prediction is impossible.

        Example:
            >>> import numpy as np, im2im_zoo as zoo
            >>> model = zoo.open_model("nuclei_2d")
            >>> plan = model.plan(zoo.memory_image(np.zeros((512, 512), "float32"), axes="yx"))
            >>> len(plan) >= 1
            True
        """
        settings, resources = settings or Settings(), resources or Resources()
        request = Request.open(self.package, image, inputs, axes, channels, join, settings, strict=strict)
        return self._prepare(request, settings, resources).plan

    def predict(
        self,
        image: Image,
        output: str | Path,
        *,
        inputs: Mapping[str, Image] | None = None,
        outputs: Mapping[str, str | Path] | None = None,
        axes: str | None = None,
        channels: Sequence[int | str] | None = None,
        join: Sequence[Image] = (),
        settings: Settings | None = None,
        resources: Resources | None = None,
        overwrite: bool = False,
        restart: bool = False,
        strict: bool = False,
        progress: Progress | None = None,
        planned: Callable[[Plan, int], None] | None = None,
        completed: Callable[[PredictionResult], None] | None = None,
    ) -> PredictionResult:
        """Predict an image of any size and write the result.

        Resumable: partial results are kept in `OUTPUT.incomplete`. After a crash, a full disk or an interrupt, the same call
        resumes, and the result is bit-identical to that of an uninterrupted run. If the outputs are complete and of the same
        call, nothing is computed, and the result is `already_complete`.

        Args:
            image: of the main input: a lazy image, or the path of one.
            output: path of the image to write; its suffix selects the format.
            inputs: images of further inputs, by id.
            outputs: paths of further outputs, by id (default: next to `output`, with the id in the name).
            axes, channels: of the main image's file, see `open_image`.
            join: images of the same field of view, whose channels are appended; `channels` selects among all of them.
            settings: choices that change the result.
            resources: memory, processes and devices.
            overwrite: replace an existing output instead of raising an error, also one of the same call.
            restart: remove the partial results of an earlier run instead of resuming it.
            strict: refuse a zarr of which chunks are missing, instead of a warning.
            progress: called with the stage, the finished voxels and their total number.
            planned: called before the first tile with the plan and the number of tiles that an earlier run finished.
            completed: called with the result once the outputs are at their paths, for what is made of them. After a kill in it
                the same call predicts nothing and calls it again.

        Raises:
            PackageError, ImageError, AxesError, PlanError, ProcessingError: the prediction fails; `output` is not created.

        Example:
            >>> import numpy as np, im2im_zoo as zoo
            >>> model = zoo.open_model("nuclei_2d")
            >>> image = zoo.memory_image(np.zeros((256, 256), "float32"), axes="yx")
            >>> model.predict(image, "nuclei.ome.zarr").output.name
            'nuclei.ome.zarr'
        """
        settings, resources = settings or Settings(), resources or Resources()
        check_writable([Path(output), *(Path(path) for path in (outputs or {}).values())])
        check_segmentation(self.package, settings)
        request = Request.open(self.package, image, inputs, axes, channels, join, settings, strict=strict)
        layout = map_axes(self.package, request.images)
        grouping = segmentation_of(self.package, settings, layout, request.images)
        paths = output_paths(layout, Path(output), {k: Path(v) for k, v in (outputs or {}).items()})
        work = work_folder(paths[0])
        delivery = choose_delivery(
            self.package,
            layout,
            paths,
            work,
            settings,
            grouping,
            overwrite=overwrite,
            allow_code=self.allow_code,
        )
        tiles = PredictionRun(
            self.package,
            request.images,
            delivery.sources,
            settings,
            delivery.folder,
            executor_for(resources),
            resources.threads,
            delivery.replaces,
            self.allow_code,
        )

        def prepare_tiles(decisions: Mapping[str, Any] | None) -> Prepared:
            return self._prepare(request, settings, resources, decisions)

        prediction = FilePrediction(
            request, layout, paths, grouping, delivery, tiles, prepare_tiles, overwrite, restart
        )
        return prediction.run(progress, planned, completed)

    def predict_arrays(
        self,
        images: Images,
        *,
        settings: Settings | None = None,
        resources: Resources | None = None,
        whole: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, xr.DataArray]:
        """Predict images and return all outputs in memory.

        Args:
            images: of the main input, or all by input.
            settings, resources: see `predict`; the images are not rescaled.
            whole: run each sample as one tile, as a reference for tiled results.
            progress: called with the stage, the finished voxels and their total number.

        Returns:
            The images by output id; instance labels are added as `instances`. An output whose size depends on the data has
            the axes of its tensor.

        Raises:
            PackageError, ImageError, AxesError, PlanError, ProcessingError: the prediction fails.
        """
        settings, resources = settings or Settings(), resources or Resources()
        request = Request({}, images_by_input(self.package, images))
        check_segmentation(self.package, settings)
        layout = map_axes(self.package, request.images)
        grouping = segmentation_of(self.package, settings, layout, request.images)
        code = None if grouping is None else Code(grouping, self.package.root, self.allow_code)
        if code is not None:
            code.load()
        if whole:
            prepared = prepare_whole(self.networks, request.images, settings, resources, grouping)
        else:
            prepared = self._prepare(request, settings, resources)
        return run_in_memory(prepared, self.package, request.images, code, self.allow_code, progress)

    def predict_array(
        self,
        image: Images | NDArray[Any],
        *,
        axes: str | None = None,
        settings: Settings | None = None,
        resources: Resources | None = None,
        whole: bool = False,
        progress: Progress | None = None,
    ) -> xr.DataArray:
        """Predict an image in memory with a model of one output; return the labels if it segments instances.

        Args:
            image: an array with `axes`, a lazy image, or images by input.
            axes: letters of a numpy array's axes, such as `zyx` or `cyx`.
            settings: see `predict`; with `group=False` the maps are returned.
            resources, whole, progress: see `predict_arrays`.

        Raises:
            PlanError: the model has several outputs.
            AxesError: `axes` is missing for an array, or does not match its dimensions.

        Example:
            >>> import numpy as np, im2im_zoo as zoo
            >>> model = zoo.open_model("nuclei_2d")
            >>> result = model.predict_array(np.zeros((100, 120), "float32"), axes="yx")
            >>> result.sizes["y"], result.sizes["x"]
            (100, 120)
        """
        if isinstance(image, np.ndarray):
            image = memory_image(image, axes=axes)
        results = self.predict_arrays(
            image, settings=settings, resources=resources, whole=whole, progress=progress
        )
        chosen = settings or Settings()
        if INSTANCES in results and (self.package.grouping is not None or chosen.thresholding.is_given):
            return results[INSTANCES]
        if len(results) != 1:
            raise PlanError(
                f"{self.package.name} has {len(results)} outputs: {', '.join(results)}; use predict_arrays"
            )
        return next(iter(results.values()))

    def close(self) -> None:
        """Remove the temporary folder of a package that was opened from a zip."""
        self.package.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prepare(
        self,
        request: Request,
        settings: Settings,
        resources: Resources,
        decisions: Mapping[str, Any] | None = None,
    ) -> Prepared:
        images, layout = request.images, map_axes(self.package, request.images)
        return prepare(
            self.networks,
            images,
            layout,
            settings,
            resources,
            segmentation_of(self.package, settings, layout, images),
            decisions=decisions,
            warnings=request.warnings,
        )


def open_package_model(source: Package | str | Path, *, allow_code: bool = False) -> Model:
    """Open the model of a package.

    Args:
        source: an open package, or anything that `open_package` takes.
        allow_code: whether Python code of the package may run.
    """
    package = source if isinstance(source, Package) else open_package(source)
    return Model(package, allow_code)
