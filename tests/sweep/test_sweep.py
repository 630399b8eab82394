"""A sample of the kills of `python tests/sweep`: at the changes where there is most to lose, the same command loses nothing."""

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from commands import in_a_process

# The changes before which to kill, as patterns.
FEW = {
    "zarr-0.5": [r"rename .*ledger\.json$", r"rename out.ome.zarr.incomplete \."],
    "overwrite-zarr": [r"^exchange", r"rename out.ome.zarr.incomplete/out.ome.zarr .*replaced"],
    "labels": [r"open .*out.ome.zarr/labels/\.zarr.json"],
    "objects-npy": [r"rename \.objects.csv"],
}
MORE = {
    name: [r"ledger\.json$", r"notes\.json$", r"done\.jsonl$", r"^exchange", r"rename .*(replaced|removed)"]
    for name in ("stretched-tiff", "overwrite-damaged", "labels-within")
}


def kill_at(arguments: list[str]) -> None:
    """Sweep variants at the first changes that match patterns; print the failures and the number of kills."""
    from crash_sweep import sweep
    from sweep_variants import Assets, predictions

    patterns, losses = json.loads(arguments[0]), arguments[1:]
    failures, kills = [], 0
    with tempfile.TemporaryDirectory() as folder:
        variants = predictions(Assets(Path(folder)))
        for name, chosen in patterns.items():

            def points(changes: Sequence[str], chosen: list[str] = chosen) -> list[int]:
                found = [next((n for n, c in enumerate(changes, 1) if re.search(p, c)), 0) for p in chosen]
                return sorted({n for n in found if n})

            report = sweep(variants[name], Path(folder) / f"sweep-{name}", losses=losses, points=points)
            failures, kills = failures + report.failures, kills + report.points
    sys.stdout.write(json.dumps({"kills": kills, "failures": [asdict(f) for f in failures]}))


def test_a_kill_at_a_critical_change_loses_nothing() -> None:
    done = in_a_process(kill_at, [json.dumps(FEW), "kill"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"kills": 6, "failures": []}


@pytest.mark.slow
def test_a_kill_or_a_power_cut_at_further_changes_loses_nothing() -> None:
    done = in_a_process(kill_at, [json.dumps(MORE), "kill", "empty"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["kills"] > 12
