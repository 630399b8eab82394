"""`im2im-zoo export` and `validate` say which programs run the package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_the_table_is_printed_as_a_table_and_as_json(cli: Cli, tiny_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "package"
    done = cli("export", tiny_run, "--output", output, "--weights", "torchscript", "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert Path(content["package"]) == output
    verdicts = {c["consumer"]: c["verdict"] for c in content["consumers"]}
    assert verdicts["ilastik (tiktorch)"] == verdicts["bioimageio.core"] == "runs"
    page = cli("validate", output, "--no-core").out
    for name in verdicts:
        assert name in page


@pytest.mark.parametrize("opset", ["16", "24", "latest"])
def test_an_opset_that_is_none_is_refused_before_anything_is_done(
    cli: Cli, tmp_path: Path, opset: str
) -> None:
    done = cli("export", tmp_path, "--output", tmp_path / "p", "--onnx-opset", opset)
    assert done.code == 2
    assert "17 to 23" in " ".join(done.err.split())
