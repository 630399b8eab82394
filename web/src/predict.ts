/** Run a package on one plane: preprocess the whole image, run the network in tiles, post-process the whole output. */

import type { Facts, TensorFacts } from "./facts";
import type { NetworkTensor } from "./network";
import { ensureDtype, process } from "./operations";
import { allocate, type Dtype, isDtype, sizeOf, stridesOf, type Tensor, UserError, type Values } from "./tensor";
import { padded, type PadMode, planTiles, type Span, type Tiling } from "./tiling";

export type RunNetwork = (input: NetworkTensor) => Promise<NetworkTensor[]>;

export interface Progress {
  done: number;
  total: number;
}

/** Channels of one plane, each (y, x), in the order of the model's channels. */
export interface Plane {
  height: number;
  width: number;
  dtype: Dtype;
  channels: Values[];
}

/**
 * Return one output of a package for a plane, post-processed.
 *
 * @param run runs the network on one tile.
 * @param limit the most voxels of a tile.
 * @param progress called after each tile.
 */
export async function predict(
  facts: Facts,
  plane: Plane,
  output: number,
  run: RunNetwork,
  limit: number,
  progress: (progress: Progress) => void,
): Promise<Tensor> {
  const raw = inputTensor(facts.input, plane);
  const ready = process(facts.input.operations, raw);
  const tiling = tilingOf(facts, plane.height, plane.width, limit);
  const described = facts.outputs[output]!;
  const result = await runTiles(ready, facts.input, described, output, tiling, facts.input.pad, run, progress);
  return process(described.operations, result, { [facts.input.id]: raw });
}

/** Return the tiles of an image; one where the network needs all of it. */
export function tilingOf(facts: Facts, height: number, width: number, limit: number): Tiling {
  const whole = facts.tilesDiffer !== null;
  const tiling = planTiles(
    { size: height, halo: facts.y.halo, grid: facts.y.grid, cut: facts.y.cut && !whole },
    { size: width, halo: facts.x.halo, grid: facts.x.grid, cut: facts.x.cut && !whole },
    limit,
  );
  return tiling;
}

/** Return a plane as the input tensor, without its batch axis. */
export function inputTensor(facts: TensorFacts, plane: Plane): Tensor {
  const axes = facts.axes.filter((axis) => axis !== "batch");
  const sizes: Record<string, number> = { y: plane.height, x: plane.width, channel: plane.channels.length };
  const shape = axes.map((axis) => sizes[axis]!);
  const data = allocate(plane.dtype, sizeOf(shape));
  const strides = strideOf(axes, shape);
  plane.channels.forEach((values, c) => {
    if (strides.x === 1 && strides.y === plane.width) {
      data.set(values, c * strides.channel);
      return;
    }
    for (let y = 0, i = 0; y < plane.height; y++) {
      for (let x = 0; x < plane.width; x++, i++) data[c * strides.channel + y * strides.y + x * strides.x] = values[i]!;
    }
  });
  return { name: facts.id, dtype: plane.dtype, axes, shape, data };
}

interface Strides {
  channel: number;
  y: number;
  x: number;
}

function strideOf(axes: readonly string[], shape: readonly number[]): Strides {
  const strides = stridesOf(shape);
  const along = (axis: string): number => (axes.includes(axis) ? strides[axes.indexOf(axis)]! : 0);
  return { channel: along("channel"), y: along("y"), x: along("x") };
}

function sizesOf(tensor: { axes: readonly string[]; shape: readonly number[] }): Strides {
  const along = (axis: string): number => tensor.shape[tensor.axes.indexOf(axis)] ?? 1;
  return { channel: along("channel"), y: along("y"), x: along("x") };
}

async function runTiles(
  image: Tensor,
  input: TensorFacts,
  output: TensorFacts,
  number: number,
  tiling: Tiling,
  pad: PadMode,
  run: RunNetwork,
  progress: (progress: Progress) => void,
): Promise<Tensor> {
  const { y: height, x: width } = sizesOf(image);
  const axes = output.axes.filter((axis) => axis !== "batch");
  let result: Tensor | null = null;
  const total = tiling.y.length * tiling.x.length;
  let done = 0;
  progress({ done, total });
  for (const y of tiling.y) {
    for (const x of tiling.x) {
      const outputs = await run(cutTile(image, input.axes, y, x, pad));
      const tile = withoutBatch(outputs[number], output);
      const sizes = sizesOf(tile);
      if (sizes.y !== tiling.tile.y || sizes.x !== tiling.tile.x) {
        throw new UserError(
          `the network returns ${sizes.y} x ${sizes.x} pixels for ${tiling.tile.y} x ${tiling.tile.x}, which the package does not declare; report this to its authors`,
        );
      }
      result ??= emptyTensor(output.id, tile.dtype, axes, sizes.channel, height, width);
      if (sizesOf(result).channel !== sizes.channel) throw new Error("the number of channels differs between tiles");
      pasteTile(tile, result, y, x);
      progress({ done: ++done, total });
    }
  }
  return result!;
}

function emptyTensor(name: string, dtype: Dtype, axes: string[], channels: number, height: number, width: number): Tensor {
  const sizes: Record<string, number> = { channel: channels, y: height, x: width };
  const shape = axes.map((axis) => sizes[axis]!);
  return { name, dtype, axes, shape, data: allocate(dtype, sizeOf(shape)) };
}

/** Return one tile of the image, mirrored beyond its ends, with the batch axis. */
function cutTile(image: Tensor, axes: readonly string[], y: Span, x: Span, pad: PadMode): NetworkTensor {
  const sizes = sizesOf(image);
  const from = strideOf(image.axes, image.shape);
  const tileSizes: Record<string, number> = { channel: sizes.channel, y: y.outerStop - y.outerStart, x: x.outerStop - x.outerStart };
  const shape = image.axes.map((axis) => tileSizes[axis]!);
  const to = strideOf(image.axes, shape);
  const data = allocate(image.dtype, sizeOf(shape));
  const rows = padded(y.outerStart, y.outerStop, sizes.y, pad);
  const columns = padded(x.outerStart, x.outerStop, sizes.x, pad);
  for (let c = 0; c < sizes.channel; c++) {
    for (let row = 0; row < rows.length; row++) {
      const source = c * from.channel + rows[row]! * from.y;
      const target = c * to.channel + row * to.y;
      for (let i = 0; i < columns.length; i++) data[target + i * to.x] = image.data[source + columns[i]! * from.x]!;
    }
  }
  return { dtype: image.dtype, shape: withBatch(shape, axes), data };
}

function withBatch(shape: readonly number[], axes: readonly string[]): number[] {
  const result = [...shape];
  if (axes.includes("batch")) result.splice(axes.indexOf("batch"), 0, 1);
  return result;
}

/** Return an output of the network as a tensor without its batch axis. */
function withoutBatch(output: NetworkTensor | undefined, facts: TensorFacts): Tensor {
  if (output === undefined || output.shape.length !== facts.axes.length) {
    throw new UserError(`the network's output ${facts.id} has not the axes that the package declares; report this to its authors`);
  }
  const at = facts.axes.indexOf("batch");
  return {
    name: facts.id,
    dtype: output.dtype,
    axes: facts.axes.filter((_, i) => i !== at),
    shape: output.shape.filter((_, i) => i !== at),
    data: output.data,
  };
}

/** Write the kept part of a tile into the whole output. */
function pasteTile(tile: Tensor, whole: Tensor, y: Span, x: Span): void {
  const channels = sizesOf(tile).channel;
  const from = strideOf(tile.axes, tile.shape);
  const to = strideOf(whole.axes, whole.shape);
  for (let c = 0; c < channels; c++) {
    for (let row = y.start; row < y.stop; row++) {
      const source = c * from.channel + (row - y.outerStart) * from.y + (x.start - x.outerStart) * from.x;
      const target = c * to.channel + row * to.y + x.start * to.x;
      for (let i = 0; i < x.stop - x.start; i++) whole.data[target + i * to.x] = tile.data[source + i * from.x]!;
    }
  }
}

export interface Difference {
  largest: number;
  perMillion: number;
  agrees: boolean;
}

/** Run the package's own test tensor, and compare the results with the expected ones by the tolerance that the RDF declares. */
export async function checkTest(facts: Facts, input: ArrayBuffer, expected: ArrayBuffer[], run: RunNetwork): Promise<Difference> {
  const test = facts.test!;
  if (!isDtype(facts.input.dtype)) throw new UserError(`the data type ${facts.input.dtype} is not supported`);
  const at = facts.input.axes.indexOf("batch");
  const raw: Tensor = {
    name: facts.input.id,
    dtype: facts.input.dtype,
    axes: facts.input.axes.filter((_, i) => i !== at),
    shape: test.shape.filter((_, i) => i !== at),
    data: ensureDtype(
      { name: "", dtype: "float64", axes: [], shape: [], data: new Float64Array(input) },
      facts.input.dtype,
    ).data,
  };
  const ready = process(facts.input.operations, raw);
  const outputs = await run({ dtype: ready.dtype, shape: test.shape, data: ready.data });
  let [largest, wrong, count] = [0, 0, 0];
  facts.outputs.forEach((described, i) => {
    const found = process(described.operations, withoutBatch(outputs[i], described), { [raw.name]: raw }).data;
    const wanted = new Float32Array(expected[i]!);
    if (wanted.length === 0) return;
    if (found.length !== wanted.length) wrong = Infinity;
    for (let j = 0; j < wanted.length; j++) {
      const difference = Math.abs(found[j]! - wanted[j]!);
      if (!(difference <= largest)) largest = difference;
      if (!(difference <= test.absolute + test.relative * Math.abs(wanted[j]!))) wrong++;
    }
    count += wanted.length;
  });
  const perMillion = (1e6 * wrong) / Math.max(1, count);
  return { largest, perMillion, agrees: perMillion <= test.perMillion };
}
