"""One prediction into files: run it, resume it, or find that it is complete."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from im2im_zoo.core.atomic import remove_folder, remove_leftovers
from im2im_zoo.images import describe_missing_chunks, open_image
from im2im_zoo.images.atomic import remove_leftovers_of
from im2im_zoo.instances.grouping import AnyGrouping
from im2im_zoo.runtime.execute.completed import (
    EarlierRun,
    Result,
    count_objects,
    describe_difference,
    find_earlier_run,
    identity_hashes,
)
from im2im_zoo.runtime.execute.delivery import Delivered, Delivery
from im2im_zoo.runtime.execute.outputs import check_free, main_image
from im2im_zoo.runtime.execute.prediction_result import PredictionResult
from im2im_zoo.runtime.execute.prediction_run import PredictionRun
from im2im_zoo.runtime.execute.run_lock import hold_output, lock_file
from im2im_zoo.runtime.execute.tile_stages import Counts, Progress
from im2im_zoo.runtime.execute.work_folder import work_folder
from im2im_zoo.runtime.inputs import Request
from im2im_zoo.runtime.layout.image_layout import Layout
from im2im_zoo.runtime.measure.cost import restart_peak
from im2im_zoo.runtime.plan.plan import Plan
from im2im_zoo.runtime.prepare import Prepared, repeat_plan


@dataclass(frozen=True, slots=True)
class FilePrediction:
    """One call of `Model.predict`, with its images opened and its outputs known.

    Attributes:
        request, layout: the images, and how they are mapped to the model's tensors.
        paths: of the outputs.
        grouping: instance segmentation of the prediction, if any.
        delivery: brings the outputs to their paths.
        tiles: computes the tiles.
        prepare: opens the network and plans, given the decisions of an unfinished run.
        overwrite, restart: see `Model.predict`.
    """

    request: Request
    layout: Layout
    paths: Sequence[Path]
    grouping: AnyGrouping | None
    delivery: Delivery
    tiles: PredictionRun
    prepare: Callable[[Mapping[str, Any] | None], Prepared]
    overwrite: bool
    restart: bool

    def run(
        self,
        progress: Progress | None,
        planned: Callable[[Plan, int], None] | None,
        completed: Callable[[PredictionResult], None] | None = None,
    ) -> PredictionResult:
        """Run the prediction, resume it, or return the result of an earlier run that completed it; see `Model.predict`."""
        completed = completed or (lambda result: None)
        work = work_folder(self.paths[0])
        # A finished prediction may lie in a folder that is not writable.
        if not (work.exists() or lock_file(work).exists()) and (done := self._find_complete()) is not None:
            completed(done)
            return done
        with hold_output(work):
            for path in self.paths:
                remove_leftovers_of(path)
            remove_leftovers(work)
            done = self._run(progress, planned)
            completed(done)
            if not done.already_complete:
                remove_folder(work)
        return done

    def _run(
        self, progress: Progress | None, planned: Callable[[Plan, int], None] | None
    ) -> PredictionResult:
        """Run or resume the prediction while its output is locked."""
        delivery, tiles = self.delivery, self.tiles
        there = frozenset() if self.restart else delivery.appeared()
        appeared = len(there) == delivery.count
        if not appeared:
            if (done := self._find_complete()) is not None:
                return done
            images, others = (
                self.request.images.values(),
                [p for n, p in enumerate(self.paths) if n not in there],
            )
            check_free(others, images, overwrite=self.overwrite, describe=self._describe_existing)
        if not self.restart:
            delivery.check_work()
        with tiles.open(restart=self.restart) as ledger:
            prepared = self.prepare(None if ledger is None else ledger.decisions)
            restart_peak()
            start = time.perf_counter()
            if ledger is None:
                remove_folder(work_folder(self.paths[0]))
            if ledger is not None and (appeared or delivery.are_sources_complete):
                resumed = len(prepared.plan)
                counts = Counts(resumed, 0, tiles.finished().not_finite)
                if planned is not None:
                    planned(prepared.plan, resumed)
            else:
                counts, resumed = tiles.run_tiles(prepared, progress=progress, planned=planned)
            original = main_image(prepared.plan, self.request.originals)
            delivered = (
                delivery.delivered(tiles)
                if appeared
                else delivery.run(tiles, prepared.plan, original, progress)
            )
        seconds = time.perf_counter() - start
        return PredictionResult.of(
            prepared.plan, counts, self.paths, seconds, resumed, self.request, delivered, prepared.reason
        )

    def _find_complete(self) -> PredictionResult | None:
        """Return the result of an earlier run of the same command that completed all outputs, if there is one."""
        earlier = self._find_earlier_run()
        if earlier is None:
            return None
        tiles, images = self.tiles, self.request.images
        plan = repeat_plan(
            tiles.package,
            images,
            self.layout,
            tiles.settings,
            self.grouping,
            earlier.decisions,
            earlier.plan,
        )
        labels, objects = self.delivery.labels, None
        if labels is not None and plan.grouping is not None:
            objects = count_objects(open_image(labels), plan.grouping.space)
        # Chunks of zeros have no file, so that those which were lost cannot be told from them.
        warnings = tuple(
            f"{text}; if files of the output were lost, predict again with --overwrite"
            for result in self.delivery.results
            for text in describe_missing_chunks(open_image(result.path))
        )
        counts, delivered = Counts(len(plan), 0, 0), Delivered(labels, objects, warnings)
        done = PredictionResult.of(plan, counts, self.paths, 0.0, len(plan), self.request, delivered, "")
        return replace(done, already_complete=True)

    def _find_earlier_run(self) -> EarlierRun | None:
        """Return the run of the same command that completed all outputs, if there is one and it may be kept."""
        results = self.delivery.results
        if self.overwrite or not all(result.path.exists() for result in results):
            return None
        return find_earlier_run(results, self._hashes)

    def _describe_existing(self, path: Path) -> str:
        """Return why an existing output is not taken for that of this command."""
        result = next((r for r in self.delivery.results if r.path == path), Result(path, ""))
        return describe_difference(result, self._hashes)

    def _hashes(self) -> dict[str, str]:
        return identity_hashes(self.tiles.identity())
