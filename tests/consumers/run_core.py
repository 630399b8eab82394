"""Run a package in the bioimageio.core of this environment: `python run_core.py PACKAGE FORMAT...` prints JSON.

`--versions` prints its version, and those of the libraries that it runs with, in one line.
Needs nothing of im2im_zoo: it runs in environments without it. The test image goes in as it is, and as other types that hold
the same values; what comes out is compared with the test output.
"""

import inspect
import json
import platform
import sys
import warnings
from importlib import metadata

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from bioimageio.core import PredictionPipeline, create_prediction_pipeline  # noqa: E402
from bioimageio.core.digest_spec import create_sample_for_model, get_member_id  # noqa: E402
from bioimageio.spec import InvalidDescr, load_description  # noqa: E402
from bioimageio.spec.utils import load_array  # noqa: E402

# Newer versions put the halo around a whole image first, which changes values near its border: without it, as their own test of a
# model does, and with it, which has to run.
METHOD = PredictionPipeline.predict_sample_without_blocking
PADS = "skip_input_padding" in inspect.signature(METHOD).parameters
WAYS = ({"skip_input_padding": True, "skip_output_cropping": True}, {}) if PADS else ({},)
TYPES = ("uint8", "int16", "uint16", "int32", "float32")


def same_values(image: np.ndarray) -> dict[str, np.ndarray]:
    """The image in every type that holds its values exactly."""
    cast = {name: image.astype(name) for name in TYPES}
    return {image.dtype.name: image, **{n: a for n, a in cast.items() if np.array_equal(a, image)}}


def main(source: str, formats: list[str]) -> None:
    model = load_description(source)
    if isinstance(model, InvalidDescr):
        errors = [
            f"{'.'.join(map(str, e.loc))}: {e.msg}"
            for d in model.validation_summary.details
            for e in d.errors
        ]
        sys.exit("it is not valid: " + "; ".join(errors[:5]))
    (source_tensor,), (result_tensor,) = model.inputs, model.outputs
    image, expected = load_array(source_tensor.test_tensor), load_array(result_tensor.test_tensor)
    found = {}
    for name in formats:
        pipeline = create_prediction_pipeline(model, weight_format=name)
        for kind, array in same_values(image).items():
            sample = create_sample_for_model(model, inputs={get_member_id(source_tensor): array})
            results = [pipeline.predict_sample_without_blocking(sample, **options) for options in WAYS]
            arrays = [np.asarray(r.members[get_member_id(result_tensor)].data) for r in results]
            if any(a.shape != expected.shape for a in arrays):
                sys.exit(f"{name}, {kind}: shapes are {[a.shape for a in arrays]}, not {expected.shape}")
            got = arrays[0].astype(np.float64)
            found[f"{name} {kind}"] = float(np.abs(got - expected).max() / (np.abs(expected).max() or 1))
    sys.stdout.write(f"RESULT {json.dumps(found)}\n")


def versions() -> str:
    names = ("bioimageio.core", "bioimageio.spec", "onnxruntime", "torch")
    return ", ".join([*(f"{n} {metadata.version(n)}" for n in names), f"Python {platform.python_version()}"])


if __name__ == "__main__":
    if sys.argv[1:] == ["--versions"]:
        sys.stdout.write(versions() + "\n")
        sys.exit()
    main(sys.argv[1], sys.argv[2:])
