"""Scan an ONNX file, without loading it, for the files beside it that it needs and for huge constants.

Reads protocol buffers by hand, since running packages does not need the library onnx. Numbers of fields are those of onnx.proto.
"""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_INT64 = 7
# Elements: 8 GiB of float32. No network of images holds such a constant.
MAX_ELEMENTS = 2**31
# Operators that make an array of the shape that one of their inputs gives, and which one.
_SHAPED_BY = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Resize": 3}
_SHAPED = ("RandomNormal", "RandomUniform")
_MAX_DEPTH = 32

Span = tuple[int, int]


@dataclass
class OnnxRequirements:
    """Requirements of loading an ONNX file.

    Attributes:
        external: paths of other files with weights.
        huge: operators or tensors of more than `MAX_ELEMENTS` values, with their shapes.
    """

    external: list[str] = field(default_factory=list)
    huge: list[str] = field(default_factory=list)


def scan_onnx(path: Path) -> OnnxRequirements:
    """Scan an ONNX file.

    Raises:
        ValueError: it is no protocol buffer as ONNX writes it.
    """
    found = OnnxRequirements()
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(data, found)
            for number, span in _messages(data, (0, len(data))):
                if number == 7:
                    reader.graph(span, 0)
                elif number == 25:  # functions
                    reader.nodes(span, 7, {}, 0)
    return found


@dataclass
class _Reader:
    data: mmap.mmap
    found: OnnxRequirements

    def graph(self, span: Span, depth: int) -> None:
        """A GraphProto: its initializers, then its nodes, which refer to them."""
        shapes: dict[str, list[int]] = {}
        for number, inner in _messages(self.data, span):
            if number == 5:
                self._tensor(inner, shapes)
            elif number == 15:
                self._sparse(inner, shapes)
        self.nodes(span, 1, shapes, depth)

    def nodes(self, span: Span, number: int, shapes: dict[str, list[int]], depth: int) -> None:
        """The NodeProtos of a graph or function."""
        if depth > _MAX_DEPTH:
            raise ValueError("its graphs are nested too deeply")
        for field_number, node in _messages(self.data, span):
            if field_number == number:
                self._node(node, shapes, depth)

    def _node(self, span: Span, shapes: dict[str, list[int]], depth: int) -> None:
        inputs, outputs, operator = list[str](), list[str](), ""
        for number, inner in _messages(self.data, span):
            if number == 1:
                inputs.append(self._text(inner))
            elif number == 2:
                outputs.append(self._text(inner))
            elif number == 4:
                operator = self._text(inner)
        for number, inner in _messages(self.data, span):
            if number == 5:
                self._attribute(inner, operator, outputs, shapes, depth)
        which = _SHAPED_BY.get(operator)
        if which is not None and which < len(inputs) and inputs[which] in shapes:
            self._count(f"the operator {operator}", shapes[inputs[which]])

    def _attribute(
        self, span: Span, operator: str, outputs: list[str], shapes: dict[str, list[int]], depth: int
    ) -> None:
        numbers = list[int]()
        for number, value in _fields(self.data, span):
            if isinstance(value, int):
                if number == 8:
                    numbers.append(value)
            elif number in (6, 11):
                self.graph(value, depth + 1)
            elif number in (5, 10):
                self._tensor(value, shapes, outputs[0] if outputs and operator == "Constant" else "")
            elif number in (22, 23):
                self._sparse(value, shapes)
            elif number == 8:
                numbers += _packed(self.data, value)
        if operator in _SHAPED and numbers:
            self._count(f"the operator {operator}", numbers)
        elif operator == "Constant" and numbers and outputs:
            shapes[outputs[0]] = numbers

    def _tensor(self, span: Span, shapes: dict[str, list[int]], name: str = "") -> None:
        dims, kind, values = list[int](), 0, list[int]()
        raw: Span | None = None
        for number, value in _fields(self.data, span):
            if isinstance(value, int):
                if number == 1:
                    dims.append(value)
                elif number == 2:
                    kind = value
                elif number == 7:
                    values.append(value)
            elif number == 1:
                dims += _packed(self.data, value)
            elif number == 7 and value[1] - value[0] < 1024:
                values += _packed(self.data, value)
            elif number == 8:
                name = name or self._text(value)
            elif number == 9:
                raw = value
            elif number == 13:
                self._external(value)
        self._count(f"the tensor {name!r}", dims)
        if kind == _INT64 and raw is not None and raw[1] - raw[0] <= 128:
            content = self.data[raw[0] : raw[1]]
            values = [
                int.from_bytes(content[i : i + 8], "little", signed=True) for i in range(0, len(content), 8)
            ]
        if kind == _INT64 and values:
            shapes[name] = values

    def _sparse(self, span: Span, shapes: dict[str, list[int]]) -> None:
        """A SparseTensorProto: its values and indices."""
        for number, tensor in _messages(self.data, span):
            if number in (1, 2):
                self._tensor(tensor, shapes)

    def _external(self, span: Span) -> None:
        entry = {number: self._text(inner) for number, inner in _messages(self.data, span)}
        if entry.get(1) == "location":
            self.found.external.append(entry.get(2, ""))

    def _count(self, what: str, shape: list[int]) -> None:
        if math.prod(abs(n) for n in shape) > MAX_ELEMENTS:
            self.found.huge.append(f"{what} has the shape {'x'.join(map(str, shape))}")

    def _text(self, span: Span) -> str:
        return self.data[span[0] : span[1]].decode("utf-8", errors="replace")


def _messages(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """The fields of a message that have a length: messages, strings and bytes."""
    for number, value in _fields(data, span):
        if not isinstance(value, int):
            yield number, value


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: a number, or where the content lies."""
    at, end = span
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at, end)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at, end)
            if at + length > end:
                raise ValueError("it is cut short or damaged")
            yield number, (at, at + length)
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("it is no protocol buffer")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            # int64 is written as its two's complement
            return value - 2**64 if value >= 2**63 else value, at
    raise ValueError("it is cut short or no protocol buffer")


def _packed(data: mmap.mmap, span: Span) -> list[int]:
    at, end = span
    values = []
    while at < end:
        value, at = _varint(data, at, end)
        values.append(value)
    return values
