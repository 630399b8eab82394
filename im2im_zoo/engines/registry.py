"""Find the engines, and open the one that weights need.

Each module of this folder may define engines (`BaseEngine`). They are found by looking through the folder; their modules
import no library, so finding them costs next to nothing and runs no code from outside this package.
"""

import functools
import importlib
import inspect
from importlib import metadata
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.subclasses import subclasses_in
from im2im_zoo.engines.base import PRECISIONS, BaseEngine, Engine, RunOptions, SafetyCheck, Weights


@functools.cache
def engine_classes() -> tuple[type[BaseEngine], ...]:
    """Return all engines, installed or not, the preferred first."""
    found = subclasses_in(importlib.import_module(__package__), BaseEngine)
    usable = (engine for engine in found if not inspect.isabstract(engine))
    return tuple(sorted(usable, key=lambda engine: (engine.rank, engine.__module__)))


def weights_formats() -> tuple[str, ...]:
    """Return the weights formats that there are engines for, the preferred first."""
    return tuple(dict.fromkeys(name for engine in engine_classes() for name in engine.formats))


def engines_of(weights_format: str) -> tuple[type[BaseEngine], ...]:
    """Return the engines of a format, installed or not, the preferred first."""
    return tuple(engine for engine in engine_classes() if weights_format in engine.formats)


def available_engines(weights_format: str, device: str = "cpu") -> tuple[type[BaseEngine], ...]:
    """Return the engines that are installed here and run a format on a device, the preferred first."""
    return tuple(e for e in engines_of(weights_format) if e.is_available(weights_format, device))


def backends(weights_format: str, device: str = "cpu") -> tuple[str, ...]:
    """Return the names of `available_engines`."""
    return tuple(engine.backend for engine in available_engines(weights_format, device))


def is_runnable(weights_format: str) -> bool:
    """Return whether an engine of a format is installed here."""
    return any(engine.is_installed(weights_format) for engine in engines_of(weights_format))


def runs_code(weights_format: str) -> bool:
    """Return whether every engine of a format runs Python code that the package names."""
    return all(engine.runs_code for engine in engines_of(weights_format))


def library_version(backend: str) -> str:
    """Return the version of the library of a backend here; empty if it has none."""
    for engine in engine_classes():
        if engine.backend == backend:
            return engine.version()
    try:
        return f"{backend} {metadata.version(backend)}"
    except metadata.PackageNotFoundError:
        return ""


def check_weights(weights: Weights) -> None:
    """Refuse a weights file that would do more than compute.

    The checks of all engines of the format have to pass, so that adding an engine never permits more.

    Raises:
        PackageError: the file would do more, cannot be looked through, or is of a format without an engine.
    """
    checks: dict[SafetyCheck, None] = {e.formats[weights.format]: None for e in engines_of(weights.format)}
    if not checks:
        raise _no_engine(weights)
    for check in checks:
        check(weights)


def vet_weights(
    weights_format: str, path: Path, *, root: Path | None = None, allow_code: bool = False
) -> None:
    """Refuse a weights file that would do more than compute; see `check_weights`.

    Args:
        weights_format: the spec's name of the format.
        path: the file.
        root: folder of the package, outside of which no file may be named (default: the weights' own).
        allow_code: consent to Python in it (Keras), and to graphs that use files (TensorFlow).

    Raises:
        PackageError: as `check_weights`.
    """
    check_weights(Weights(weights_format, path, root or path.parent, allow_code=allow_code))


def open_engine(
    weights_format: str,
    weights: Path,
    *,
    architecture: Any = None,
    root: Path | None = None,
    allow_code: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    backend: str | None = None,
    precision: str = "float32",
    description: Any = None,
) -> Engine:
    """Load a network from its weights.

    Args:
        weights_format: one of `weights_formats()`.
        weights: the file.
        architecture, allow_code, description: see `Weights`.
        root: folder of the package, in which the architecture's file lies and all that weights may name (default: that of the
            weights).
        device, threads, precision: see `RunOptions`.
        backend: the library (default: the first that is installed, see `backends`).

    Raises:
        PackageError: a format that cannot be run, a file that cannot be loaded or would do more than compute
            (`check_weights`), a device that is not there, or code that would have to run without consent.
    """
    if not weights.is_file():
        raise PackageError(
            f"the {weights_format} weights {weights} are missing; download the complete package"
        )
    if threads is not None and threads < 1:
        raise PackageError(f"threads is {threads}; give at least 1")
    if precision not in PRECISIONS:
        raise PackageError(f"precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    file = Weights(weights_format, weights, root or weights.parent, architecture, description, allow_code)
    chosen = _select(file, backend, device)
    if precision not in chosen.precisions:
        raise PackageError(
            f"{file}: {chosen.backend} runs it in {' or '.join(chosen.precisions)} only, not in {precision}; "
            "use float32 or another backend"
        )
    check_weights(file)
    opened: Engine = chosen(file, RunOptions(device, threads, precision))
    return opened


def _select(weights: Weights, backend: str | None, device: str) -> type[BaseEngine]:
    """Return the engine that runs weights on a device: the one that is asked for, else the first that is installed."""
    engines = engines_of(weights.format)
    if not engines:
        raise _no_engine(weights)
    named = [e for e in engines if backend in (None, e.backend)]
    if not named:
        names = " or ".join(e.backend for e in engines)
        raise PackageError(f"{weights.format} weights are run by {names}, not by {backend!r}")
    for engine in named:
        if engine.is_available(weights.format, device):
            return engine
    wanted = named[0]
    if wanted.is_installed(weights.format):
        raise PackageError(f"{wanted.backend} does not run on the device {device!r} here; use device cpu")
    raise PackageError(f"{weights.path}: needs {wanted.backend}: pip install 'im2im_zoo[{wanted.extra}]'")


def _no_engine(weights: Weights) -> PackageError:
    return PackageError(
        f"{weights.path}: weights of the format {weights.format!r} cannot be run here; "
        f"there are engines for {', '.join(weights_formats())}"
    )
