"""Records of finished units in a ledger: one JSON object per line."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from im2im_zoo.images.target import Stored

StageName = Literal["tiles", "finish", "pyramid", "instances", "blocks", "resampling", "delivery"]


@dataclass(frozen=True, slots=True)
class Record:
    """A finished unit. Records of the same unit are equal, whatever their counts.

    Attributes:
        stage: of the prediction.
        unit: number of a tile, of a block of a pyramid level or of a sample, of a sample, or of an output.
        output: of a block of a pyramid: number of the output, or `outputs.LABEL_IMAGE`.
        level: of a block of a pyramid.
        sample: of a block of instance segmentation.
        step: of a block of instance segmentation.
        not_finite: number of values of a tile that are NaN or infinite.
        objects: number of objects of a sample.
        files, bytes: of the files that hold the unit's voxels in the outputs.
    """

    stage: StageName
    unit: int
    output: int | None = None
    level: int | None = None
    sample: int | None = None
    step: str | None = None
    not_finite: int = field(default=0, compare=False)
    objects: int = field(default=0, compare=False)
    files: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)

    @property
    def is_of_labels(self) -> bool:
        """Whether the unit is one of the label image."""
        return self.stage in ("instances", "blocks") or (self.stage == "pyramid" and (self.output or 0) < 0)

    def to_line(self) -> str:
        """Return the record as one line of JSON, without default values."""
        stated = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps({f.name: stated[f.name] for f in fields(self) if stated[f.name] != f.default})

    @classmethod
    def from_line(cls, line: str) -> "Record":
        """Read a record from its line.

        Raises:
            ValueError: the line is not a record of this version.
        """
        stated = json.loads(line)
        known = {f.name for f in fields(cls)}
        if not isinstance(stated, dict) or not {"stage", "unit"} <= set(stated) <= known:
            raise ValueError(f"not a record: {line[:80]!r}")
        if stated["stage"] not in get_args(StageName):
            raise ValueError(f"unknown stage {stated['stage']!r}")
        return cls(**stated)


@dataclass(frozen=True, slots=True)
class Finished:
    """The finished units of a prediction, sorted by stage.

    Attributes:
        tiles, finish: numbers of the tiles of both stages.
        pyramids: blocks (level, block) by output.
        not_finite: number of values of all tiles that are NaN or infinite.
        objects: number of objects by finished sample.
        blocks: (sample, step, block) of instance segmentation in blocks.
        resampled: numbers of the outputs that are resampled back.
        images, labels: files that hold the voxels of all outputs, and those of the label image.
    """

    tiles: frozenset[int]
    finish: frozenset[int]
    pyramids: dict[int, list[tuple[int, int]]]
    not_finite: int
    objects: dict[int, int]
    blocks: frozenset[tuple[int, str, int]]
    resampled: frozenset[int]
    images: Stored
    labels: Stored

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Finished":
        """Sort records by stage."""
        by_stage: dict[str, list[Record]] = {name: [] for name in get_args(StageName)}
        for record in records:
            by_stage[record.stage].append(record)
        pyramids: dict[int, list[tuple[int, int]]] = {}
        for r in by_stage["pyramid"]:
            pyramids.setdefault(int(r.output or 0), []).append((int(r.level or 0), r.unit))
        return cls(
            frozenset(r.unit for r in by_stage["tiles"]),
            frozenset(r.unit for r in by_stage["finish"]),
            pyramids,
            sum(r.not_finite for r in (*by_stage["tiles"], *by_stage["finish"])),
            {r.unit: r.objects for r in by_stage["instances"]},
            frozenset((int(r.sample or 0), str(r.step), r.unit) for r in by_stage["blocks"]),
            frozenset(r.unit for r in by_stage["resampling"]),
            _sum(r for name in by_stage for r in by_stage[name] if not r.is_of_labels),
            _sum(r for name in by_stage for r in by_stage[name] if r.is_of_labels),
        )


def _sum(records: Iterable[Record]) -> Stored:
    stored = [(r.files, r.bytes) for r in records]
    return Stored(sum(files for files, _ in stored), sum(size for _, size in stored))
