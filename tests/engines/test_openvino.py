"""OpenVINO sends nothing to its makers."""

import importlib.util

import pytest

from im2im_zoo.engines.openvino import import_openvino


@pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="OpenVINO is not installed")
def test_openvino_has_no_telemetry() -> None:
    import_openvino()
    from openvino.tools import ovc

    assert type(ovc.telemetry).__module__ == "openvino.tools.ovc.telemetry_stub"
