import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Operation, OPERATION_IDS, process } from "../src/operations";
import { allocate, type Dtype, sizeOf, type Tensor } from "../src/tensor";

interface Case {
  name: string;
  operations: Operation[];
  axes: string[];
  shape: number[];
  dtype: Dtype;
  seed: number;
  expected: { dtype: string; places: number[]; values: number[] };
}

const { cases } = JSON.parse(readFileSync(new URL("operations.json", import.meta.url), "utf8")) as { cases: Case[] };

/** Return the values that `tests/web/operation_cases.py` makes of a seed. */
function pattern(name: string, axes: string[], shape: number[], dtype: Dtype, seed: number): Tensor {
  const data = allocate(dtype, sizeOf(shape));
  for (let i = 0; i < data.length; i++) {
    const value = (i * 7919 + seed * 104729) % 65521;
    if (dtype === "bool") data[i] = value % 2;
    else if (dtype === "uint8") data[i] = value % 256;
    else if (dtype === "int8") data[i] = (value % 256) - 128;
    else if (dtype === "uint16") data[i] = value;
    else if (dtype === "int16") data[i] = value - 32768;
    else if (dtype === "uint32" || dtype === "uint64") data[i] = value * 65521;
    else if (dtype === "int32" || dtype === "int64") data[i] = (value - 32768) * 65521;
    else data[i] = (value - 30000) / 8192;
  }
  return { name, axes, shape, dtype, data };
}

describe("operations give the values of the Python implementation", () => {
  it.each(cases.map((one) => [one.name, one] as const))("%s", (_, one) => {
    const tensor = pattern("image", one.axes, one.shape, one.dtype, one.seed);
    const reference = pattern("other", one.axes, one.shape, "float32", one.seed + 1);
    const before = tensor.data.slice();
    const found = process(one.operations, tensor, { image: tensor, other: reference });
    expect(found.dtype).toBe(one.expected.dtype);
    expect(found.axes).toEqual(one.axes);
    expect(found.data.length).toBe(before.length);
    const errors = one.expected.values.map((wanted, i) => Math.abs(found.data[one.expected.places[i]!]! - wanted) / Math.max(1, Math.abs(wanted)));
    expect(Math.max(...errors)).toBeLessThanOrEqual(1e-5);
    expect(tensor.data.every((value, i) => value === before[i])).toBe(true);
  });

  it("for every operation that the page has", () => {
    const tested = new Set(cases.flatMap((one) => one.operations.map((operation) => operation.id)));
    expect([...tested].sort()).toEqual([...OPERATION_IDS].sort());
  });
});

describe("operations refuse", () => {
  const nan = { ...pattern("image", ["y", "x"], [4, 4], "float32", 1), data: new Float32Array(16).fill(NaN) };

  it("statistics of NaN", () => {
    expect(() => process([{ id: "zero_mean_unit_variance", kwargs: { axes: null, eps: 1e-6 } }], nan)).toThrow(/operation 1 .*not finite/);
    expect(() => process([{ id: "scale_range", kwargs: { axes: null, eps: 1e-6, min_percentile: 0, max_percentile: 100 } }], nan)).toThrow(/not finite/);
  });

  it("NaN as an integer", () => {
    expect(() => process([{ id: "ensure_dtype", kwargs: { dtype: "uint8" } }], nan)).toThrow(/holds NaN/);
  });

  it("an operation that they do not know", () => {
    expect(() => process([{ id: "constructor" }], nan)).toThrow(/is not an operation that this page can do/);
  });

  it("values for another number of channels", () => {
    const tensor = pattern("image", ["channel", "y", "x"], [3, 2, 2], "uint8", 1);
    expect(() => process([{ id: "scale_linear", kwargs: { axis: "channel", gain: [1, 2], offset: [0, 0] } }], tensor)).toThrow(
      /2 values are given along the axis channel, but the tensor image has 3/,
    );
  });
});
