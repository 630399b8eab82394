import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { watershed } from "../src/watershed";

interface Case {
  name: string;
  kwargs: Record<string, number>;
  shape: [number, number, number];
  levels: number;
  maps: number[];
  labels: number[];
}

const cases = JSON.parse(readFileSync(new URL("labels.json", import.meta.url), "utf8")) as Case[];

describe("a watershed gives the labels of the Python implementation", () => {
  it.each(cases.map((one) => [one.name, one] as const))("%s", (_, { kwargs, shape: [channels, height, width], levels, maps, labels }) => {
    const size = height * width;
    const arrays = Array.from({ length: channels }, (_, c) => Float32Array.from(maps.slice(c * size, (c + 1) * size), (value) => value / levels));
    const found = watershed(arrays, height, width, {
      channel: kwargs.channel ?? 0,
      seedThreshold: kwargs.seed_threshold!,
      foregroundThreshold: kwargs.foreground_threshold!,
      boundary: kwargs.boundary ?? null,
      affinities: kwargs.affinities ?? null,
      minSize: kwargs.min_size ?? 1,
    });
    expect(found.count).toBe(Math.max(...labels));
    expect([...found.values]).toEqual(labels);
  });
});
