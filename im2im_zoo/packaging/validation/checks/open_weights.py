"""Open the weights that can and may run here, and state for each other format why it was not run."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from im2im_zoo.core.errors import MissingLibraryError, PackageError
from im2im_zoo.engines import Engine, engines_of, is_runnable, weights_formats
from im2im_zoo.packaging.validation.checks.base import Checks


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Reason why weights that may be sound are not run here, with its remedy."""

    code: Literal["not_run", "skipped"]
    reason: str
    remedy: str


def open_engines(checks: Checks, weights: Sequence[str] | None, safe: Collection[str]) -> dict[str, Engine]:
    """Open the formats that can and may run here; add a finding for each other one."""
    known = weights_formats()
    formats = sorted(checks.package.formats(), key=lambda f: known.index(f) if f in known else len(known))
    absent = [f for f in weights or () if f not in formats]
    for name in absent:
        message = f"the package has none; it has {', '.join(formats)}"
        checks.add("error", "weights", f"weights.{name}", message)
    engines, obstacles = dict[str, Engine](), list[_Obstacle]()
    for name in formats:
        if weights is not None and name not in weights:
            continue
        found = _obstacle(checks, name, safe)
        try:
            if found is None and name in safe:
                engines[name] = checks.package.open_engine(name, allow_code=checks.allow_code)
        except MissingLibraryError as error:
            found = _Obstacle("not_run", f"{name} {error}", "")
        except PackageError as error:
            checks.add("error", "weights", f"weights.{name}", str(error))
        if found is not None:
            obstacles.append(found)
            message = "; ".join(filter(None, (found.reason, found.remedy)))
            checks.add("info", found.code, f"weights.{name}", f"{found.code.replace('_', ' ')}: {message}")
    if obstacles and not engines:
        remedies = dict.fromkeys(o.remedy for o in obstacles if o.remedy)
        why = [f"no weights could be run because {', and '.join(o.reason for o in obstacles)}", *remedies]
        checks.add("warning", "weights_unchecked", "weights", "; ".join(why))
    return engines


def _obstacle(checks: Checks, name: str, safe: Collection[str]) -> _Obstacle | None:
    """Return why weights are not opened, if they are not themselves wrong."""
    package, known = checks.package, engines_of(name)
    if not known:
        reason = f"there is no engine for {name} in im2im_zoo"
        return _Obstacle("not_run", reason, "add weights that it runs, such as onnx or torchscript")
    if not is_runnable(name):
        remedy = f"install it with pip install 'im2im_zoo[{known[0].extra}]'"
        return _Obstacle("not_run", f"{name} needs {known[0].backend}, which is not installed here", remedy)
    entry = package.weights_entry(name)
    if name not in safe and "://" in str(entry.source):
        reason = f"the file of its {name} weights is not in the package"
        return _Obstacle("not_run", reason, "download the complete package")
    if name in safe and name == "pytorch_state_dict" and not checks.allow_code:
        code = getattr(entry, "architecture", None)
        where = getattr(code, "source", None) or getattr(code, "import_from", "?")
        reason = f"{name} runs Python code, {getattr(code, 'callable', '?')!r} of {str(where)!r}"
        return _Obstacle("skipped", reason, "allow it with --allow-code if you trust it")
    return None
