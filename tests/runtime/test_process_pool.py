"""What goes wrong in another process, or while others read, is told; nothing waits for ever, and nothing is read by halves."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from blocks_for_tests import sample_of

from im2im_zoo.core.errors import ImageError
from im2im_zoo.instances.methods import components
from im2im_zoo.runtime.execute.executors.process_pool import LocalProcesses


@dataclass(frozen=True)
class FailsAt:
    """A job, one stage of which fails."""

    stage: str

    def __call__(self) -> "FailsAt":
        return self

    def at(self, stage: str) -> None:
        if stage == self.stage:
            raise ImageError(f"the {stage} failed")

    def read(self, unit: int) -> int:
        self.at("reading")
        return unit

    def compute(self, unit: int, data: int) -> int:
        self.at("computing")
        return data

    def write(self, unit: int, data: int) -> int:
        self.at("writing")
        return data


@pytest.mark.parametrize("stage", ["reading", "computing", "writing"])
def test_what_a_worker_raises_is_raised_though_it_would_get_no_more_units(stage: str) -> None:
    pool = LocalProcesses(1, threads=1).start(FailsAt(stage))
    with pytest.raises(ImageError, match=f"the {stage} failed"), pool as session:
        session.run([0], lambda unit, report: None)


def test_a_table_that_is_replaced_meanwhile_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    sample = sample_of(np.zeros((1, 8, 8), np.float32), (8, 8), tmp_path, components)
    stop = threading.Event()

    def replace() -> None:
        for length in np.resize([3, 5000, 0, 2000], 4000):
            sample.save("table", 0, np.full(length, length))
            if stop.is_set():
                break

    sample.save("table", 0, np.full(7, 7))
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        while writer.is_alive():
            table = sample.load("table", 0)
            np.testing.assert_array_equal(table, np.full(len(table), len(table)))
    finally:
        stop.set()
        writer.join()
