"""Feed damaged packages, images and recipes to the commands: `python tests/fuzz [--runs N] [--jobs N] [--seed N] [--only NUMBER]`."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fuzzing import COMMANDS, Corpus, Run, fuzz, prepare_environment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes (default: one a processor)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all runs (default: %(default)s)")
    parser.add_argument("--only", type=int, help="the number of one run to repeat")
    parser.add_argument(
        "--command", action="append", choices=COMMANDS, help="one of the commands (default: all)"
    )
    asked = parser.parse_args()
    start = time.monotonic()

    def told(run: Run) -> None:
        print(
            f"FAILED {run.number} {' '.join(run.command)} [{'; '.join(run.damage)}]\n  {run.problem}",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        corpus = Corpus(folder / "corpus")
        prepare_environment(folder)
        workers = []
        for worker in range(1 if asked.only is not None else asked.jobs):
            numbers = [asked.only] if asked.only is not None else range(worker, asked.runs, asked.jobs)
            process = os.fork()
            if not process:
                failed = fuzz(
                    corpus, folder / f"worker-{worker}", list(numbers), seed=asked.seed,
                    commands=asked.command or COMMANDS, told=told,
                )  # fmt: skip
                os._exit(min(len(failed), 250))
            workers.append(process)
        failures = sum(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in workers)
    print(
        f"{asked.runs if asked.only is None else 1} runs, {failures} failures, {time.monotonic() - start:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
