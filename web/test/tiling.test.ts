import { describe, expect, it } from "vitest";
import { atLeast, candidates, padded, planTiles, spans, tileNeeded } from "../src/tiling";

const GRID = { min: 48, step: 16, fixed: false };

/** A random number generator with a fixed seed. */
function random(seed: number): () => number {
  return () => ((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32);
}

describe("tiles along an axis", () => {
  it("keep every voxel once, with the halo inside the computed region, on the grid and within the padded image", () => {
    const next = random(1);
    for (let trial = 0; trial < 300; trial++) {
      const step = 2 ** Math.floor(next() * 6);
      const grid = { min: step * (1 + Math.floor(next() * 12)), step, fixed: false };
      const size = 1 + Math.floor(next() * 900);
      const halo = Math.floor(next() * 100);
      for (const { tile, cut } of candidates({ size, halo, grid, cut: true })) {
        const found = spans(size, cut, tile, halo, grid);
        const end = atLeast(grid, size);
        const isSound = found.every(
          (span, i) =>
            (i === 0 || span.start === found[i - 1]!.stop) &&
            span.outerStop - span.outerStart === tile &&
            span.outerStart % step === 0 &&
            span.outerStart <= Math.max(0, span.start - halo) &&
            span.outerStop >= Math.min(end, span.stop + halo) &&
            span.outerStart >= 0 &&
            span.outerStop <= end,
        );
        if (!isSound || found[0]!.start !== 0 || found.at(-1)!.stop !== size) {
          throw new Error(`unsound tiles ${JSON.stringify({ grid, size, halo, tile, cut, found })}`);
        }
      }
    }
  });

  it("are one tile where the image is small", () => {
    expect(tileNeeded(40, 48, 8, GRID)).toBe(48);
    expect(planTiles({ size: 40, halo: 8, grid: GRID, cut: true }, { size: 40, halo: 8, grid: GRID, cut: true }, 1e6)).toEqual({
      y: [{ start: 0, stop: 40, outerStart: 0, outerStop: 48 }],
      x: [{ start: 0, stop: 40, outerStart: 0, outerStop: 48 }],
      tile: { y: 48, x: 48 },
    });
  });

  it("stay below the limit of voxels", () => {
    const axis = { size: 4096, halo: 88, grid: { min: 192, step: 16, fixed: false }, cut: true };
    const { tile } = planTiles(axis, axis, 1024 * 1024);
    expect(tile.y * tile.x).toBeLessThanOrEqual(1024 * 1024);
    expect(tile.y * tile.x).toBeGreaterThan(700 * 700);
  });

  it("are refused where the halo leaves nothing of a fixed size", () => {
    const axis = { size: 300, halo: 64, grid: { min: 128, step: 32, fixed: true }, cut: true };
    expect(() => planTiles(axis, axis, 1e6)).toThrow(/takes only 128 voxels along y, and a halo of 64 leaves nothing/);
  });
});

describe("padding", () => {
  it("mirrors as numpy does", () => {
    expect([...padded(-3, 7, 4, "reflect")]).toEqual([3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
    expect([...padded(-3, 7, 4, "symmetric")]).toEqual([2, 1, 0, 0, 1, 2, 3, 3, 2, 1]);
    expect([...padded(-2, 6, 4, "edge")]).toEqual([0, 0, 0, 1, 2, 3, 3, 3]);
    expect([...padded(0, 9, 2, "reflect")]).toEqual([0, 1, 0, 1, 0, 1, 0, 1, 0]);
    expect([...padded(0, 3, 1, "reflect")]).toEqual([0, 0, 0]);
  });
});
