/** Exact statistics of a whole image: mean, standard deviation and quantiles, as numpy defines them. */

import { allocate, type Dtype, isFloat, sizeOf, type Tensor, transpose, UserError, type Values } from "./tensor";

/** One number for each position along some axes; a single one if there are none. */
export interface Numbers {
  axes: string[];
  shape: number[];
  values: Float64Array;
}

export type QuantileMethod = "linear" | "inverted_cdf";

export function single(value: number): Numbers {
  return { axes: [], shape: [], values: Float64Array.of(value) };
}

export function map(numbers: Numbers, change: (value: number, cell: number) => number): Numbers {
  return { ...numbers, values: numbers.values.map(change) };
}

/** Return mean and population standard deviation over the axes `reduced`. */
export function meanAndStd(tensor: Tensor, reduced: readonly string[]): [Numbers, Numbers] {
  const { axes, shape, cells, count, data } = rows(tensor, reduced);
  const means = new Float64Array(cells);
  const stds = new Float64Array(cells);
  for (let cell = 0; cell < cells; cell++) {
    const start = cell * count;
    const mean = sum(data, start, start + count, 0, false) / count;
    means[cell] = mean;
    stds[cell] = Math.sqrt(sum(data, start, start + count, mean, true) / count);
    if (!Number.isFinite(stds[cell]!)) refuse(tensor);
  }
  return [{ axes, shape, values: means }, { axes, shape, values: stds }];
}

/** Return the quantiles at `fractions` (0 to 1) over the axes `reduced`. */
export function quantiles(
  tensor: Tensor,
  reduced: readonly string[],
  fractions: readonly number[],
  method: QuantileMethod,
): Numbers[] {
  const { axes, shape, cells, count, data } = rows(tensor, reduced);
  const wanted = fractions.map((fraction) => ranksOf(count, fraction, method));
  const ranks = [...new Set(wanted.flatMap(([low, high]) => [low, high]))].sort((a, b) => a - b);
  const found = fractions.map(() => new Float64Array(cells));
  for (let cell = 0; cell < cells; cell++) {
    const values = data.subarray(cell * count, (cell + 1) * count) as Values;
    if (isFloat(tensor.dtype) && !allFinite(values)) refuse(tensor);
    const at = new Map(orderStatistics(values, tensor.dtype, ranks).map((value, i) => [ranks[i]!, value]));
    wanted.forEach(([low, high, weight], i) => {
      found[i]![cell] = between(at.get(low)!, at.get(high)!, weight, tensor.dtype);
    });
  }
  return found.map((values) => ({ axes, shape, values }));
}

interface Rows {
  axes: string[];
  shape: number[];
  cells: number;
  count: number;
  data: Values;
}

/** Return the values of each cell side by side; a cell is a position along the axes that are not reduced. */
function rows(tensor: Tensor, reduced: readonly string[]): Rows {
  const axes = tensor.axes.filter((axis) => !reduced.includes(axis));
  const ordered = transpose(tensor, [...axes, ...tensor.axes.filter((axis) => reduced.includes(axis))]);
  const shape = ordered.shape.slice(0, axes.length);
  const cells = sizeOf(shape);
  return { axes, shape, cells, count: ordered.data.length / cells, data: ordered.data };
}

/** Return the sum of values, or of their squared distances from `minus`, in parts so that rounding does not add up. */
function sum(data: Values, start: number, end: number, minus: number, squared: boolean): number {
  let total = 0;
  for (let from = start; from < end; from += 4096) {
    const to = Math.min(from + 4096, end);
    let part = 0;
    if (squared) {
      for (let i = from; i < to; i++) part += (data[i]! - minus) * (data[i]! - minus);
    } else {
      for (let i = from; i < to; i++) part += data[i]!;
    }
    total += part;
  }
  return total;
}

/** Return the two order statistics (from 0) and the weight of the second, by numpy's definitions. */
function ranksOf(count: number, fraction: number, method: QuantileMethod): [number, number, number] {
  if (method === "inverted_cdf") {
    const rank = Math.max(0, Math.ceil(count * fraction - 1));
    return [rank, rank, 0];
  }
  const index = (count - 1) * fraction;
  const low = Math.floor(index);
  return [low, Math.min(low + 1, count - 1), index - low];
}

function between(low: number, high: number, weight: number, dtype: Dtype): number {
  if (weight === 0) return low;
  const step = dtype === "float32" ? Math.fround(high - low) : high - low;
  return weight >= 0.5 ? high - step * (1 - weight) : low + step * weight;
}

/** Return the values at some ranks, in ascending order of the ranks. */
function orderStatistics(values: Values, dtype: Dtype, ranks: readonly number[]): number[] {
  if (values.BYTES_PER_ELEMENT === 8 || values.length < 65536) {
    const sorted = allocate(dtype, values.length);
    sorted.set(values);
    sorted.sort();
    return ranks.map((rank) => sorted[rank]!);
  }
  return values.BYTES_PER_ELEMENT <= 2 ? countedStatistics(values, ranks) : radixStatistics(values as Wide, ranks);
}

/** Return order statistics of 8 or 16 bits by counting each value. */
function countedStatistics(values: Values, ranks: readonly number[]): number[] {
  const counts = new Uint32Array(2 ** 17);
  const zero = 2 ** 16;
  for (let i = 0; i < values.length; i++) counts[values[i]! + zero]!++;
  return atRanks(counts, ranks).map(([bin]) => bin - zero);
}

type Wide = Uint32Array | Int32Array | Float32Array;

/** Return order statistics of 32 bits: count the upper 16 bits of a key in the values' order, then the lower ones. */
function radixStatistics(values: Wide, ranks: readonly number[]): number[] {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const signed = values instanceof Uint32Array ? 0 : 0x80000000;
  const float = values instanceof Float32Array;
  const keyOf = (b: number): number => (float && b >= 0x80000000 ? ~b >>> 0 : (b ^ signed) >>> 0);
  const upper = new Uint32Array(65536);
  for (let i = 0; i < bits.length; i++) upper[keyOf(bits[i]!) >>> 16]!++;
  const heads = atRanks(upper, ranks);
  const tables = new Map(heads.map(([head]) => [head, new Uint32Array(65536)]));
  for (let i = 0; i < bits.length; i++) {
    const key = keyOf(bits[i]!);
    const table = tables.get(key >>> 16);
    if (table !== undefined) table[key & 0xffff]!++;
  }
  const key = new Uint32Array(1);
  const value = values instanceof Uint32Array ? key : values instanceof Int32Array ? new Int32Array(key.buffer) : new Float32Array(key.buffer);
  return heads.map(([head, rest]) => {
    const [[tail]] = atRanks(tables.get(head)!, [rest]) as [[number, number]];
    const found = ((head << 16) | tail) >>> 0;
    key[0] = float && found < 0x80000000 ? ~found : found ^ signed;
    return value[0]!;
  });
}

/** Return for each rank the bin that holds it, and the rank within that bin. */
function atRanks(counts: Uint32Array, ranks: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  let before = 0;
  let bin = 0;
  for (const rank of ranks) {
    while (before + counts[bin]! <= rank) before += counts[bin++]!;
    found.push([bin, rank - before]);
  }
  return found;
}

function allFinite(values: Values): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i]!)) return false;
  return true;
}

function refuse(tensor: Tensor): never {
  throw new UserError(
    `the tensor ${tensor.name} has values that are not finite (NaN or infinity), so it has no statistics: replace them in the image`,
  );
}
