"""The result of a prediction: its outputs, counts, time and memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from im2im_zoo.runtime.execute.delivery import Delivered
from im2im_zoo.runtime.execute.tile_stages import Counts
from im2im_zoo.runtime.inputs import Request
from im2im_zoo.runtime.measure.cost import peak_bytes
from im2im_zoo.runtime.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """The outputs of a prediction, with counts, time and memory.

    Attributes:
        outputs: paths of the outputs; `output` is the first.
        plan: of the prediction.
        seconds: time to run the plan: reading, statistics, network and writing, without opening the network.
        voxels: number written in this run, without channels.
        tiles: number of tiles that this run computed.
        resumed: number of tiles that an earlier run had finished.
        not_finite: number of output values that are NaN or infinite; above 0, the network failed there.
        peak_bytes: peak resident memory of this process while the plan ran.
        input_bytes, output_bytes: uncompressed sizes of the images.
        reason: why the engine was selected.
        labels: path of the label image of an instance segmentation: inside the output, or the output itself.
        objects: number of objects in the label image.
        warnings: about the result, in addition to those of the plan.
        already_complete: whether an earlier run of the same command had completed the outputs, so that this one computed
            nothing; `seconds`, `voxels` and `not_finite` are 0 then.
    """

    outputs: tuple[Path, ...]
    plan: Plan
    seconds: float
    voxels: int
    tiles: int
    resumed: int
    not_finite: int
    peak_bytes: int
    input_bytes: int
    output_bytes: int
    reason: str = ""
    labels: Path | None = None
    objects: int | None = None
    warnings: tuple[str, ...] = ()
    already_complete: bool = False

    @property
    def output(self) -> Path:
        """The first output."""
        return self.outputs[0]

    @property
    def voxels_per_second(self) -> float:
        """Output voxels per second."""
        return self.voxels / max(self.seconds, 1e-9)

    @classmethod
    def of(
        cls,
        plan: Plan,
        counts: Counts,
        paths: Sequence[Path],
        seconds: float,
        resumed: int,
        request: Request,
        delivered: Delivered,
        reason: str,
    ) -> Self:
        """Return the result of a plan that has run; `counts` includes the `resumed` tiles."""
        return cls(
            tuple(paths),
            plan,
            seconds,
            counts.voxels,
            counts.tiles - resumed,
            resumed,
            counts.not_finite,
            peak_bytes(),
            sum(i.size * i.dtype.itemsize for i in request.images.values()),
            plan.output_bytes,
            reason,
            delivered.labels,
            delivered.objects,
            delivered.warnings,
        )
