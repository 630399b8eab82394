"""Programs that run a package, by weight format, and differences of their results, by the rules in `consumers.yaml`.

No program is run here; `tests/consumers/` runs those that need no user, and writes `tried.yaml`.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from im2im_zoo.package import Package
from im2im_zoo.packaging.consumers.format_version import oldest_format, version_key
from im2im_zoo.packaging.consumers.operation_forms import FORMS, forms_of
from im2im_zoo.packaging.consumers.torchscript_ops import needed_torch

Verdict = Literal["runs", "differs", "cannot", "unknown"]
Checked = Literal["run", "modelled", "read only"]
_ORDER: tuple[Verdict, ...] = ("cannot", "unknown", "differs", "runs")
_PER_IMAGE = ("scale_mean_variance", "scale_range", "zero_mean_unit_variance")


@dataclass(frozen=True, slots=True)
class ConsumerVerdict:
    """Verdict on a program for a package with the weights of one format.

    Attributes:
        consumer: the program.
        version: its version that was run, modelled, or whose source was read.
        weights_format: the format.
        verdict: "runs"; "differs": it runs with another result; "cannot"; "unknown".
        reason: reason of the verdict; for "runs", how it is known.
        change: remedy, empty if there is none.
        checked: "run"; "modelled": a model of its rules runs packages in our tests, the program was not run; "read only": by its
            source.
        date: of the run, the model or the reading.
    """

    consumer: str
    version: str
    weights_format: str
    verdict: Verdict
    reason: str
    change: str
    checked: Checked = "read only"
    date: str = ""

    def plain(self) -> dict[str, str]:
        """Return the verdict as a mapping, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Judgement:
    verdict: Verdict
    reason: str
    change: str = ""


def consumer_table(package: Package) -> tuple[ConsumerVerdict, ...]:
    """Return the verdict on each program of `consumers.yaml` for each weight format of a package, in this order."""
    table = []
    for rule in consumer_rules():
        common = [*_judge_format(rule, package), *_judge_tensors(rule, package), *_judge_sizes(rule, package)]
        common += [*_judge_operations(rule, package), *_judge_outside_rdf(package)]
        for name in package.formats():
            version, checked, date = _how_checked(rule, name)
            judgements = [*common, *_judge_weights(rule, package, name)]
            worst: Verdict = min((s.verdict for s in judgements), key=_ORDER.index, default="runs")
            decisive = list(dict.fromkeys(s for s in judgements if s.verdict == worst)) if judgements else []
            reasons = [*([_HOW_KNOWN[checked]] if worst == "runs" else []), *(s.reason for s in decisive)]
            change = "; ".join(dict.fromkeys(s.change for s in decisive if s.change))
            table.append(
                ConsumerVerdict(
                    rule["consumer"], version, name, worst, "; ".join(reasons), change, checked, date
                )
            )
    return tuple(table)


_HOW_KNOWN: Mapping[Checked, str] = {
    "run": "as it does in our tests",
    "modelled": "by a model of its rules in our tests; it is not run here",
    "read only": "by its source; it is not run here",
}


def _how_checked(rule: Mapping[str, Any], weights_format: str) -> tuple[str, Checked, str]:
    """Return the version of a program, how its verdict for a weight format is known, and the date of that."""
    if "modelled" in rule:
        return str(rule["modelled"]), "modelled", str(rule["date"])
    if "read_only" in rule:
        return str(rule["read_only"]), "read only", str(rule["date"])
    version = tried_version(rule["ran"]).removeprefix(f"{rule['consumer']} ")
    tried = _tried(rule["ran"])
    return version, "run" if weights_format in tried["packages"] else "read only", str(tried["date"])


@functools.cache
def consumer_rules() -> tuple[Mapping[str, Any], ...]:
    """Return the rules, with the version of each program and their source."""
    return tuple(_read("consumers.yaml"))


@functools.cache
def tried_version(program: str) -> str:
    """Return the version of a program with which packages were run, from `tried.yaml`."""
    return str(_tried(program)["version"])


def _tried(program: str) -> Mapping[str, Any]:
    """Return the entry of a program in `tried.yaml`; its `packages` are counted by weight format."""
    return next(entry for entry in _read("tried.yaml") if entry["program"] == program)


def _read(name: str) -> list[Mapping[str, Any]]:
    text = (files("im2im_zoo.packaging.consumers") / name).read_text(encoding="utf-8")
    content: list[Mapping[str, Any]] = yaml.safe_load(text)
    return content


def _judge_format(rule: Mapping[str, Any], package: Package) -> Iterator[_Judgement]:
    """Yield problems of a program with the RDF itself."""
    raw = dict(package.raw)
    maps = [k for k in rule.get("plain_files", ()) if _has_mapping(raw.get(k))]
    if maps:
        names = " and ".join(maps)
        change = f"write {names} as strings, and an older format_version"
        yield _Judgement("cannot", f"it reads {names} as plain file names only", change)
        raw |= {"covers": ["cover"], "documentation": "text"}  # these are reported above
    stated = str(raw["format_version"])
    if "misread" in rule and stated == str(rule["misread"]):
        yield _Judgement(
            "cannot", f"it takes format_version {stated} for an older format", "write format_version 0.5.1"
        )
    if rule.get("named") and not _has_name(raw):
        yield _Judgement(
            "cannot",
            "it opens no package that has neither an id nor config.bioimageio.nickname",
            "write a nickname: im2im-zoo export does",
        )
    if not stated.startswith("0.5"):
        return  # older ones are upgraded by all
    newest, needed = rule.get("spec"), oldest_format(raw)
    if newest and version_key(needed) > version_key(newest):
        yield _Judgement("cannot", f"the RDF needs model format {needed}; it knows up to {newest}")


def _has_name(raw: Mapping[str, Any]) -> bool:
    """Return whether JDLL finds a name for the package; it makes one up if there is no config at all."""
    config = raw.get("config")
    return raw.get("id") is not None or config is None or "nickname" in (config.get("bioimageio") or {})


def _has_mapping(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(map(_has_mapping, value)))


def _judge_tensors(rule: Mapping[str, Any], package: Package) -> Iterator[_Judgement]:
    counts = (len(package.inputs), len(package.outputs))
    for have, most, kind in zip(counts, rule.get("tensors", counts), ("input", "output"), strict=True):
        if have > most:
            yield _Judgement("cannot", f"it takes one {kind}, the package has {have}")
    tensors: list[Any] = [*package.inputs, *package.outputs]
    axes = [str(axis.id) for tensor in tensors for axis in tensor.axes]
    strange = [a for a in dict.fromkeys(axes) if a not in rule.get("axes", axes)]
    if strange:
        yield _Judgement("cannot", f"it has no axis {', '.join(strange)}", _FLAT if strange == ["z"] else "")


def _judge_sizes(rule: Mapping[str, Any], package: Package) -> Iterator[_Judgement]:
    """Yield problems of a program with the sizes that the network accepts, and with its tiles."""
    sizes = {
        str(axis.id): axis.size for tensor in package.inputs for axis in tensor.axes if axis.type == "space"
    }
    halos = {str(a.id): int(getattr(a, "halo", 0)) for tensor in package.outputs for a in tensor.axes}
    if rule.get("pixel_size") == "size_ratio":
        yield from _judge_pixel_size(package)
    if rule.get("whole") == "padded":
        yield from _judge_padding(package, sizes, halos)
    elif "whole" in rule:
        yield from _judge_mirroring(rule, package, halos)
    steps = {axis: getattr(size, "step", 1) for axis, size in sizes.items()}
    if rule.get("tiles") == "multiples" and any(n > 1 for n in steps.values()):
        shown = ", ".join(f"{n} along {axis}" for axis, n in steps.items() if n > 1)
        yield _Judgement(
            "runs",
            f"images of no multiple of the step ({shown}) get tiles off the network's grid: crop them to one",
        )
    if "largest" in rule:
        million = rule["largest"] // 10**6
        yield _Judgement("runs", f"images of more than {million} million voxels, halo included, never end")
    for axis, size in sizes.items():
        smallest, step = getattr(size, "min", 0), getattr(size, "step", 1)
        if rule.get("tiles") == "multiples" and smallest % step:
            yield _Judgement(
                "cannot",
                f"its tiles are multiples of {step} along {axis}, the network accepts {smallest} + n x {step}",
            )
    if "tile" in rule and set(sizes) <= set(rule["space"]):
        yield from _judge_tiles(rule, package, sizes, halos)


def _judge_pixel_size(package: Package) -> Iterator[_Judgement]:
    scales = {
        str(a.id): a.scale
        for tensor in package.outputs
        for a in tensor.axes
        if a.type == "space" and hasattr(a.size, "tensor_id") and a.scale != 1
    }
    if scales:
        stated = ", ".join(f"{scale:g} along {axis}" for axis, scale in scales.items())
        yield _Judgement(
            "cannot",
            f"it takes the pixel size of an output ({stated}) for a ratio of sizes, and fails on every image",
            "give it a copy whose rdf.yaml has no unit and scale in its axes",
        )


def _judge_padding(
    package: Package, sizes: Mapping[str, Any], halos: Mapping[str, int]
) -> Iterator[_Judgement]:
    """Yield problems of a halo around the whole image with the sizes that the network accepts."""
    off = [
        axis
        for axis, size in sizes.items()
        if (isinstance(size, int) and halos.get(axis, 0)) or 2 * halos.get(axis, 0) % getattr(size, "step", 1)
    ]
    if off:
        yield _Judgement(
            "differs",
            f"whole images fail: it puts the halo around them, to sizes along {', '.join(off)} that the network does not accept",
            "predict in blocks (bioimageio predict --blockwise)",
        )
    elif any(halos.values()):
        yield _Judgement(
            "runs",
            "whole images get the halo around them first, which their statistics and border then differ by a little",
        )


def _judge_mirroring(
    rule: Mapping[str, Any], package: Package, halos: Mapping[str, int]
) -> Iterator[_Judgement]:
    """Yield the effect of mirroring an image at its border."""
    to_tile = rule["whole"] == "mirrored_to_tile"
    if _takes_in_the_whole(package):
        how = "to the size of its tile" if to_tile else "by the halo or to a multiple of the step"
        yield _Judgement(
            "differs",
            f"each value depends on the whole image, which it mirrors at the border {how}",
            _WITH_OURS,
        )
    elif to_tile or any(halos.values()):
        yield _Judgement("runs", "images are mirrored at their border, where the result differs")


_WITH_OURS = "predict with im2im-zoo"


def _takes_in_the_whole(package: Package) -> bool:
    """Return whether each output value depends on the whole input; packages of other exporters do not say."""
    ours = (package.raw.get("config") or {}).get("im2im_zoo") or {}
    return bool(ours.get("receptive_field") == "global")


def _judge_tiles(
    rule: Mapping[str, Any], package: Package, sizes: Mapping[str, Any], halos: Mapping[str, int]
) -> Iterator[_Judgement]:
    """Yield problems of tiles that are a multiple of the smallest size, and do not overlap."""
    smallest = {axis: int(getattr(size, "min", size)) for axis, size in sizes.items()}
    tile = {axis: max(rule["tile"] // n, 1) * n for axis, n in smallest.items()}
    for axis, n in tile.items():
        step = getattr(sizes[axis], "step", 0)
        if (n - smallest[axis]) % step if step else n != smallest[axis]:
            accepted = f"{smallest[axis]} + n x {step}" if step else str(smallest[axis])
            yield _Judgement("cannot", f"its tiles are {n} along {axis}, the network accepts {accepted}")
    shown = " x ".join(str(tile[axis]) for axis in rule["space"] if axis in tile)
    larger = f"on images larger than its tile ({shown})"
    change = "choose a tile as large as the image (BioimageIoTools.buildPatchClassifierParams takes its size)"
    if any(halos.values()) or _takes_in_the_whole(package):
        yield _Judgement(
            "differs",
            f"{larger} there are seams: it reads no halo of this format, its tiles do not overlap",
            change,
        )
    tensors = ((t.preprocessing for t in package.inputs), (t.postprocessing for t in package.outputs))
    for operation in dict.fromkeys(o.id for part in tensors for found in part for o in found):
        if operation in _PER_IMAGE and operation in rule["operations"]:
            yield _Judgement("differs", f"{larger} {operation} takes its statistics of each tile", change)


_FLAT = "predict stacks with im2im-zoo, bioimageio.core or ilastik"


def _judge_operations(rule: Mapping[str, Any], package: Package) -> Iterator[_Judgement]:
    before = [(o, tensor) for tensor in package.inputs for o in tensor.preprocessing]
    after = [(o, tensor) for tensor in package.outputs for o in tensor.postprocessing]
    known = {*rule.get("operations", [o.id for o, _ in (*before, *after)]), *rule.get("ignored", ())}
    unknown: Verdict = rule.get("unknown", "cannot")
    omission = "it has no" if unknown == "cannot" else "it leaves out, with only a line in its log,"
    forms: Mapping[str, Verdict] = rule.get("forms", {})
    for operation, tensor in (*before, *after):
        if operation.id not in known:
            change = _remedy(operation, (operation, tensor) in before)
            yield _Judgement(unknown, f"{omission} {operation.id}", change)
            continue
        for form in forms_of(operation, tensor):
            if form in forms:
                reason, change = FORMS[form]
                yield _Judgement(forms[form], reason.format(id=operation.id), change)
    yield from _judge_result(rule, package)


def _judge_result(rule: Mapping[str, Any], package: Package) -> Iterator[_Judgement]:
    """Yield problems of a program with the type of an output."""
    for tensor in package.outputs:
        dtype = str(getattr(tensor.data, "type", "float32"))
        if dtype == "float32":
            continue
        if "result" in rule:
            yield _Judgement("cannot", f"it takes outputs of {rule['result']} only, {tensor.id} is {dtype}")
        elif "ensure_dtype" in rule.get("ignored", ()):
            yield _Judgement("differs", f"the result is float32, not {dtype}")


def _remedy(operation: Any, is_before: bool) -> str:
    if operation.id == "softmax":
        return "put the softmax into the network: im2im-zoo export does"
    if operation.id == "fixed_zero_mean_unit_variance":
        return "export again: im2im-zoo puts it into the network"
    if operation.id == "custom":
        return "export with --portable" if is_before else "run it on the output yourself"
    return f"export without {operation.id}"


def _judge_outside_rdf(package: Package) -> Iterator[_Judgement]:
    """Yield processing that the RDF cannot describe, which only im2im-zoo does."""
    custom = [o for operations in package.before_rdf.values() for o in operations if o.id == "custom"]
    if custom:
        names = ", ".join(dict.fromkeys(str(o.callable) for o in custom))
        yield _Judgement(
            "differs",
            f"it has to be given the image that {names} has processed",
            "export with --portable, or process the image as the README says",
        )
    if package.grouping is not None:
        yield _Judgement(
            "differs",
            "it gives the maps, not the labels that are made of them",
            f"run {package.grouping.source} of the package on the maps, as the README says",
        )


def _judge_weights(rule: Mapping[str, Any], package: Package, name: str) -> Iterator[_Judgement]:
    if name not in rule["weights"]:
        others = [w for w in rule["weights"] if w in FORMAT_NAMES]
        have = set(others) & set(package.formats())
        change = "" if have else f"export with --weights {others[0]}"
        yield _Judgement("cannot", f"it reads {', '.join(others)}", change)
        return
    entry = package.weights_entry(name)
    if "://" in str(entry.source):
        yield _Judgement("unknown", "its file is not in the package", "download the complete package")
        return
    if name == "onnx":
        yield from _judge_onnx(rule["weights"][name], package, entry)
    if name == "torchscript" and "torch" in rule["weights"][name]:
        newest, needed = rule["weights"][name]["torch"], needed_torch(package.path(entry))
        if needed > version_key(newest):
            yield _Judgement(
                "cannot",
                f"its torch is {newest}, these need {'.'.join(map(str, needed))}",
                "export again: traced weights need no newer torch, or use the onnx weights",
            )
    if name == "pytorch_state_dict":
        library = str(getattr(entry.architecture, "import_from", "torch")).split(".")[0]
        allowed = rule.get("libraries", ())
        if library != "torch" and allowed != "any" and library not in allowed:
            yield _Judgement(
                "cannot",
                f"its network is of {library}, which is not installed there",
                "use the torchscript or onnx weights",
            )


FORMAT_NAMES = ("onnx", "torchscript", "pytorch_state_dict")


def _judge_onnx(limits: Mapping[str, int], package: Package, entry: Any) -> Iterator[_Judgement]:
    newer = "export with --onnx-opset 17"
    opset: Any = getattr(entry, "opset_version", None)
    if limits.get("opset") and opset is None:
        yield _Judgement("unknown", "the RDF has no opset_version")
    elif limits.get("opset") and int(opset) > limits["opset"]:
        yield _Judgement("cannot", f"it reads up to opset {limits['opset']}, this is {opset}", newer)
    ir = onnx_ir_version(package.path(entry)) if limits.get("ir") else None
    if ir is not None and ir > limits["ir"]:
        yield _Judgement("cannot", f"it reads up to IR {limits['ir']}, this is {ir}", newer)


def onnx_ir_version(path: Path) -> int | None:
    """Return the IR version of an ONNX file, which is its first field; None if it is missing."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return None
    return start[1] if len(start) == 2 and start[0] == 0x08 and start[1] < 0x80 else None
