/** Arrays with named axes, as the package's operations see them. 64-bit integers are kept in doubles, exact below 2^53. */

export type Dtype =
  | "bool" | "uint8" | "int8" | "uint16" | "int16" | "uint32" | "int32" | "uint64" | "int64" | "float32" | "float64";

export type Values = Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | Float32Array | Float64Array;

export interface Tensor {
  /** Name in messages: the id of the tensor. */
  name: string;
  dtype: Dtype;
  /** Ids of the axes, the slowest first, without `batch`. */
  axes: string[];
  shape: number[];
  data: Values;
}

const ARRAYS: Record<Dtype, new (length: number) => Values> = {
  bool: Uint8Array,
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  uint64: Float64Array,
  int64: Float64Array,
  float32: Float32Array,
  float64: Float64Array,
};

const LIMITS: Partial<Record<Dtype, [number, number]>> = {
  uint8: [0, 255],
  int8: [-128, 127],
  uint16: [0, 65535],
  int16: [-32768, 32767],
  uint32: [0, 2 ** 32 - 1],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint64: [0, 2 ** 64],
  int64: [-(2 ** 63), 2 ** 63],
};

/** An error whose message is meant for the user: what is wrong, then what to do. */
export class UserError extends Error {
  override name = "UserError";
}

/** Return the message of anything that was thrown. */
export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function isDtype(text: string): text is Dtype {
  return text in ARRAYS;
}

/** Return an array of zeros; report an image that does not fit into memory as such. */
export function allocate(dtype: Dtype, length: number): Values {
  try {
    return new ARRAYS[dtype](length);
  } catch (error) {
    if (error instanceof RangeError) {
      throw new UserError(
        `the browser has not enough memory for ${length.toLocaleString("en")} values: use a smaller image, or im2im-zoo predict`,
      );
    }
    throw error;
  }
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function isInteger(dtype: Dtype): boolean {
  return dtype in LIMITS;
}

export function isFloat(dtype: Dtype): boolean {
  return dtype === "float32" || dtype === "float64";
}

/** Return the smallest and largest value of an integer type. */
export function limitsOf(dtype: Dtype): [number, number] {
  const found = LIMITS[dtype];
  if (found === undefined) throw new Error(`${dtype} is no integer type`);
  return found;
}

/** Return the type in which values are computed: float32 for at most 16 bits, float64 for wider integers. */
export function floatType(dtype: Dtype): "float32" | "float64" {
  return dtype === "float64" || dtype.endsWith("32") && dtype !== "float32" || dtype.endsWith("64") ? "float64" : "float32";
}

export function sizeAlong(tensor: Tensor, axis: string): number | undefined {
  const at = tensor.axes.indexOf(axis);
  return at < 0 ? undefined : tensor.shape[at];
}

/** Return the voxels between neighbours along each axis. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * shape[i + 1]!;
  return strides;
}

/** Return the tensor with its axes in another order, in memory of that order. */
export function transpose(tensor: Tensor, axes: readonly string[]): Tensor {
  if (axes.every((axis, i) => axis === tensor.axes[i])) return tensor;
  const order = axes.map((axis) => tensor.axes.indexOf(axis));
  const strides = stridesOf(tensor.shape);
  const shape = order.map((i) => tensor.shape[i]!);
  const steps = order.map((i) => strides[i]!);
  const out = allocate(tensor.dtype, tensor.data.length);
  const last = shape.length - 1;
  const index = new Array<number>(shape.length).fill(0);
  const length = shape[last] ?? 1;
  const step = steps[last] ?? 1;
  for (let to = 0; to < out.length; to += length) {
    let from = 0;
    for (let i = 0; i < last; i++) from += index[i]! * steps[i]!;
    for (let i = 0; i < length; i++) out[to + i] = tensor.data[from + i * step]!;
    for (let i = last - 1; i >= 0 && ++index[i]! === shape[i]!; i--) index[i] = 0;
  }
  return { ...tensor, axes: [...axes], shape, data: out };
}

/**
 * Call `visit(cell, start, end)` for each run of neighbouring voxels that share their position along the axes `kept`.
 * A cell is that position, counted in C order over `kept` in the order of the tensor's axes.
 */
export function forEachRun(
  tensor: Tensor,
  kept: readonly string[],
  visit: (cell: number, start: number, end: number) => void,
): void {
  const leading = Math.max(-1, ...kept.map((axis) => tensor.axes.indexOf(axis))) + 1;
  const length = sizeOf(tensor.shape.slice(leading));
  const sizes = tensor.shape.slice(0, leading);
  const cellStrides = new Array<number>(leading).fill(0);
  let stride = 1;
  for (let i = leading - 1; i >= 0; i--) {
    if (kept.includes(tensor.axes[i]!)) {
      cellStrides[i] = stride;
      stride *= sizes[i]!;
    }
  }
  const index = new Array<number>(leading).fill(0);
  for (let start = 0; start < tensor.data.length; start += length) {
    let cell = 0;
    for (let i = 0; i < leading; i++) cell += index[i]! * cellStrides[i]!;
    visit(cell, start, start + length);
    for (let i = leading - 1; i >= 0 && ++index[i]! === sizes[i]!; i--) index[i] = 0;
  }
}
