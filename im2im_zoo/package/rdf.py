"""The RDF of a package: found in a folder, read, and described by bioimageio.spec, without its file and network checks."""

import copy
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_zoo.core.errors import PackageError

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import ModelDescr

_RDF_NAMES = ("rdf.yaml", "bioimageio.yaml", "model.yaml", "rdf.yml", "bioimageio.yml")
_RDF_SUFFIXES = (".rdf.yaml", ".bioimageio.yaml", ".rdf.yml", ".bioimageio.yml")
_MAX_RDF_BYTES = 16 * 1024**2
# Aliases of YAML can make billions of values of a few lines; the largest RDFs have some thousands.
_MAX_RDF_VALUES = 1_000_000


def _is_rdf_name(name: str) -> bool:
    return name.lower() in _RDF_NAMES or name.lower().endswith(_RDF_SUFFIXES)


def has_rdf(folder: Path) -> bool:
    return folder.is_dir() and any(_is_rdf_name(p.name) for p in folder.iterdir())


def rdf_in(folder: Path, source: str) -> Path:
    entries = sorted(folder.iterdir())
    found = [p for p in entries if p.is_file() and _is_rdf_name(p.name)]
    if not found and len(entries) == 1 and entries[0].is_dir():
        # A zip of a folder, as file managers make it.
        return rdf_in(entries[0], source)
    if not found:
        listing = ", ".join(p.name for p in entries[:10]) or "nothing"
        more = ", ..." if len(entries) > 10 else ""
        raise PackageError(
            f"{source} is not a bioimage.io package: it has no rdf.yaml or bioimageio.yaml; it has {listing}{more}"
        )
    return min(found, key=lambda p: _RDF_NAMES.index(p.name.lower()) if p.name.lower() in _RDF_NAMES else 99)


def read_rdf(rdf: Path, source: str) -> dict[str, Any]:
    from bioimageio.spec.utils import read_yaml
    from ruyaml.error import YAMLError

    if rdf.stat().st_size > _MAX_RDF_BYTES:
        raise PackageError(f"{source}: {rdf.name} has more than {_MAX_RDF_BYTES} bytes: that is no RDF")
    try:
        # The spec's own reader: YAML 1.2, where 1e-6 is a number and `y` is an axis.
        raw = read_yaml(rdf.read_text(encoding="utf-8"))
        values = _count_values(raw, {})
    except RecursionError as error:
        raise PackageError(f"{source}: {rdf.name} is nested too deeply: that is no RDF") from error
    except (YAMLError, UnicodeDecodeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise PackageError(f"{source}: {rdf.name} is not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise PackageError(f"{source}: {rdf.name} cannot be read: {error}") from error
    if values > _MAX_RDF_VALUES:
        raise PackageError(
            f"{source}: {rdf.name} has more than {_MAX_RDF_VALUES} values, aliases (*) written out: that is no RDF"
        )
    if not isinstance(raw, dict) or "type" not in raw or "format_version" not in raw:
        keys = ", ".join(map(str, list(raw)[:10])) if isinstance(raw, dict) else type(raw).__name__
        raise PackageError(
            f"{source} is not a bioimage.io package: {rdf.name} has no `type` and `format_version`; it has {keys}"
        )
    if raw["type"] != "model":
        raise PackageError(
            f"{source}: this is a bioimage.io {raw['type']}, not a model; only models can be run"
        )
    return {str(key): value for key, value in raw.items()}


def _count_values(value: object, known: dict[int, float]) -> float:
    """How many values a document has when every alias is written out; infinite if one holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(value)]


def describe_rdf(raw: dict[str, Any], rdf: Path, source: str) -> "ModelDescr":
    from bioimageio.spec import InvalidDescr, ValidationContext, build_description
    from bioimageio.spec.model.v0_5 import ModelDescr

    context = ValidationContext(
        root=rdf.parent.resolve(), file_name=rdf.name, perform_io_checks=False, log_warnings=False
    )
    # The upgrade of old formats changes what it is given.
    with warnings.catch_warnings():
        # It also warns of what it guesses in formats that knew less; validation is where to be told of that.
        warnings.simplefilter("ignore")
        try:
            description = build_description(copy.deepcopy(raw), context=context, format_version="latest")
        except Exception as error:  # what the upgrade of an old format makes of broken ones may be anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise PackageError(f"{source}: {rdf.name} is not valid; bioimageio.spec says {reason}") from error
    if isinstance(description, InvalidDescr) or not isinstance(description, ModelDescr):
        summary = description.validation_summary
        errors = [e for detail in summary.details for e in detail.errors] if summary else []
        reasons = [f"  {_field(e.loc)}: {' '.join(e.msg.split())}" for e in errors]
        raise PackageError(
            f"{source}: {rdf.name} (format {raw['format_version']}) is not valid:\n" + "\n".join(reasons[:12])
        )
    return description


def _field(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "(the whole)"
