import { describe, expect, it } from "vitest";
import { components } from "../src/components";
import type { Facts } from "../src/facts";
import type { NetworkTensor } from "../src/network";
import type { Tensor } from "../src/tensor";
import { checkTest, type Plane, predict, type RunNetwork } from "../src/predict";

const RADIUS = 5;

/** A sum over (2 RADIUS + 1)² voxels of all channels, with zeros beyond the ends, on tensors of the axes given. */
function convolution(axes: string[]): RunNetwork {
  return async ({ shape, data }: NetworkTensor): Promise<NetworkTensor[]> => {
    const size = (axis: string): number => shape[axes.indexOf(axis)]!;
    const stride = (axis: string): number => shape.slice(axes.indexOf(axis) + 1).reduce((a, b) => a * b, 1);
    const [height, width, channels] = [size("y"), size("x"), size("channel")];
    expect([height % 8, width % 8]).toEqual([0, 0]);
    const out = new Float32Array(height * width);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let j = Math.max(0, y - RADIUS); j <= Math.min(height - 1, y + RADIUS); j++) {
          for (let i = Math.max(0, x - RADIUS); i <= Math.min(width - 1, x + RADIUS); i++) {
            for (let c = 0; c < channels; c++) {
              sum += (c + 1) * data[c * stride("channel") + j * stride("y") + i * stride("x")]! * (1 + ((j - y) * 3 + (i - x)) / 64);
            }
          }
        }
        out[y * width + x] = sum;
      }
    }
    return [{ dtype: "float32", shape: axes.map((axis) => (axis === "channel" ? 1 : size(axis))), data: out }];
  };
}

function factsOf(axes: string[], halo: number): Facts {
  const axis = { grid: { min: 24, step: 8, fixed: false }, halo, cut: true };
  return {
    input: {
      id: "image", axes, dtype: "uint16", channels: ["a", "b"], pad: "reflect", pixelSize: null,
      operations: [{ id: "scale_range", kwargs: { axes: ["y", "x"], min_percentile: 1, max_percentile: 99, eps: 1e-6 } }],
    },
    outputs: [{ id: "map", axes, dtype: "float32", channels: ["map"], operations: [{ id: "scale_linear", kwargs: { gain: 0.01, offset: 1 } }] }],
    y: axis, x: axis, tilesDiffer: null, test: null,
  } as unknown as Facts;
}

function planeOf(height: number, width: number): Plane {
  const channel = (seed: number): Uint16Array => new Uint16Array(height * width).map((_, i) => ((i * 7919 + seed) % 4001) + (i % width) * 10);
  return { height, width, dtype: "uint16", channels: [channel(1), channel(500)] };
}

function largestDifference(one: Tensor, two: Tensor): number {
  return Math.max(...Array.from(one.data, (value, i) => Math.abs(value - two.data[i]!)));
}

describe("tiles", () => {
  it.each([
    ["channels first", ["batch", "channel", "y", "x"]],
    ["channels last", ["batch", "y", "x", "channel"]],
  ])("give the values of the whole image, %s", async (_, axes) => {
    for (const [height, width] of [[61, 90], [24, 24], [17, 130]] as const) {
      const plane = planeOf(height, width);
      const counts: number[] = [];
      const results: Tensor[] = [];
      for (const limit of [40 * 40, 1e9]) {
        let tiles = 0;
        results.push(await predict(factsOf(axes, RADIUS), plane, 0, convolution(axes), limit, ({ total }) => (tiles = total)));
        counts.push(tiles);
      }
      expect(counts[1]).toBe(1);
      expect(counts[0]).toBeGreaterThan(height * width > 600 ? 1 : 0);
      expect(results[0]!.data.length).toBe(height * width);
      expect(largestDifference(results[0]!, results[1]!)).toBeLessThan(1e-5);
    }
  });

  it("differ if the halo is too small, so that the comparison means something", async () => {
    const axes = ["batch", "channel", "y", "x"];
    const plane = planeOf(61, 90);
    const run = (limit: number): Promise<Tensor> => predict(factsOf(axes, 0), plane, 0, convolution(axes), limit, () => undefined);
    expect(largestDifference(await run(1600), await run(1e9))).toBeGreaterThan(1e-3);
  });

  it("are one where the network needs the whole image", async () => {
    const axes = ["batch", "channel", "y", "x"];
    let tiles = 0;
    await predict({ ...factsOf(axes, RADIUS), tilesDiffer: "it pools everything" }, planeOf(61, 90), 0, convolution(axes), 1600, ({ total }) => (tiles = total));
    expect(tiles).toBe(1);
  });

  it("of another size than the package declares are refused", async () => {
    const axes = ["batch", "channel", "y", "x"];
    const halving: RunNetwork = async ({ shape }) => [{ dtype: "float32", shape: [1, 1, shape[2]! / 2, shape[3]! / 2], data: new Float32Array(shape[2]! * shape[3]! / 4) }];
    await expect(predict(factsOf(axes, 0), planeOf(32, 32), 0, halving, 1e9, () => undefined)).rejects.toThrow(/the network returns 16 x 16 pixels for 32 x 32/);
  });
});

describe("the check on the package's test image", () => {
  const axes = ["batch", "channel", "y", "x"];
  const facts = {
    ...factsOf(axes, 0),
    input: { ...factsOf(axes, 0).input, operations: [] },
    outputs: [{ id: "map", axes, dtype: "float32", channels: ["map"], operations: [] }],
    test: { shape: [1, 1, 2, 4], expected: [[1, 1, 2, 4]], absolute: 1e-4, relative: 1e-3, perMillion: 100 },
  } as unknown as Facts;
  const values = Float64Array.from([1, 2, 3, 4, 5, 6, 7, 8]);
  const same: RunNetwork = async ({ shape, data }) => [{ dtype: "float32", shape, data: Float32Array.from(data) }];

  it("agrees with equal values, and not with others or with NaN", async () => {
    const expected = Float32Array.from(values);
    expect(await checkTest(facts, values.buffer, [expected.buffer], same)).toEqual({ largest: 0, perMillion: 0, agrees: true });
    expected[3] = 4.1;
    expect((await checkTest(facts, values.buffer, [expected.buffer], same)).agrees).toBe(false);
    expected[3] = NaN;
    expect((await checkTest(facts, values.buffer, [expected.buffer], same)).agrees).toBe(false);
  });
});

describe("connected components", () => {
  it("are numbered in raster order, joined through faces, without small ones", () => {
    const map = [
      [0, 1, 0, 0, 1, 1],
      [1, 1, 0, 0, 0, 1],
      [0, 0, 1, 0, 0, 1],
      [1, 0, 1, 1, 1, 1],
    ];
    const { values, count } = components(map.flat(), 4, 6, 0.5, 2);
    expect(count).toBe(2);
    expect([...values]).toEqual([0, 1, 0, 0, 2, 2, 1, 1, 0, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 2, 2, 2]);
  });

  it("join what meets below, as in a U", () => {
    const { values, count } = components([1, 0, 1, 1, 0, 1, 1, 1, 1], 3, 3, 0.5, 1);
    expect(count).toBe(1);
    expect([...values]).toEqual([1, 0, 1, 1, 0, 1, 1, 1, 1]);
  });
});
