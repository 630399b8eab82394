"""Open a bioimage.io model package from a folder, a zip, an RDF file, a name or an address; it runs nothing.

Only an address that is given as such is fetched (`remote_package`); nothing that a package names is.

What the package says is read by bioimageio.spec (formats 0.4 and 0.5, the former upgraded), without its file
and network checks: a dead link of a weight format that is not used does not matter. What matters is asked of
the files that are there: `Package.weights`, `Package.path` and `check_hashes`.
"""

import atexit
import copy
import functools
import hashlib
import importlib.util
import math
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from im2im_zoo.errors import PackageError, ProcessingError
from im2im_zoo.remote_package import fetch_package, is_address
from im2im_zoo.resources import packaged_models
from im2im_zoo.unzip import ZipLimits, extract_zip

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import InputTensorDescr, ModelDescr, OutputTensorDescr

    from im2im_zoo.processing import Operation
    from im2im_zoo.processing.grouping import AnyGrouping

# The formats that `engines` can run, the preferred first, and the libraries any of which runs them: ONNX runs without torch and
# without the package's code, TorchScript without its code; a state dict runs the package's own Python.
_LIBRARIES = {
    "onnx": ("onnxruntime", "openvino"),
    "torchscript": ("torch",),
    "keras_v3": ("keras",),
    "keras_hdf5": ("keras",),
    "tensorflow_saved_model_bundle": ("tensorflow",),
    "pytorch_state_dict": ("torch",),
}
WEIGHTS_FORMATS = tuple(_LIBRARIES)

_RDF_NAMES = ("rdf.yaml", "bioimageio.yaml", "model.yaml", "rdf.yml", "bioimageio.yml")
_RDF_SUFFIXES = (".rdf.yaml", ".bioimageio.yaml", ".rdf.yml", ".bioimageio.yml")
_MAX_RDF_BYTES = 16 * 1024**2
# Aliases of YAML can make billions of values of a few lines; the largest RDFs have some thousands.
_MAX_RDF_VALUES = 1_000_000


class HashMismatch(NamedTuple):
    """A file whose SHA-256 is not the one that the RDF gives."""

    file: str
    expected: str
    actual: str


@dataclass(frozen=True, eq=False)
class Package:
    """A package whose description is valid and whose files lie in `root`.

    A package from a zip owns its folder: it is removed by `close`, by leaving a `with`, or when Python ends.
    """

    source: str
    root: Path
    description: "ModelDescr" = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False)
    _remove: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name that the RDF gives."""
        return str(self.description.name)

    @property
    def version(self) -> str | None:
        """The version that the RDF gives, if any."""
        return None if self.description.version is None else str(self.description.version)

    @property
    def inputs(self) -> "tuple[InputTensorDescr, ...]":
        """The input tensors."""
        return tuple(self.description.inputs)

    @functools.cached_property
    def outputs(self) -> "tuple[OutputTensorDescr, ...]":
        """The output tensors; one that a library groups (StarDist, Cellpose) is the maps that the network gives, not the labels.

        Raises:
            PackageError: the RDF's labels cannot be made of any maps.
        """
        from im2im_zoo.processing.library_grouping import maps_tensor

        try:
            return tuple(maps_tensor(t) for t in self.description.outputs)
        except PackageError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @functools.cached_property
    def before_rdf(self) -> "Mapping[str, tuple[Operation, ...]]":
        """By input tensor, what is done before the RDF's own preprocessing, which can hold no custom operations.

        It is in `config.im2im_zoo.preprocessing`. The RDF's tensor, and the test tensor, is what it makes.

        Raises:
            PackageError: it is not written as this program writes it.
        """
        from im2im_zoo.processing.before_rdf import read_before_rdf

        try:
            return read_before_rdf(self.raw.get("config"), [str(t.id) for t in self.inputs], self.root)
        except ProcessingError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @functools.cached_property
    def grouping(self) -> "AnyGrouping | None":
        """What makes instance labels of the output, which is then dense maps.

        It is in `config.im2im_zoo.grouping`, or an operation of the output that a library does, or in `config.stardist`.

        Raises:
            PackageError: it is not written as this program writes it, or cannot be done.
        """
        from im2im_zoo.processing.grouping import read_grouping
        from im2im_zoo.processing.library_grouping import exported_by_stardist, library_grouping

        axes = {str(t.id): [str(axis.id) for axis in t.axes] for t in self.outputs}
        try:
            by_file = read_grouping(self.raw.get("config"), axes)
            named = by_file or library_grouping(self.description.outputs)
            return named or exported_by_stardist(self.raw.get("config"), self.description.outputs)
        except PackageError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @property
    def weights(self) -> tuple[str, ...]:
        """The weight formats that can be run here and whose file is present, the preferred first."""
        return tuple(f for f in WEIGHTS_FORMATS if self._is_present(f) and _library(f) is not None)

    def weights_entry(self, weights_format: str) -> Any:
        """The spec's description of one weight format.

        Raises:
            PackageError: the package has no weights of this format.
        """
        entry = getattr(self.description.weights, weights_format, None)
        if entry is None:
            raise PackageError(
                f"{self.source}: there are no weights of the format {weights_format!r}; "
                f"there are {', '.join(self.formats())}"
            )
        return entry

    def formats(self) -> tuple[str, ...]:
        """All the weight formats that the RDF names, run here or not."""
        return tuple(str(name) for name, entry in self.description.weights if entry is not None)

    def path(self, source: object) -> Path:
        """The path inside `root` of a file that the RDF names (a spec `FileDescr`, its `source`, or a string).

        Raises:
            PackageError: a URL, or a path that leads out of the package.
        """
        text = str(getattr(source, "source", source))
        if "://" in text:
            raise PackageError(
                f"{self.source}: {text} is not inside the package and nothing is fetched from the network; "
                "download the complete package"
            )
        try:
            path = (self.root / text).resolve()
            path.exists()
        except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, links in a circle
            raise PackageError(
                f"{self.source}: the RDF names {text[:200]!r}, which is no path: {error}"
            ) from error
        if not path.is_relative_to(self.root.resolve()):
            raise PackageError(f"{self.source}: the RDF names {text}, which is outside the package")
        return path

    @property
    def rdf(self) -> Path:
        """The RDF's file."""
        return _rdf_in(self.root, self.source)

    def close(self) -> None:
        """Remove the folder that a zip was extracted to. Does nothing for a package that is a folder."""
        if self._remove is not None:
            atexit.unregister(self._remove)
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_present(self, weights_format: str) -> bool:
        entry = getattr(self.description.weights, weights_format, None)
        if entry is None:
            return False
        try:
            return self.path(entry).is_file()
        except PackageError:
            return False


def open_package(source: str | Path, *, limits: ZipLimits | None = None) -> Package:
    """Open a package.

    Args:
        source: a folder, a `.zip`, an `rdf.yaml` or `bioimageio.yaml`, or the name of a packaged model,
            optionally with its version (`nuclei_2d` or `nuclei_2d/0.1.0`; default: the newest); or an address, `https://...`
            or `bioimage.io/NAME`, which is downloaded into the user's cache.
        limits: what a zip may unpack to.

    Raises:
        PackageError: not a package, a field of the RDF is invalid, no file of its weights is there, a zip
            that is not safe to extract, or an address that cannot be fetched.
    """
    path = _find(source)
    if path.is_dir():
        return _load(_rdf_in(path, str(source)), str(source), None)
    if zipfile.is_zipfile(path):
        folder = Path(tempfile.mkdtemp(prefix="im2im_zoo_"))
        remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(remove)
        try:
            extract_zip(path, folder, limits or ZipLimits())
            return _load(_rdf_in(folder, str(source)), str(source), remove)
        except BaseException:
            atexit.unregister(remove)
            remove()
            raise
    if path.suffix.lower() in (".yaml", ".yml"):
        return _load(path, str(source), None)
    if path.suffix.lower() == ".zip":
        raise PackageError(f"{source}: is no sound zip: it is cut short, damaged or empty; download it anew")
    raise PackageError(
        f"{source} is not a bioimage.io package: it is a file of the type {path.suffix or 'unknown'}; "
        "give a folder with an rdf.yaml, the rdf.yaml itself, or a .zip of it"
    )


def check_hashes(package: Package) -> list[HashMismatch]:
    """The files of the package whose SHA-256 is not the one that the RDF gives; files that are absent are not listed."""
    mismatches = []
    for source, expected in _hashed_files(package.description):
        try:
            path = package.path(source)
        except PackageError:
            continue
        if path.is_file() and (actual := sha256(path)) != expected:
            mismatches.append(HashMismatch(source, expected, actual))
    return mismatches


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find(source: str | Path) -> Path:
    if is_address(source):
        return fetch_package(str(source))
    path = Path(source).expanduser()
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise PackageError(f"{str(source)[:200]!r} is no path: {error}") from error
    models = packaged_models()
    if isinstance(source, str) and not path.is_absolute() and ".." not in path.parts:
        named = models / source
        if _has_rdf(named):
            return named
        versions = [folder for folder in named.glob("*") if _has_rdf(folder)]
        if versions:
            return max(versions, key=_version_order)
    names = sorted(folder.name for folder in models.glob("*") if folder.is_dir())
    known = f"the packaged models are {', '.join(names)}" if names else "there are no packaged models"
    raise PackageError(f"there is no file, folder or packaged model {str(source)!r}; {known}")


def _version_order(folder: Path) -> tuple[tuple[int, int | str], ...]:
    # Numbers compare as numbers (0.10 after 0.9), anything else as text before any number.
    return tuple((1, int(p)) if p.isdigit() else (0, p) for p in folder.name.split("."))


def _is_rdf_name(name: str) -> bool:
    return name.lower() in _RDF_NAMES or name.lower().endswith(_RDF_SUFFIXES)


def _has_rdf(folder: Path) -> bool:
    return folder.is_dir() and any(_is_rdf_name(p.name) for p in folder.iterdir())


def _rdf_in(folder: Path, source: str) -> Path:
    entries = sorted(folder.iterdir())
    found = [p for p in entries if p.is_file() and _is_rdf_name(p.name)]
    if not found and len(entries) == 1 and entries[0].is_dir():
        # A zip of a folder, as file managers make it.
        return _rdf_in(entries[0], source)
    if not found:
        listing = ", ".join(p.name for p in entries[:10]) or "nothing"
        more = ", ..." if len(entries) > 10 else ""
        raise PackageError(
            f"{source} is not a bioimage.io package: it has no rdf.yaml or bioimageio.yaml; it has {listing}{more}"
        )
    return min(found, key=lambda p: _RDF_NAMES.index(p.name.lower()) if p.name.lower() in _RDF_NAMES else 99)


def _load(rdf: Path, source: str, remove: Callable[[], None] | None) -> Package:
    raw = _read_rdf(rdf, source)
    package = Package(source, rdf.parent.resolve(), _describe(raw, rdf, source), raw, remove)
    _ = package.before_rdf, package.outputs, package.grouping  # which are refused here if they are not valid
    if not package.weights:
        raise PackageError(_no_weights(package))
    return package


def _read_rdf(rdf: Path, source: str) -> dict[str, Any]:
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


def _describe(raw: dict[str, Any], rdf: Path, source: str) -> "ModelDescr":
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


def _library(weights_format: str) -> str | None:
    """The first library that is installed here and runs a format."""
    return next((n for n in _LIBRARIES[weights_format] if importlib.util.find_spec(n) is not None), None)


def _no_weights(package: Package) -> str:
    """What the package lacks to be run here, in a sentence."""
    missing, needed, others = [], [], []
    for name in package.formats():
        if name not in WEIGHTS_FORMATS:
            others.append(name)
        elif _library(name) is None:
            needed.append(name)
        else:
            missing.append(str(package.weights_entry(name).source))
    if missing:
        return (
            f"{package.source}: files are missing: {', '.join(missing)}; nothing is fetched from the network, so "
            "download the complete package"
        )
    if needed:
        library = _LIBRARIES[needed[0]][0]
        extra = "tensorflow" if library == "keras" else library
        return (
            f"{package.source}: needs {library}, which runs its {', '.join(needed)} weights: pip install "
            f"'im2im_zoo[{extra}]'; ONNX or TorchScript weights would need nothing"
        )
    return (
        f"{package.source}: its weights are of the format {', '.join(others)}; "
        f"this program runs {', '.join(WEIGHTS_FORMATS)}"
    )


def _hashed_files(description: "ModelDescr") -> list[tuple[str, str]]:
    return sorted(set(_walk_hashed(description.model_dump(mode="json", exclude_none=True))))


def _walk_hashed(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if isinstance(value.get("source"), str) and isinstance(value.get("sha256"), str):
            yield value["source"], value["sha256"]
        for inner in value.values():
            yield from _walk_hashed(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk_hashed(inner)
