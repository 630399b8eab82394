/** The named operations of the bioimage.io model spec 0.5, applied to whole images with the statistics of the whole image. */

import { map, meanAndStd, type Numbers, quantiles, single } from "./statistics";
import {
  allocate, type Dtype, floatType, forEachRun, isDtype, isFloat, isInteger, limitsOf, sizeAlong, stridesOf, type Tensor, UserError, type Values,
} from "./tensor";

/** An operation as the RDF describes it, with all its defaults. */
export interface Operation {
  id: string;
  kwargs?: Record<string, unknown>;
}

export type References = Record<string, Tensor>;

type Kwargs = Record<string, unknown>;
type Apply = (tensor: Tensor, kwargs: Kwargs, references: References) => Tensor;

const OPERATIONS: Record<string, Apply> = {
  binarize: (x, k) => binarize(x, fixed(x, k, "threshold")),
  clip,
  ensure_dtype: (x, k) => ensureDtype(x, String(k.dtype)),
  fixed_zero_mean_unit_variance: (x, k) => standardize(x, fixed(x, k, "mean"), fixed(x, k, "std")),
  scale_linear: (x, k) => affine(x, fixed(x, k, "gain"), fixed(x, k, "offset")),
  scale_mean_variance: scaleMeanVariance,
  scale_range: scaleRange,
  sigmoid,
  softmax: (x, k) => softmax(x, String(k.axis)),
  zero_mean_unit_variance: (x, k) => {
    const [mean, std] = meanAndStd(x, reduced(x, k.axes));
    return standardize(x, mean, map(std, (s) => s + number(k, "eps")));
  },
};

export const OPERATION_IDS = Object.keys(OPERATIONS);

/**
 * Return the tensor after all operations; the given one is not changed.
 *
 * @param operations in their order; the statistics of each are those of the result of the ones before it.
 * @param references raw tensors by id, for operations with a `reference_tensor`.
 */
export function process(operations: readonly Operation[], tensor: Tensor, references: References = {}): Tensor {
  let result = tensor;
  operations.forEach((operation, i) => {
    const apply = Object.hasOwn(OPERATIONS, operation.id) ? OPERATIONS[operation.id] : undefined;
    const where = `operation ${i + 1} (${operation.id})`;
    if (apply === undefined) {
      throw new UserError(`${where} is not an operation that this page can do: use im2im-zoo predict`);
    }
    try {
      result = apply(result, operation.kwargs ?? {}, references);
    } catch (error) {
      if (error instanceof UserError) throw new UserError(`${where}: ${error.message}`);
      throw error;
    }
  });
  return result;
}

function number(kwargs: Kwargs, key: string): number {
  const value = kwargs[key];
  if (typeof value !== "number") throw new UserError(`${key} is not a number; the package is invalid`);
  return value;
}

/** Return one number, or one for each position along the axis that the description names. */
function fixed(x: Tensor, kwargs: Kwargs, key: string): Numbers {
  const axis = kwargs.axis;
  if (axis === undefined || axis === null) return single(number(kwargs, key));
  const values = Float64Array.from(kwargs[key] as number[]);
  const size = sizeAlong(x, String(axis));
  if (size !== values.length) {
    throw new UserError(
      `${values.length} values are given along the axis ${String(axis)}, but the tensor ${x.name} has ${size ?? "no such axis"}`,
    );
  }
  return { axes: [String(axis)], shape: [values.length], values };
}

/** Return the axes over which a statistic is taken: all, or those that are named. */
function reduced(x: Tensor, axes: unknown): string[] {
  if (axes === undefined || axes === null) return x.axes;
  return x.axes.filter((axis) => (axes as string[]).includes(axis));
}

/** Return the numbers arranged for `forEachRun(x, numbers.axes)`: in the order of the tensor's axes. */
function arranged(numbers: Numbers, x: Tensor): Numbers {
  for (const [i, axis] of numbers.axes.entries()) {
    const size = sizeAlong(x, axis);
    if (size !== numbers.shape[i]) {
      throw new UserError(
        `statistics vary along the axis ${axis} (${numbers.shape[i]}), but the tensor ${x.name} has ${size ?? "no such axis"}`,
      );
    }
  }
  const axes = x.axes.filter((axis) => numbers.axes.includes(axis));
  if (axes.every((axis, i) => axis === numbers.axes[i])) return numbers;
  const strides = stridesOf(numbers.shape);
  const order = axes.map((axis) => numbers.axes.indexOf(axis));
  const shape = order.map((i) => numbers.shape[i]!);
  const values = new Float64Array(numbers.values.length);
  const own = stridesOf(shape);
  for (let cell = 0; cell < values.length; cell++) {
    let from = 0;
    shape.forEach((size, i) => (from += (Math.floor(cell / own[i]!) % size) * strides[order[i]!]!));
    values[cell] = numbers.values[from]!;
  }
  return { axes, shape, values };
}

/** Return a new tensor of floats, of which `fill` computes each run of voxels that share their numbers. */
function floats(
  x: Tensor,
  axes: readonly string[],
  fill: (from: Values, to: Values, cell: number, start: number, end: number) => void,
): Tensor {
  const dtype = floatType(x.dtype);
  const data = allocate(dtype, x.data.length);
  forEachRun(x, axes, (cell, start, end) => fill(x.data, data, cell, start, end));
  return { ...x, dtype, data };
}

function rounding(x: Tensor): (value: number) => number {
  return floatType(x.dtype) === "float32" ? Math.fround : (value) => value;
}

/** Return (x - minus) / over. `minus` is subtracted in two parts, as float32 would round a large mean. */
function standardize(x: Tensor, minus: Numbers, over: Numbers): Tensor {
  const round = rounding(x);
  const tiny = floatType(x.dtype) === "float32" ? 2 ** -126 : 2 ** -1022;
  const mean = arranged(minus, x);
  const std = arranged(over, x);
  return floats(x, mean.axes, (from, to, cell, start, end) => {
    const high = round(mean.values[cell]!);
    const low = round(mean.values[cell]! - high);
    const divisor = round(Math.max(std.values[cell]!, tiny));
    for (let i = start; i < end; i++) to[i] = round(round(round(from[i]!) - high) - low) / divisor;
  });
}

/** Return x * gain + offset. */
function affine(x: Tensor, gain: Numbers, offset: Numbers): Tensor {
  const round = rounding(x);
  const gains = arranged(gain, x);
  const offsets = arranged(offset, x);
  return floats(x, gains.axes, (from, to, cell, start, end) => {
    const g = round(gains.values[cell]!);
    const o = round(offsets.values[cell]!);
    for (let i = start; i < end; i++) to[i] = round(round(from[i]!) * g) + o;
  });
}

function binarize(x: Tensor, threshold: Numbers): Tensor {
  const round = rounding(x);
  const limits = arranged(threshold, x);
  const data = allocate("bool", x.data.length);
  forEachRun(x, limits.axes, (cell, start, end) => {
    const limit = round(limits.values[cell]!);
    for (let i = start; i < end; i++) data[i] = round(x.data[i]!) > limit ? 1 : 0;
  });
  return { ...x, dtype: "bool", data };
}

function clip(x: Tensor, kwargs: Kwargs): Tensor {
  const percentiles = [kwargs.min_percentile, kwargs.max_percentile].filter((p) => typeof p === "number");
  const axes = kwargs.axes as string[] | null | undefined;
  // As bioimageio.core: a clip of a sample ends on values that occur in it, of a dataset in between.
  const ofDataset = axes === null || axes === undefined || axes.includes("batch");
  const found = quantiles(
    x,
    reduced(x, axes),
    percentiles.map((p) => p / 100),
    ofDataset ? "linear" : "inverted_cdf",
  );
  const limit = (percentile: unknown, value: unknown): Numbers | null => {
    if (typeof percentile === "number") return arranged(found.shift()!, x);
    return typeof value === "number" ? single(value) : null;
  };
  const low = limit(kwargs.min_percentile, kwargs.min);
  const high = limit(kwargs.max_percentile, kwargs.max);
  const limits = [low, high].filter((numbers) => numbers !== null);
  const stay = isInteger(x.dtype) && limits.every((numbers) => fits(numbers.values, x.dtype));
  const dtype = stay ? x.dtype : floatType(x.dtype);
  const round = dtype === "float32" ? Math.fround : (value: number) => value;
  const data = allocate(dtype, x.data.length);
  forEachRun(x, limits.flatMap((numbers) => numbers.axes), (cell, start, end) => {
    const least = low === null ? -Infinity : round(low.values[low.axes.length ? cell : 0]!);
    const most = high === null ? Infinity : round(high.values[high.axes.length ? cell : 0]!);
    for (let i = start; i < end; i++) data[i] = Math.min(Math.max(round(x.data[i]!), least), most);
  });
  return { ...x, dtype, data };
}

function fits(numbers: Float64Array, dtype: Dtype): boolean {
  const [least, most] = limitsOf(dtype);
  const [low, high] = [Math.max(least, -(2 ** 53)), Math.min(most, 2 ** 53)];
  return numbers.every((value) => Number.isInteger(value) && value >= low && value <= high);
}

function scaleRange(x: Tensor, kwargs: Kwargs, references: References): Tensor {
  const source = referenceOf(x, kwargs.reference_tensor, references);
  const fractions = [number(kwargs, "min_percentile") / 100, number(kwargs, "max_percentile") / 100];
  const [lower, upper] = quantiles(source, reduced(source, kwargs.axes), fractions, "linear") as [Numbers, Numbers];
  const eps = number(kwargs, "eps");
  return standardize(x, lower, map(upper, (value, cell) => value - lower.values[cell]! + eps));
}

function scaleMeanVariance(x: Tensor, kwargs: Kwargs, references: References): Tensor {
  const source = referenceOf(x, kwargs.reference_tensor, references);
  const eps = number(kwargs, "eps");
  const plus = (value: number): number => value + eps;
  const [mean, std] = meanAndStd(x, reduced(x, kwargs.axes));
  const [wantedMean, wantedStd] = meanAndStd(source, reduced(source, kwargs.axes));
  return affine(standardize(x, mean, map(std, plus)), map(wantedStd, plus), wantedMean);
}

function referenceOf(x: Tensor, id: unknown, references: References): Tensor {
  if (id === undefined || id === null) return x;
  const found = references[String(id)];
  if (found === undefined) {
    throw new UserError(`its reference tensor ${String(id)} is not there; there are ${Object.keys(references).join(", ")}`);
  }
  return found;
}

function sigmoid(x: Tensor): Tensor {
  const round = rounding(x);
  return floats(x, [], (from, to, _, start, end) => {
    for (let i = start; i < end; i++) to[i] = 1 / round(round(Math.exp(-round(from[i]!))) + 1);
  });
}

function softmax(x: Tensor, axis: string): Tensor {
  const at = x.axes.indexOf(axis);
  if (at < 0) throw new UserError(`the tensor ${x.name} has no axis ${axis}`);
  const round = rounding(x);
  const size = x.shape[at]!;
  const step = stridesOf(x.shape)[at]!;
  return floats(x, [], (from, to, _, start, end) => {
    for (let block = start; block < end; block += size * step) {
      for (let first = block; first < block + step; first++) {
        const last = first + size * step;
        let most = -Infinity;
        for (let i = first; i < last; i += step) most = Math.max(most, round(from[i]!));
        let total = 0;
        for (let i = first; i < last; i += step) {
          to[i] = Math.exp(round(round(from[i]!) - most));
          total = round(total + to[i]!);
        }
        for (let i = first; i < last; i += step) to[i] = to[i]! / total;
      }
    }
  });
}

/** Cast as numpy does where that is defined: floats become integers towards zero, within the range of the integer. */
export function ensureDtype(x: Tensor, dtype: string): Tensor {
  if (!isDtype(dtype)) throw new UserError(`the data type ${dtype} is not supported: use im2im-zoo predict`);
  if (dtype === x.dtype) return x;
  const data = allocate(dtype, x.data.length);
  if (dtype === "bool") {
    for (let i = 0; i < data.length; i++) data[i] = x.data[i] !== 0 ? 1 : 0;
  } else if (isFloat(x.dtype) && isInteger(dtype)) {
    const [low, high] = limitsOf(dtype);
    for (let i = 0; i < data.length; i++) {
      const value = x.data[i]!;
      if (Number.isNaN(value)) {
        throw new UserError(`the tensor ${x.name} holds NaN, which ${dtype} cannot: find where the NaN comes from`);
      }
      data[i] = Math.trunc(Math.min(Math.max(value, low), high));
    }
  } else if (dtype === "uint64" && x.dtype.startsWith("int")) {
    for (let i = 0; i < data.length; i++) data[i] = x.data[i]! < 0 ? x.data[i]! + 2 ** 64 : x.data[i]!;
  } else {
    data.set(x.data);
  }
  return { ...x, dtype, data };
}
