"""Output of the commands: progress bars, messages, tables and JSON. Progress goes to stderr, results to stdout.

Rich writes to the terminal directly, so all text that is given to it passes through `plain_text` here.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from im2im_zoo.cli.messages import errors, is_quiet, print_line
from im2im_zoo.cli.plain_text import plain_text
from im2im_zoo.core.finite_json import to_json

if TYPE_CHECKING:
    from im2im_zoo.packaging.consumers.programs import ConsumerVerdict

__all__ = [
    "metrics_text",
    "print_consumers",
    "print_json",
    "print_line",
    "print_table",
    "print_text",
    "progress",
    "quantity",
    "time_left",
]

_REDRAWS_PER_SECOND = 4
# Where no bar can be drawn, as in the log of a cluster's job.
_SECONDS_BETWEEN_LINES = 60.0

# A file or a pipe has no width to wrap at.
results = Console(highlight=False, width=None if sys.stdout.isatty() else 200)


class _Rate(ProgressColumn):
    """Units done per second, with the unit of the task."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "")
        return Text("" if speed is None else f"{quantity(speed)}{unit}/s", style="cyan")


class _Note(ProgressColumn):
    """Short text that the task may change."""

    def render(self, task: Task) -> Text:
        return Text(plain_text(task.fields.get("note", "")), style="dim")


@contextmanager
def progress(
    description: str, unit: str, *, counted: bool = True, lines: bool = True
) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr; yield its update function (done, total, note, description).

    Without a terminal, a line is printed once a minute.

    Args:
        description: name of the work.
        unit: unit of the count, e.g. "batches".
        counted: whether to show `done/total` instead of a percentage.
        lines: whether to print these lines.
    """
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=24)]
    columns += [MofNCompleteColumn()] if counted else [TextColumn("{task.percentage:>3.0f}%")]
    columns += [_Rate(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), _Note()]
    # Each redraw takes some milliseconds of processor time.
    with Progress(
        *columns,
        console=errors,
        disable=is_quiet() or not errors.is_terminal,
        refresh_per_second=_REDRAWS_PER_SECOND,
    ) as bar:
        task = bar.add_task(plain_text(description), total=None, unit=unit, note="")
        started = printed = time.monotonic()

        def update(done: int, total: int | None, note: str = "", now: str = description) -> None:
            nonlocal printed
            bar.update(task, completed=done, total=total, note=note, description=plain_text(now))
            if lines and total and bar.disable and time.monotonic() - printed > _SECONDS_BETWEEN_LINES:
                printed = time.monotonic()
                print_line(f"{now}: {done / total:.0%}, {time_left(printed - started, done / total)}")

        yield update


def print_text(text: str = "") -> None:
    """Print a text on stdout."""
    results.print(plain_text(text), markup=False)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; numbers that are not finite become null."""
    sys.stdout.write(to_json(content, indent=2, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a table on stdout; numbers are aligned to the right."""
    table = Table(
        title=None if title is None else plain_text(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{v:.4g}" if isinstance(v, float) else plain_text(v)) for v in row))
    results.print(table)


def print_consumers(table: "Sequence[ConsumerVerdict]") -> None:
    """Print which programs run a package, a row each: with which weights, why, and a remedy."""
    from im2im_zoo.packaging.consumers.rows import program_rows

    rows = [
        (
            row.program if row.checked == "run" else f"{row.program}, {row.checked}",
            row.verdict,
            ", ".join(row.weights),
            row.reason + (f". Instead: {row.change}" if row.change else ""),
        )
        for row in program_rows(table)
    ]
    print_table(("program", "", "with", "because"), rows)


def time_left(seconds: float, part: float) -> str:
    """Return the time that is left of a work of which a part was done in some seconds: `about 12 min left`.

    Args:
        seconds: that have passed.
        part: of the work that is done, from 0 to 1.
    """
    if part <= 0:
        return "time left unknown"
    left = seconds * (1 - part) / part
    if left >= 2 * 3600:
        return f"about {left / 3600:.1f} h left"
    return f"about {left / 60:.0f} min left" if left >= 120 else f"about {left:.0f} s left"


def quantity(number: float) -> str:
    """Format a number in three digits with k, M or G: 1234567 -> "1.23 M"."""
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= factor:
            return f"{number / factor:.3g}{letter}"
    return f"{number:.3g} "


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Format losses and metrics in one line: `train_loss 0.12  val_dice 0.93`."""
    return "  ".join(
        f"{k} {v:.4g}" for k, v in metrics.items() if k not in ("epoch", "step", "seconds", "learning_rate")
    )
