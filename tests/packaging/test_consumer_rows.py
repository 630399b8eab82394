"""Each program has one row, by the best of the weights that it reads."""

import dataclasses

from im2im_zoo.packaging.consumers.programs import ConsumerVerdict
from im2im_zoo.packaging.consumers.rows import ProgramRow, program_rows

ILASTIK = ConsumerVerdict(
    "ilastik (tiktorch)", "0.10.2", "torchscript", "runs", "as it does in our tests", "", "run"
)


def of(weights: str, verdict: str, reason: str, change: str = "") -> ConsumerVerdict:
    return dataclasses.replace(
        ILASTIK,
        weights_format=weights,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        change=change,
    )


def test_weights_that_a_program_never_reads_are_not_shown_as_a_fault() -> None:
    onnx = of("onnx", "cannot", "it reads torchscript, pytorch_state_dict")
    (row,) = program_rows([onnx, ILASTIK, of("pytorch_state_dict", "runs", ILASTIK.reason)])
    assert row == ProgramRow(
        "ilastik (tiktorch)",
        "0.10.2",
        "run",
        "runs",
        ("torchscript", "pytorch_state_dict"),
        ILASTIK.reason,
        "",
    )


def test_weights_that_a_program_reads_and_cannot_run_are_named() -> None:
    (row,) = program_rows([ILASTIK, of("pytorch_state_dict", "cannot", "its network is of monai")])
    assert row.verdict == "runs"
    assert row.weights == ("torchscript",)
    assert row.reason.endswith("not with pytorch_state_dict: its network is of monai")


def test_a_program_that_reads_none_of_the_weights_says_which_it_would() -> None:
    (row,) = program_rows([of("onnx", "cannot", "it reads torchscript", "export with --weights torchscript")])
    assert row == ProgramRow(
        "ilastik (tiktorch)",
        "0.10.2",
        "run",
        "cannot",
        (),
        "it reads torchscript",
        "export with --weights torchscript",
    )


def test_each_program_has_one_row_and_says_how_it_is_known() -> None:
    read = dataclasses.replace(ILASTIK, consumer="QuPath", version="0.8", checked="read only")
    rows = program_rows([ILASTIK, read])
    assert [(row.program, row.version, row.checked) for row in rows] == [
        ("ilastik (tiktorch)", "0.10.2", "run"),
        ("QuPath", "0.8", "read only"),
    ]
