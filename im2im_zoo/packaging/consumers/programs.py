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
from im2im_zoo.packaging.consumers.torchscript_ops import needed_torch

Verdict = Literal["runs", "differs", "cannot", "unknown"]
_ORDER: tuple[Verdict, ...] = ("cannot", "unknown", "differs", "runs")
_PER_IMAGE = ("scale_mean_variance", "scale_range", "zero_mean_unit_variance")


@dataclass(frozen=True, slots=True)
class ConsumerVerdict:
    """Verdict on a program for a package with the weights of one format.

    Attributes:
        consumer: the program.
        version: its version that was run, or whose source was read.
        weights_format: the format.
        verdict: "runs"; "differs": it runs with another result; "cannot"; "unknown".
        reason: reason of the verdict; for "runs", how it is known.
        change: remedy, empty if there is none.
        checked: "run"; "read only": by its source, the program was not run.
    """

    consumer: str
    version: str
    weights_format: str
    verdict: Verdict
    reason: str
    change: str
    checked: Literal["run", "read only"] = "read only"

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
        version = tried_version(rule["ran"]) if "ran" in rule else str(rule["read_only"])
        ran = _tried(rule["ran"])["packages"] if "ran" in rule else ()
        version = version.removeprefix(f"{rule['consumer']} ")
        common = [*_judge_format(rule, package), *_judge_tensors(rule, package), *_judge_sizes(rule, package)]
        common += [*_judge_operations(rule, package), *_judge_outside_rdf(package)]
        for name in package.formats():
            checked: Literal["run", "read only"] = "run" if name in ran else "read only"
            judgements = [*common, *_judge_weights(rule, package, name)]
            worst: Verdict = min((s.verdict for s in judgements), key=_ORDER.index, default="runs")
            decisive = list(dict.fromkeys(s for s in judgements if s.verdict == worst)) if judgements else []
            reasons = [*([_HOW_KNOWN[checked]] if worst == "runs" else []), *(s.reason for s in decisive)]
            change = "; ".join(dict.fromkeys(s.change for s in decisive if s.change))
            table.append(
                ConsumerVerdict(rule["consumer"], version, name, worst, "; ".join(reasons), change, checked)
            )
    return tuple(table)


_HOW_KNOWN = {"run": "as it does in our tests", "read only": "by its source; it is not run here"}


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
    maps = [k for k in ("covers", "documentation") if _has_mapping(raw.get(k))]
    if rule.get("plain_files") and maps:
        names = " and ".join(maps)
        change = f"write {names} as strings, and an older format_version"
        yield _Judgement("cannot", f"it reads {names} as plain file names only", change)
        raw |= {"covers": ["cover"], "documentation": "text"}  # these are reported above
    if not str(raw["format_version"]).startswith("0.5"):
        return  # older ones are upgraded by all
    newest, needed = rule.get("spec"), oldest_format(raw)
    if newest and version_key(needed) > version_key(newest):
        yield _Judgement("cannot", f"the RDF needs model format {needed}; it knows up to {newest}")


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
    """Yield problems of a program with the sizes that the network accepts."""
    sizes = {
        str(axis.id): axis.size for tensor in package.inputs for axis in tensor.axes if axis.type == "space"
    }
    if rule.get("whole") == "padded":
        yield from _judge_padding(package, sizes)
    if rule.get("tiles") != "multiples":
        return
    for axis, size in sizes.items():
        smallest, step = getattr(size, "min", 0), getattr(size, "step", 1)
        if smallest % step:
            yield _Judgement(
                "cannot",
                f"its tiles are multiples of {step} along {axis}, the network accepts {smallest} + n x {step}",
            )


def _judge_padding(package: Package, sizes: Mapping[str, Any]) -> Iterator[_Judgement]:
    """Yield problems of a halo around the whole image with the sizes that the network accepts."""
    halos = {str(a.id): getattr(a, "halo", 0) for tensor in package.outputs for a in tensor.axes}
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


_FLAT = "predict stacks with im2im-zoo, bioimageio.core or ilastik"


def _judge_operations(rule: Mapping[str, Any], package: Package) -> Iterator[_Judgement]:
    before = [o for tensor in package.inputs for o in tensor.preprocessing]
    after = [o for tensor in package.outputs for o in tensor.postprocessing]
    known = {*rule.get("operations", [o.id for o in (*before, *after)]), *rule.get("ignored", ())}
    unknown: Verdict = rule.get("unknown", "cannot")
    omission = "it has no" if unknown == "cannot" else "it leaves out, with only a line in its log,"
    for operation in (*before, *after):
        if operation.id not in known:
            yield _Judgement(unknown, f"{omission} {operation.id}", _remedy(operation, operation in before))
        else:
            for form, change in _forms(operation):
                if form in rule.get("lacks", ()):
                    yield _Judgement(unknown, f"its {operation.id} has no {_FORMS[form]}", change)
    last = after[-1] if after else None
    if (
        last is not None
        and last.id == "ensure_dtype"
        and last.id in rule.get("ignored", ())
        and last.kwargs.dtype != "float32"
    ):
        yield _Judgement("differs", f"the result is float32, not {last.kwargs.dtype}")
    measured = [o.id for o in (*before, *after) if o.id in _PER_IMAGE]
    if rule.get("statistics") == "tile" and measured:
        yield _Judgement(
            "differs",
            f"on images larger than its tile {measured[0]} takes its statistics of each tile",
            "choose a tile as large as the image, or train with scale_linear, whose numbers are fixed",
        )


_FORMS = {
    "clip_percentiles": "percentiles",
    "clip_one_limit": "form with only one limit",
    "reference_tensor": "reference tensor",
    "many_thresholds": "threshold for each channel",
}


def _forms(operation: Any) -> Iterator[tuple[str, str]]:
    """Yield forms of an operation that some programs lack, with a remedy."""
    kwargs: Any = getattr(operation, "kwargs", None)
    if operation.id == "clip":
        if (
            getattr(kwargs, "min_percentile", None) is not None
            or getattr(kwargs, "max_percentile", None) is not None
        ):
            yield "clip_percentiles", "give its limits as numbers (min, max)"
        elif kwargs.min is None or kwargs.max is None:
            yield "clip_one_limit", "give it both limits (min, max)"
    if operation.id == "scale_range" and kwargs.reference_tensor is not None:
        yield "reference_tensor", "take the statistics of the tensor itself"
    if operation.id == "binarize" and not isinstance(kwargs.threshold, int | float):
        yield "many_thresholds", "give one threshold"


def _remedy(operation: Any, is_before: bool) -> str:
    if operation.id == "softmax":
        return "put the softmax into the network: im2im-zoo export does"
    if operation.id == "fixed_zero_mean_unit_variance":
        return "write it as scale_linear, gain 1 / std and offset -mean / std"
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
