"""The RDF of a package: find it in a folder, read it, and parse it with bioimageio.spec, without file and network checks."""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.package.format_0_4 import make_convertible

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import ModelDescr

_RDF_NAMES = ("rdf.yaml", "bioimageio.yaml", "model.yaml", "rdf.yml", "bioimageio.yml")
_REPORT = "please report this to its authors"
_RDF_SUFFIXES = (".rdf.yaml", ".bioimageio.yaml", ".rdf.yml", ".bioimageio.yml")
_MAX_RDF_BYTES = 16 * 1024**2
# YAML aliases can expand a few lines to billions of values; the largest RDFs have some thousands.
_MAX_RDF_VALUES = 1_000_000


def _is_rdf_name(name: str) -> bool:
    return name.lower() in _RDF_NAMES or name.lower().endswith(_RDF_SUFFIXES)


def has_rdf(folder: Path) -> bool:
    """Whether a folder holds a file with the name of an RDF."""
    return folder.is_dir() and any(_is_rdf_name(p.name) for p in folder.iterdir())


def find_rdf(folder: Path, source: str) -> Path:
    """Find the RDF in a folder, or in the only folder inside it.

    Args:
        folder: of a package.
        source: its name in messages.

    Raises:
        PackageError: there is none.
    """
    entries = sorted(folder.iterdir())
    found = [p for p in entries if p.is_file() and _is_rdf_name(p.name)]
    if not found and len(entries) == 1 and entries[0].is_dir():
        # A zip of a folder, as file managers make it.
        return find_rdf(entries[0], source)
    if not found:
        listing = ", ".join(p.name for p in entries[:10]) or "nothing"
        more = ", ..." if len(entries) > 10 else ""
        raise PackageError(
            f"{source} is not a bioimage.io package: it has no rdf.yaml or bioimageio.yaml; it has {listing}{more}"
        )
    return min(found, key=lambda p: _RDF_NAMES.index(p.name.lower()) if p.name.lower() in _RDF_NAMES else 99)


def read_rdf(rdf: Path, source: str) -> dict[str, Any]:
    """Read an RDF as YAML and check that it describes a model.

    Args:
        rdf: its file.
        source: name of the package in messages.

    Raises:
        PackageError: it is too large, not YAML, or not the RDF of a model.
    """
    from bioimageio.spec.utils import read_yaml
    from ruyaml.error import YAMLError

    if rdf.stat().st_size > _MAX_RDF_BYTES:
        raise PackageError(
            f"{source}: {rdf.name} has more than {_MAX_RDF_BYTES} bytes, so it is not an RDF; {_REPORT}"
        )
    try:
        # The spec's own reader: YAML 1.2, where 1e-6 is a number and `y` is an axis.
        raw = read_yaml(rdf.read_text(encoding="utf-8"))
        values = _count_values(raw, {})
    except RecursionError as error:
        raise PackageError(f"{source}: {rdf.name} is nested too deeply to be an RDF; {_REPORT}") from error
    except (YAMLError, UnicodeDecodeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise PackageError(f"{source}: {rdf.name} is not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise PackageError(f"{source}: {rdf.name} cannot be read: {error}") from error
    if values > _MAX_RDF_VALUES:
        raise PackageError(
            f"{source}: {rdf.name} has more than {_MAX_RDF_VALUES} values with its aliases (*) expanded, so it is not an RDF; "
            f"{_REPORT}"
        )
    if not isinstance(raw, dict) or "type" not in raw or "format_version" not in raw:
        keys = ", ".join(map(str, list(raw)[:10])) if isinstance(raw, dict) else type(raw).__name__
        raise PackageError(
            f"{source} is not a bioimage.io package: {rdf.name} has no `type` and `format_version`; it has {keys}"
        )
    if raw["type"] != "model":
        raise PackageError(
            f"{source} is a bioimage.io {raw['type']}, but only models can run; give the package of a model"
        )
    return {str(key): value for key, value in raw.items()}


def _count_values(value: object, known: dict[int, float]) -> float:
    """Count the values of a document with every alias expanded; infinite if one contains itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(value)]


def describe_rdf(raw: dict[str, Any], rdf: Path, source: str) -> "ModelDescr":
    """Parse the content of an RDF with bioimageio.spec, upgraded to the latest format.

    Args:
        raw: its content, which is not changed.
        rdf: its file.
        source: name of the package in messages.

    Raises:
        PackageError: it is not valid; the message lists the fields.
    """
    from bioimageio.spec import InvalidDescr, ValidationContext, build_description
    from bioimageio.spec.model.v0_5 import ModelDescr

    context = ValidationContext(
        root=rdf.parent.resolve(), file_name=rdf.name, perform_io_checks=False, log_warnings=False
    )
    # The upgrade of old formats changes its argument.
    with warnings.catch_warnings():
        # It also warns about its guesses for old formats; validation reports those.
        warnings.simplefilter("ignore")
        try:
            description = build_description(make_convertible(raw), context=context, format_version="latest")
        except Exception as error:  # the upgrade of a broken RDF can raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise PackageError(
                f"{source}: {rdf.name} is not valid; bioimageio.spec reports {reason}; {_REPORT}"
            ) from error
    if isinstance(description, InvalidDescr) or not isinstance(description, ModelDescr):
        summary = description.validation_summary
        errors = [e for detail in summary.details for e in detail.errors] if summary else []
        reasons = [f"  {_format_field(e.loc)}: {' '.join(e.msg.split())}" for e in errors]
        raise PackageError(
            f"{source}: {rdf.name} (format {raw['format_version']}) is not valid:\n" + "\n".join(reasons[:12])
        )
    return description


def _format_field(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "(the whole RDF)"
