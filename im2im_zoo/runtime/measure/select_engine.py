"""Select the weights and library of a package: the fastest on its test tensors, kept in the user's cache.

Weights that run the package's Python code are only used if there are no others or the user selects them, with consent.
"""

import gc
import json
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.core.atomic import cache_json
from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.finite_json import read_json_object
from im2im_zoo.core.hashing import sha256, sha256_of
from im2im_zoo.engines import Engine, available_engines, backends, library_version, runs_code
from im2im_zoo.package import Package, open_package
from im2im_zoo.package.reference import Reference, compare, reference_of, tolerance
from im2im_zoo.runtime.measure.cache import cache_file

_LOG = logging.getLogger(__name__)
_RUNS = 2
# A candidate that is this much slower in its first run is not run again.
_TOO_SLOW = 3.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a package.

    Attributes:
        weights_format, backend: the weights and the library.
        seconds: time for the test tensors; None if it was not measured.
        note: why it was dropped.
    """

    weights_format: str
    backend: str
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class SelectedEngine:
    """An open network, the candidates that it was selected from, and the reason in a sentence."""

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
    in_process: bool = False,
) -> SelectedEngine:
    """Open the network of a package in the fastest way that reproduces its test tensors.

    Args:
        package: the model.
        weights, backend: the only format and the only library to use (default: any).
        precision: float32, or float16 or bfloat16 if the network still reproduces the package's test tensors.
        device: `auto` is a GPU if torch has one, else the CPU.
        threads: within one call (default: the library's choice).
        allow_code: whether Python code of the package may run.
        measure: whether to measure; if False, the first candidate is used.
        in_process: measure in this process, seconds faster where the libraries are loaded, instead of in a subprocess, which
            frees all memory at its end and may crash.

    Raises:
        PackageError: no library can run it, the SHA-256 of the weights differs from the RDF's, or the precision is not
            enough.
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
        reason = "nothing else can run it" if measure else "selected before"
        selected = SelectedEngine(_open(package, candidates[0], **options), candidates, reason)
        if precision != "float32":
            _check_precision(package, selected.engine, allow_code)
        return selected
    file = cache_file("engines", _cache_key(package, candidates, precision, place, threads))
    known = _cached_candidate(file, candidates)
    if known is not None:
        return SelectedEngine(
            _open(package, known, **options), (known,), f"{known.backend} was measured to be the fastest"
        )
    if not all(t.test_tensor is not None or t.optional for t in package.inputs):
        first = _first_that_opens(package, candidates, options)
        return SelectedEngine(first, candidates, "it has no test tensors to measure with")
    names = ", ".join(f"{c.weights_format} by {c.backend}" for c in candidates)
    _LOG.info("Measuring which is fastest on this computer (once per package): %s", names)
    if in_process:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tried = tuple(_measure(package, candidates, options))
    else:
        tried = _measure_in_subprocess(package, candidates, options)
    reason = _reason(tried)
    best = min((c for c in tried if c.seconds is not None), key=lambda c: c.seconds or 0.0, default=None)
    if best is None:
        _check_shared_failure(tried, precision)
        return SelectedEngine(_first_that_opens(package, candidates, options), tried, reason)
    cache_json(file, {"weights": best.weights_format, "backend": best.backend})
    return SelectedEngine(_open(package, best, **options), tried, reason)


def _device() -> str:
    # Do not load torch, which takes seconds and 150 MB, on a machine without a GPU.
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
            f"{package.name} has no {weights!r} weights that can be run; use one of {', '.join(package.weights)}"
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
            f"{package.name}: {backend!r} cannot run its {', '.join(formats)} weights on {device} here; available backends: "
            f"{', '.join(having)}"
        )
    raise PackageError(
        f"{package.name}: its {', '.join(formats)} weights cannot be run on {device} in {precision} here; use device cpu and float32"
    )


def _open(package: "Package", candidate: Candidate, **options: Any) -> Engine:
    entry = package.weights_entry(candidate.weights_format)
    path = package.path(entry)
    # Damaged weights may load and give a wrong image.
    if path.is_file() and entry.sha256 is not None and sha256(path) != str(entry.sha256):
        raise PackageError(
            f"{package.source}: the file {entry.source} was changed or damaged, as its SHA-256 differs from the RDF's; "
            "download the package again"
        )
    return package.open_engine(candidate.weights_format, backend=candidate.backend, **options)


def _first_that_opens(package: "Package", candidates: Sequence[Candidate], options: dict[str, Any]) -> Engine:
    errors = []
    for candidate in candidates:
        try:
            return _open(package, candidate, **options)
        except PackageError as error:
            errors.append(error)
    raise errors[0]


def _measure_in_subprocess(
    package: "Package", candidates: Sequence[Candidate], options: dict[str, Any]
) -> tuple[Candidate, ...]:
    """Measure the candidates in a subprocess, which frees the memory of all libraries when it ends."""
    request = {
        "root": str(package.root),
        "candidates": [(c.weights_format, c.backend) for c in candidates],
        **options,
    }
    command = [sys.executable, "-W", "ignore", "-m", __name__, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return tuple(Candidate(**c) for c in json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        return tuple(candidates)


def _reason(tried: Sequence[Candidate]) -> str:
    """Return the reason for the selection in a sentence."""
    if not any(c.seconds is not None or c.note for c in tried):
        return "measuring failed"
    times = [f"{c.weights_format} by {c.backend} {c.seconds:.3f} s" for c in tried if c.seconds is not None]
    dropped = [f"{c.weights_format} by {c.backend} was dropped" for c in tried if c.seconds is None]
    return "on its test tensors: " + ", ".join([*times, *dropped])


def _check_shared_failure(tried: Sequence[Candidate], precision: str) -> None:
    """Raise `PackageError` if no candidate is accurate enough in a precision below float32."""
    notes = [c.note for c in tried if c.note]
    if precision != "float32" and notes:
        raise PackageError(f"{notes[0]}; use float32")


def _measure_request(request: dict[str, Any]) -> list[Candidate]:
    """Measure what a request names; the main function of the subprocess."""
    set_up_memory()
    package, candidates = open_package(request.pop("root")), request.pop("candidates")
    return _measure(package, [Candidate(*c) for c in candidates], request)


def _measure(package: "Package", candidates: Sequence[Candidate], options: dict[str, Any]) -> list[Candidate]:
    """Load, check and time each candidate."""
    reference = Reference.of(package, allow_code=options["allow_code"])
    best: float | None = None
    tried = []
    for candidate in candidates:
        try:
            seconds = _time_engine(_open(package, candidate, **options), reference, best)
        except (PackageError, ProcessingError) as error:
            tried.append(replace(candidate, note=str(error)))
            continue
        best = seconds if best is None else min(best, seconds)
        tried.append(replace(candidate, seconds=seconds))
        gc.collect()
    return tried


def _time_engine(engine: Engine, reference: Reference, best: float | None) -> float:
    """Return the seconds of a run on the test tensors, which the engine must reproduce."""
    _check(engine, reference, engine(reference.inputs))
    shortest = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        engine(reference.inputs)
        shortest = min(shortest, time.perf_counter() - start)
        if best is not None and shortest > _TOO_SLOW * best:
            break
    return shortest


def _check(engine: Engine, reference: Reference, outputs: list[NDArray[Any]]) -> None:
    try:
        results = reference.finish(outputs)
    except ProcessingError as error:
        raise PackageError(f"the output of {engine.backend} cannot be postprocessed: {error}") from error
    for name, expected in reference.expected.items():
        allowed = tolerance(reference.package, engine.weights_format, name)
        result = results[name]
        if result.shape != expected.shape:
            raise PackageError(
                f"{engine.weights_format} weights by {engine.backend}: the output {name} has the shape {result.shape}, but the test "
                f"tensor {expected.shape}; use other weights or another backend"
            )
        found = compare(result, expected, allowed)
        if found.mismatched_per_million > allowed.mismatched_per_million:
            raise PackageError(
                f"{engine.weights_format} weights by {engine.backend} in {engine.precision} do not reproduce the test tensor of {name}: "
                f"{found.mismatched_per_million:.0f} per million values differ by more than {allowed.absolute:.2g} + "
                f"{allowed.relative:.2g} of the value ({allowed.mismatched_per_million:.0f} are tolerated); the largest difference is "
                f"{found.largest:.3g}"
            )


def _check_precision(package: "Package", engine: Engine, allow_code: bool) -> None:
    reference = reference_of(package, allow_code=allow_code)
    if reference is None:
        raise PackageError(
            f"{package.name} has no test tensors to check whether {engine.precision} is accurate enough; use float32"
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
    return sha256_of(repr(parts))


def _cached_candidate(file: Path, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the fastest candidate of an earlier measurement, if it is still available."""
    known = read_json_object(file)
    return next(
        (
            c
            for c in candidates
            if (c.weights_format, c.backend) == (known.get("weights"), known.get("backend"))
        ),
        None,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(c) for c in _measure_request(json.loads(sys.argv[1]))]) + "\n")
