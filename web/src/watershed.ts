/** Seeded watershed by a minimum spanning forest, with the labels of `im2im_zoo/instances/methods/watershed.py`. */

import type { Labels } from "./components";
import { allocate, type Values } from "./tensor";

export interface WatershedSettings {
  /** Channel of the map of the inside. */
  channel: number;
  seedThreshold: number;
  foregroundThreshold: number;
  /** Channel of the boundaries over which seeds grow; null: they grow down the map of the inside. */
  boundary: number | null;
  /** First of two channels of the affinity of a pixel and the one before it, along y and x; null if there are none. */
  affinities: number | null;
  minSize: number;
}

/** What seeds grow over. Heights are of pixels, or, by axis, of edges to the pixel before; +Infinity where nothing is joined. */
interface Terrain {
  mask: Uint8Array;
  seeds: Uint8Array;
  heights: { pixels: Float32Array } | { edges: [Float32Array, Float32Array] };
}

/** Edges between neighbours in raster order of their first pixel. */
interface Edges {
  one: Uint32Array;
  two: Uint32Array;
  high: Float32Array;
  low: Float32Array;
}

/**
 * Label the objects of maps; pixels connect through their faces.
 *
 * @param maps by channel, (y, x).
 */
export function watershed(maps: readonly Values[], height: number, width: number, settings: WatershedSettings): Labels {
  const channels = maps.map((map) => (map instanceof Float32Array ? map : Float32Array.from(map)));
  const terrain = settings.affinities === null ? pixelTerrain(channels, settings) : edgeTerrain(channels, height, width, settings);
  const edges = edgesOf(terrain, height, width);
  const parents = new Uint32Array(height * width).map((_, i) => i);
  const rooted = terrain.seeds.slice();
  const find = (pixel: number): number => {
    while (parents[pixel] !== pixel) pixel = parents[pixel] = parents[parents[pixel]!]!;
    return pixel;
  };
  // In their order, edges join trees, but never two that have seeds; those of one seed come first.
  for (const edge of inOrder(edges)) {
    const [one, two] = [find(edges.one[edge]!), find(edges.two[edge]!)];
    if (one === two || (edges.high[edge] !== -Infinity && rooted[one] && rooted[two])) continue;
    parents[Math.max(one, two)] = Math.min(one, two);
    rooted[Math.min(one, two)] = rooted[one]! | rooted[two]!;
  }
  return number(terrain, find, rooted, settings.minSize);
}

/** Number the trees that have seeds in raster order of their first pixel in a seed. */
function number({ mask, seeds }: Terrain, find: (pixel: number) => number, rooted: Uint8Array, minSize: number): Labels {
  const sizes = new Uint32Array(mask.length);
  for (let i = 0; i < mask.length; i++) if (mask[i]) sizes[find(i)]!++;
  const numbers = new Int32Array(mask.length);
  let count = 0;
  for (let i = 0; i < mask.length; i++) {
    const tree = seeds[i] ? find(i) : 0;
    if (seeds[i] && numbers[tree] === 0 && sizes[tree]! >= minSize) numbers[tree] = ++count;
  }
  const values = new Int32Array(mask.length);
  for (let i = 0; i < mask.length; i++) if (mask[i] && rooted[find(i)]) values[i] = numbers[find(i)]!;
  return { values, count };
}

function pixelTerrain(maps: readonly Float32Array[], settings: WatershedSettings): Terrain {
  const [seed, foreground] = [Math.fround(settings.seedThreshold), Math.fround(settings.foregroundThreshold)];
  const inside = maps[settings.channel]!;
  const boundary = settings.boundary === null ? null : maps[settings.boundary]!;
  const [mask, seeds, pixels] = [new Uint8Array(inside.length), new Uint8Array(inside.length), new Float32Array(inside.length)];
  for (let i = 0; i < inside.length; i++) {
    // The sum makes -0 a 0.
    pixels[i] = (boundary === null ? -inside[i]! : boundary[i]!) + 0;
    mask[i] = Number(inside[i]! > foreground && (boundary === null || Number.isFinite(boundary[i])));
    seeds[i] = Number(mask[i] === 1 && inside[i]! > seed);
  }
  return { mask, seeds, heights: { pixels } };
}

function edgeTerrain(maps: readonly Float32Array[], height: number, width: number, settings: WatershedSettings): Terrain {
  const [seed, foreground] = [Math.fround(settings.seedThreshold), Math.fround(settings.foregroundThreshold)];
  const size = height * width;
  const [mask, seeds] = [new Uint8Array(size), new Uint8Array(size).fill(1)];
  const edges = [0, 1].map((axis) => {
    const [map, step] = [maps[settings.affinities! + axis]!, axis === 0 ? width : 1];
    const heights = new Float32Array(size).fill(Infinity);
    for (let i = axis === 0 ? width : 0; i < size; i++) {
      if (axis === 1 && i % width === 0) continue;
      const joins = map[i]! > foreground;
      if (joins) heights[i] = -map[i]! + 0;
      for (const side of [i, i - step]) {
        if (joins) mask[side] = 1;
        if (!(map[i]! > seed)) seeds[side] = 0;
      }
    }
    return heights;
  });
  for (let i = 0; i < size; i++) seeds[i]! &= mask[i]!;
  return { mask, seeds, heights: { edges: edges as [Float32Array, Float32Array] } };
}

function edgesOf({ mask, seeds, heights }: Terrain, height: number, width: number): Edges {
  const most = 2 * mask.length;
  const starts = [allocate("uint32", most) as Uint32Array, allocate("uint32", most) as Uint32Array] as const;
  const ends = [allocate("float32", most) as Float32Array, allocate("float32", most) as Float32Array] as const;
  let count = 0;
  const add = (one: number, two: number, axis: 0 | 1): void => {
    if (!mask[one] || !mask[two]) return;
    const [a, b] = "pixels" in heights ? [heights.pixels[one]!, heights.pixels[two]!] : [heights.edges[axis][two]!, heights.edges[axis][two]!];
    if (!(b < Infinity)) return;
    const same = seeds[one] && seeds[two];
    starts[0][count] = one;
    starts[1][count] = two;
    ends[0][count] = same ? -Infinity : Math.max(a, b);
    ends[1][count] = same ? -Infinity : Math.min(a, b);
    count++;
  };
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (y + 1 < height) add(i, i + width, 0);
      if (x + 1 < width) add(i, i + 1, 1);
    }
  }
  return { one: starts[0].subarray(0, count), two: starts[1].subarray(0, count), high: ends[0].subarray(0, count), low: ends[1].subarray(0, count) };
}

/** Return the places of edges by their higher end, then by their lower one, then as they are. */
function inOrder({ high, low }: Edges): Uint32Array {
  return sorted(high, sorted(low, new Uint32Array(high.length).map((_, i) => i)));
}

/** Sort places by their values, those of equal values as they are: a radix sort of two digits. */
function sorted(values: Float32Array, places: Uint32Array): Uint32Array {
  const bits = new Uint32Array(values.slice().buffer);
  // The order of the bits is that of the values.
  for (let i = 0; i < bits.length; i++) bits[i] = bits[i]! >>> 31 ? ~bits[i]! : bits[i]! | 0x80000000;
  for (const shift of [0, 16]) {
    const counts = new Uint32Array(65537);
    for (let i = 0; i < bits.length; i++) counts[((bits[i]! >>> shift) & 0xffff) + 1]!++;
    for (let i = 0; i < 65536; i++) counts[i + 1]! += counts[i]!;
    const next = new Uint32Array(places.length);
    for (let i = 0; i < places.length; i++) next[counts[(bits[places[i]!]! >>> shift) & 0xffff]!++] = places[i]!;
    places = next;
  }
  return places;
}
