"""Table of programs with one row each: whether it runs a package, with which weights, what differs, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from im2im_zoo.packaging.consumers.programs import ConsumerVerdict, Verdict, consumer_rules

_BEST: tuple[Verdict, ...] = ("runs", "differs", "unknown", "cannot")


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """Verdict on a program for a package.

    Attributes:
        program, version: its name, and the version that was run or whose source was read.
        checked: how the verdict is known, see `ConsumerVerdict`.
        verdict: the best of its formats.
        weights: the formats with that verdict, of those that it reads.
        reason: why, and what hinders other formats that it reads.
        change: remedy, empty if there is none.
    """

    program: str
    version: str
    checked: str
    verdict: Verdict
    weights: tuple[str, ...]
    reason: str
    change: str


def program_rows(table: Sequence[ConsumerVerdict]) -> tuple[ProgramRow, ...]:
    """Return one row for each program of a table of `consumer_table`."""
    formats = {rule["consumer"]: tuple(rule["weights"]) for rule in consumer_rules()}
    return tuple(
        _row(list(group), formats.get(consumer, ()))
        for consumer, group in groupby(table, key=lambda v: v.consumer)
    )


def _row(verdicts: Sequence[ConsumerVerdict], formats: Sequence[str]) -> ProgramRow:
    # Formats that a program never reads say nothing of a package that has others.
    read = [v for v in verdicts if v.weights_format in formats] or list(verdicts)
    best = min(read, key=lambda v: _BEST.index(v.verdict))
    same = [v for v in read if (v.verdict, v.reason) == (best.verdict, best.reason)]
    others = [v for v in read if v not in same and v.verdict != "runs"]
    also = [v.weights_format for v in read if v not in same and v.verdict == best.verdict == "runs"]
    reasons = [best.reason, *(f"not with {v.weights_format}: {v.reason}" for v in others)]
    weights = (
        (*(v.weights_format for v in same), *also) if any(v.weights_format in formats for v in read) else ()
    )
    return ProgramRow(
        best.consumer, best.version, best.checked, best.verdict, weights, "; ".join(reasons), best.change
    )
