/** Tiles along one axis, as `im2im_zoo/runtime/layout/tiling.py` cuts them: every voxel is kept once, sizes stay on the grid. */

import { UserError } from "./tensor";

/** Sizes that the network takes along an axis: `min + n * step`; if `fixed`, tiles have the size `min` only. */
export interface Grid {
  min: number;
  step: number;
  fixed: boolean;
}

/** One tile along one axis, in voxels of the image: the region that is kept, and the one that is computed. */
export interface Span {
  start: number;
  stop: number;
  outerStart: number;
  outerStop: number;
}

/** One way to cut an axis. */
export interface Cut {
  tile: number;
  count: number;
  cut: number;
}

/** The tiles of an image along both axes. */
export interface Tiling {
  y: Span[];
  x: Span[];
  tile: { y: number; x: number };
}

/** An axis of the image that is to be cut. */
export interface AxisToCut {
  size: number;
  halo: number;
  grid: Grid;
  /** Whether it may be cut at all. */
  cut: boolean;
}

export function atLeast(grid: Grid, size: number): number {
  return grid.min + Math.max(0, Math.ceil((size - grid.min) / grid.step)) * grid.step;
}

function begin(start: number, halo: number, grid: Grid): number {
  return Math.floor(Math.max(0, start - halo) / grid.step) * grid.step;
}

/** Return the tiles that keep `cut` voxels each. The last ones are moved inwards, so that they stay in the padded image. */
export function spans(size: number, cut: number, tile: number, halo: number, grid: Grid): Span[] {
  const padded = atLeast(grid, size);
  const result: Span[] = [];
  for (let start = 0; start < size; start += cut) {
    const outerStart = Math.min(begin(start, halo, grid), padded - tile);
    result.push({ start, stop: Math.min(start + cut, size), outerStart, outerStop: outerStart + tile });
  }
  return result;
}

/** Return the smallest tile of the grid of which `cut` voxels can be kept. */
export function tileNeeded(size: number, cut: number, halo: number, grid: Grid): number {
  const padded = atLeast(grid, size);
  const first = Math.ceil(halo / cut) * cut;
  const last = Math.floor((size - 1) / cut) * cut;
  const starts = [Math.min(Math.max(first - cut, 0), last), Math.min(first, last)];
  return atLeast(grid, Math.max(...starts.map((s) => Math.min(padded, s + cut + halo) - begin(s, halo, grid))));
}

/** Return all ways to cut an axis that are worth considering, from one tile to the most. */
export function candidates({ size, halo, grid, cut: mayCut }: AxisToCut): Cut[] {
  const cuts = Math.ceil(size / grid.step);
  const found: Cut[] = [];
  let previous = 0;
  let count = 1;
  while (count <= cuts) {
    const units = Math.ceil(cuts / count);
    const cut = units * grid.step;
    const tile = tileNeeded(size, cut, halo, grid);
    if (grid.fixed) {
      if (tile === grid.min) return [{ tile, count: Math.ceil(size / cut), cut }];
    } else if (tile !== previous) {
      found.push({ tile, count: Math.ceil(size / cut), cut });
      previous = tile;
    }
    if (units === 1) break;
    count = Math.ceil(cuts / (units - 1));
  }
  return mayCut ? found : found.slice(0, 1);
}

/**
 * Cut an image into tiles of at most `limit` voxels with the least computation; of equal ways, the one with the fewest tiles.
 * If no way has so few voxels, take the one with the smallest tiles.
 */
export function planTiles(y: AxisToCut, x: AxisToCut, limit: number): Tiling {
  const ways = [named("y", y), named("x", x)] as const;
  let best: [Cut, Cut] | null = null;
  let bestKey = [Infinity, Infinity, Infinity];
  for (const a of ways[0]) {
    for (const b of ways[1]) {
      const voxels = a.tile * b.tile;
      const count = a.count * b.count;
      const over = voxels > limit;
      const key = over ? [1, voxels, count] : [0, count > 1 ? voxels * (2 * count + 1) : 0, count];
      if (isLess(key, bestKey)) [best, bestKey] = [[a, b], key];
    }
  }
  const [a, b] = best!;
  return {
    y: spans(y.size, a.cut, a.tile, y.halo, y.grid),
    x: spans(x.size, b.cut, b.tile, x.halo, x.grid),
    tile: { y: a.tile, x: b.tile },
  };
}

function named(name: string, axis: AxisToCut): Cut[] {
  const found = candidates(axis);
  if (found.length === 0) {
    throw new UserError(
      `the network takes only ${axis.grid.min} voxels along ${name}, and a halo of ${axis.halo} leaves nothing of them: use im2im-zoo predict`,
    );
  }
  if (!axis.cut && found[0]!.count > 1) {
    throw new UserError(`the network takes only ${axis.grid.min} voxels along ${name}, the image has ${axis.size}: crop the image`);
  }
  return found;
}

function isLess(a: readonly number[], b: readonly number[]): boolean {
  const at = a.findIndex((value, i) => value !== b[i]);
  return at >= 0 && a[at]! < b[at]!;
}

export type PadMode = "reflect" | "symmetric" | "edge";

/** Return for each position from `start` to `stop` the position in an image of `size` voxels that it shows, mirrored beyond its ends. */
export function padded(start: number, stop: number, size: number, mode: PadMode): Int32Array {
  const result = new Int32Array(stop - start);
  const period = mode === "symmetric" ? 2 * size : 2 * (size - 1);
  for (let i = start; i < stop; i++) {
    if (mode === "edge" || period === 0) {
      result[i - start] = Math.min(Math.max(i, 0), size - 1);
    } else {
      const at = ((i % period) + period) % period;
      result[i - start] = at < size ? at : period - at - (mode === "symmetric" ? 1 : 0);
    }
  }
  return result;
}
