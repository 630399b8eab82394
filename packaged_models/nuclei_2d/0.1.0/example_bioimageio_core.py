"""Nuclei in 2D fluorescence with bioimageio.core (pip install bioimageio.core onnxruntime)."""

from pathlib import Path

import numpy as np
from bioimageio.core import predict
from bioimageio.core.digest_spec import create_sample_for_model
from bioimageio.spec import load_model_description

PACKAGE = Path(__file__).resolve().parent
IMAGE = PACKAGE / "test_input.npy"  # or an image of yours: batch, channel, y, x

model = load_model_description(PACKAGE / "rdf.yaml")
sample = create_sample_for_model(model, inputs={'image': np.load(IMAGE)})
result = predict(model=model, inputs=sample).members['probability'].data
print('probability', dict(result.sizes), "from", float(result.min()), "to", float(result.max()))
