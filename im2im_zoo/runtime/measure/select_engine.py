"""Which weights run by which library: measured on the package's own test tensors, once, and kept in the user's cache.

What runs the package's Python is never a candidate by itself; it runs where nothing else can, or is asked for, with consent.
"""

import gc
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.engines import Engine, available_engines, backends, library_version, open_engine, runs_code
from im2im_zoo.package.reference import Reference, compare, reference_of, tolerance
from im2im_zoo.runtime.measure.cache import cache_file, read_cache, write_cache

if TYPE_CHECKING:
    from im2im_zoo.package import Package

_RUNS = 2
# A candidate that is this much slower in its first run is not run again.
_HOPELESS = 3.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a package: the seconds that the test tensors took (None: not measured), and why it was dropped."""

    weights_format: str
    backend: str
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open network, what it was chosen from, and why in a sentence."""

    engine: Engine
    candidates: tuple[Candidate, ...]
    reason: str


def open_network(
    package: "Package",
    *,
    weights: str | None = None,
    backend: str | None = None,
    precision: str = "float32",
    device: str = "auto",
    threads: int | None = None,
    allow_code: bool = False,
    measure: bool = True,
) -> Opened:
    """Open the network of a package in the fastest way that reproduces its test tensors.

    Args:
        weights, backend: only this format, only this library (default: any).
        precision: of the network's numbers. Other than float32 only if the package's test tensors are still reproduced.
        device: `auto` is a GPU if torch has one, else the CPU.
        threads: within one call (default: as the library chooses).
        allow_code: whether Python of the package may run.
        measure: False takes the first candidate.

    Raises:
        PackageError: nothing can run it; weights whose SHA-256 is not the RDF's; or a precision that is not enough.
    """
    place = _device() if device == "auto" else device
    candidates = _candidates(package, weights, backend, place, precision)
    options: dict[str, Any] = {
        "precision": precision,
        "device": place,
        "threads": threads,
        "allow_code": allow_code,
    }
    if len(candidates) == 1 or not measure:
        reason = "nothing else can run it" if measure else "it was chosen before"
        opened = Opened(_open(package, candidates[0], **options), candidates, reason)
        if precision != "float32":
            _check_precision(package, opened.engine, allow_code)
        return opened
    file = cache_file("engines", _cache_key(package, candidates, precision, place, threads))
    known = _known(file, candidates)
    if known is not None:
        return Opened(
            _open(package, known, **options), (known,), f"{known.backend} was measured to be the fastest"
        )
    if not all(t.test_tensor is not None or t.optional for t in package.inputs):
        first = _first_that_opens(package, candidates, options)
        return Opened(first, candidates, "it has no test tensors to measure with")
    tried, reason = _measured_apart(package, candidates, options)
    best = min((c for c in tried if c.seconds is not None), key=lambda c: c.seconds or 0.0, default=None)
    if best is None:
        _check_shared_failure(tried, precision)
        return Opened(_first_that_opens(package, candidates, options), tried, reason)
    write_cache(file, {"weights": best.weights_format, "backend": best.backend})
    return Opened(_open(package, best, **options), tried, reason)


def _device() -> str:
    # Loading torch takes seconds and 150 MB, which a machine without a GPU is spared.
    may = sys.platform != "linux" or any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
    if not may or not backends("torchscript"):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _candidates(
    package: "Package", weights: str | None, backend: str | None, device: str, precision: str
) -> tuple[Candidate, ...]:
    if weights is not None and weights not in package.weights:
        raise PackageError(
            f"{package.name} has no {weights!r} weights that can be run; it has {', '.join(package.weights)}"
        )
    safe = [f for f in package.weights if not runs_code(f)]
    formats = [weights] if weights is not None else safe or list(package.weights)
    usable = [
        Candidate(f, engine.backend)
        for f in formats
        for engine in available_engines(f, device)
        if backend in (None, engine.backend) and precision in engine.precisions
    ]
    if usable:
        return tuple(usable)
    if backend is not None:
        having = sorted({b for f in formats for b in backends(f, device)}) or ["none"]
        raise PackageError(
            f"{package.name}: its {', '.join(formats)} weights are not run by {backend!r} on {device} here; what can is {', '.join(having)}"
        )
    raise PackageError(
        f"{package.name}: its {', '.join(formats)} weights cannot be run on {device} in {precision} here; use device cpu and float32"
    )


def _open(package: "Package", candidate: Candidate, **options: Any) -> Engine:
    entry = package.weights_entry(candidate.weights_format)
    path = package.path(entry)
    # Damaged weights may well load, and give a wrong image.
    if path.is_file() and entry.sha256 is not None and sha256(path) != str(entry.sha256):
        raise PackageError(
            f"{package.source}: the file {entry.source} is not the one that the RDF describes (its SHA-256 differs): "
            "it was changed or damaged; download the package again"
        )
    return open_engine(
        candidate.weights_format,
        path,
        architecture=getattr(entry, "architecture", None),
        root=package.root,
        backend=candidate.backend,
        description=package.description,
        **options,
    )


def _first_that_opens(package: "Package", candidates: Sequence[Candidate], options: dict[str, Any]) -> Engine:
    errors = []
    for candidate in candidates:
        try:
            return _open(package, candidate, **options)
        except PackageError as error:
            errors.append(error)
    raise errors[0]


def _measured_apart(
    package: "Package", candidates: Sequence[Candidate], options: dict[str, Any]
) -> tuple[tuple[Candidate, ...], str]:
    """The candidates with what was measured of them, in a process of its own: what it loads and keeps is gone with it."""
    request = {
        "root": str(package.root),
        "candidates": [(c.weights_format, c.backend) for c in candidates],
        **options,
    }
    command = [sys.executable, "-W", "ignore", "-m", __name__, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        tried = tuple(Candidate(**c) for c in json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        return tuple(candidates), "measuring failed"
    times = [f"{c.weights_format} by {c.backend} {c.seconds:.3f} s" for c in tried if c.seconds is not None]
    dropped = [f"{c.weights_format} by {c.backend} was dropped" for c in tried if c.seconds is None]
    return tried, "on its test tensors: " + ", ".join([*times, *dropped])


def _check_shared_failure(tried: Sequence[Candidate], precision: str) -> None:
    """A lower precision that no candidate is good enough in is refused; in float32 the first is taken, as its authors did."""
    notes = [c.note for c in tried if c.note]
    if precision != "float32" and notes:
        raise PackageError(f"{notes[0]}; use float32")


def _measure(request: dict[str, Any]) -> list[Candidate]:
    """The measuring process: every candidate is loaded, checked and timed, one after the other."""
    from im2im_zoo.package import open_package

    set_up_memory()
    root, candidates = request.pop("root"), request.pop("candidates")
    package, tried = open_package(root), []
    reference = Reference.of(package, allow_code=request["allow_code"])
    best: float | None = None
    for weights_format, backend in candidates:
        candidate = Candidate(weights_format, backend)
        try:
            seconds = _timed(_open(package, candidate, **request), reference, best)
        except (PackageError, ProcessingError) as error:
            tried.append(replace(candidate, note=str(error)))
            continue
        best = seconds if best is None else min(best, seconds)
        tried.append(replace(candidate, seconds=seconds))
        gc.collect()
    return tried


def _timed(engine: Engine, reference: Reference, best: float | None) -> float:
    """Seconds of a run on the test tensors, which it has to reproduce."""
    _check(engine, reference, engine(reference.inputs))
    shortest = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        engine(reference.inputs)
        shortest = min(shortest, time.perf_counter() - start)
        if best is not None and shortest > _HOPELESS * best:
            break
    return shortest


def _check(engine: Engine, reference: Reference, outputs: list[NDArray[Any]]) -> None:
    try:
        results = reference.finish(outputs)
    except ProcessingError as error:
        raise PackageError(f"what {engine.backend} gives cannot be processed: {error}") from error
    for name, expected in reference.expected.items():
        allowed = tolerance(reference.package, engine.weights_format, name)
        result = results[name]
        if result.shape != expected.shape:
            raise PackageError(
                f"{engine.weights_format} weights by {engine.backend}: the output {name} has the shape {result.shape}, the test tensor "
                f"{expected.shape}"
            )
        found = compare(result, expected, allowed)
        if found.mismatched_per_million > allowed.mismatched_per_million:
            raise PackageError(
                f"{engine.weights_format} weights by {engine.backend} in {engine.precision} do not reproduce the test tensor of {name}: "
                f"{found.mismatched_per_million:.0f} of a million values differ by more than {allowed.absolute:.2g} + "
                f"{allowed.relative:.2g} of the value, {allowed.mismatched_per_million:.0f} may; the largest difference is {found.largest:.3g}"
            )


def _check_precision(package: "Package", engine: Engine, allow_code: bool) -> None:
    reference = reference_of(package, allow_code=allow_code)
    if reference is None:
        raise PackageError(
            f"{package.name} has no test tensors, so that it is not known whether {engine.precision} is enough; use float32"
        )
    _check(engine, reference, engine(reference.inputs))


def _cache_key(
    package: "Package", candidates: Sequence[Candidate], precision: str, device: str, threads: int | None
) -> str:
    parts: list[Any] = [precision, device, threads, platform.processor(), platform.machine(), os.cpu_count()]
    for candidate in candidates:
        entry = package.weights_entry(candidate.weights_format)
        weights = str(entry.sha256 or sha256(package.path(entry)))
        parts += [candidate.weights_format, candidate.backend, weights, library_version(candidate.backend)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _known(file: Path, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that was the fastest, if it still is one."""
    known = read_cache(file) or {}
    return next(
        (
            c
            for c in candidates
            if (c.weights_format, c.backend) == (known.get("weights"), known.get("backend"))
        ),
        None,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(c) for c in _measure(json.loads(sys.argv[1]))]) + "\n")
