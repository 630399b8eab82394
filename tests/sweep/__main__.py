"""Kill every command at each of its changes of the file system: `python tests/sweep [--variant NAME] [--loss LOSS] [--every N]`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from crash_sweep import LOSSES, Failure, sweep
from sweep_learning import Learning, exports, trainings
from sweep_variants import Assets, predictions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", action="append", help="one of the variants (default: all)")
    parser.add_argument("--loss", action="append", choices=LOSSES, help="what a kill loses (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="kill at every N-th change only")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    asked = parser.parse_args()
    failures: list[Failure] = []

    def told(failure: Failure) -> None:
        failures.append(failure)
        print(
            f"  FAILED {failure.loss} {failure.point} before [{failure.change}]: {failure.problem}",
            flush=True,
        )

    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        learning, assets = Learning(Path(folder)), Assets(Path(folder))
        for name, variant in {**predictions(assets), **exports(learning), **trainings(learning)}.items():
            if asked.variant and name not in asked.variant:
                continue
            start = time.perf_counter()
            report = sweep(
                variant, Path(folder) / f"sweep-{name}", losses=asked.loss or LOSSES,
                points=lambda changes: range(1, len(changes) + 1, asked.every), told=told,
            )  # fmt: skip
            print(
                f"{name}: {report.changes} changes, {report.points} kills, {len(report.failures)} failures, "
                f"{time.perf_counter() - start:.0f} s", flush=True,
            )  # fmt: skip
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
