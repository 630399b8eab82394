/** The worker of the page: reads images, runs the package, keeps the result. */

import { components } from "./components";
import type { Facts } from "./facts";
import { openImage, type SourceImage } from "./image";
import { type Device, hasWebGpu, Network, type Runtime } from "./network";
import { checkTest, type Difference, type Plane, predict, tilingOf } from "./predict";
import type { Calls, ImageInfo, LabelSettings, Parts, Preview, Reply, Request, RunResult, RunSettings, Source } from "./protocol";
import { type Dtype, isDtype, isFloat, message, transpose, UserError, type Values } from "./tensor";
import { writeTiff } from "./tiffWriter";
import { watershed } from "./watershed";
import { openZarr } from "./zarr";

const PREVIEW_SIZE = 1024;

interface Result {
  dtype: Dtype;
  width: number;
  height: number;
  channels: number;
  /** By plane, the channels (y, x). */
  planes: Values[][];
}

let facts: Facts;
let parts: Parts;
let image: SourceImage | null = null;
let result: Result | null = null;
let labels: { values: Int32Array; width: number; height: number } | null = null;
let network: { network: Network; check: Difference | null; notes: string[]; wanted: string } | null = null;

const calls: { [K in keyof Calls]: (...args: Calls[K]["args"]) => Promise<Calls[K]["result"]> } = {
  start: async (plain, given) => {
    facts = JSON.parse(plain) as Facts;
    parts = given;
    return null;
  },
  open: async (source, level) => infoOf((image = await openSource(source, level))),
  preview: async (channel, plane) => {
    const { width, height, dtype } = opened();
    return reduce(await opened().read(channel, plane), width, height, isProbability(dtype, null) ? "range" : "percentiles");
  },
  run,
  resultPreview: async (channel, plane) => {
    const { planes, width, height, dtype } = finished();
    const values = planes[plane]![channel]!;
    return reduce(values, width, height, isProbability(dtype, values) ? "range" : "percentiles");
  },
  labels: async (settings: LabelSettings) => {
    const { planes, width, height } = finished();
    const maps = planes[settings.plane]!;
    const found =
      settings.kind === "watershed"
        ? watershed(maps, height, width, settings)
        : components(Float32Array.from(maps[settings.channel]!), height, width, settings.threshold, settings.minSize);
    labels = { values: found.values, width, height };
    return { count: found.count, preview: reduce(found.values, width, height, "labels") };
  },
  tiff: async (what) => {
    if (what === "labels") {
      if (labels === null) throw new UserError("there are no objects yet: count them first");
      return new Blob(writeTiff([labels.values], "int32", labels.width, labels.height, 1), { type: "image/tiff" });
    }
    const { planes, dtype, width, height, channels } = finished();
    return new Blob(writeTiff(planes.flat(), dtype, width, height, channels), { type: "image/tiff" });
  },
};

async function openSource(source: Source, level: number | null): Promise<SourceImage> {
  if (source.kind === "test") return testImage();
  return source.kind === "file" ? openImage(source.file, level) : openZarr(source, level);
}

function opened(): SourceImage {
  if (image === null) throw new UserError("there is no image: choose one first");
  return image;
}

function finished(): Result {
  if (result === null) throw new UserError("there is no result: run the model first");
  return result;
}

function infoOf({ read: _, ...info }: SourceImage): ImageInfo {
  return info;
}

async function run(settings: RunSettings): Promise<RunResult> {
  const source = opened();
  result = labels = null;
  const { network: found, check, notes } = await openNetwork(settings.device);
  const started = performance.now();
  const planes: Values[][] = [];
  let dtype: Dtype = "float32";
  for (const [number, place] of settings.planes.entries()) {
    const plane: Plane = { height: source.height, width: source.width, dtype: source.dtype, channels: [] };
    for (const channel of settings.channels) plane.channels.push(await source.read(channel, place));
    const output = await predict(facts, plane, settings.output, (tile) => pausing(found.run(tile)), settings.limit, ({ done, total }) => {
      report("Running", number * total + done, settings.planes.length * total);
    });
    dtype = output.dtype;
    planes.push(channelsOf(transpose(output, ["channel", "y", "x"].filter((axis) => output.axes.includes(axis)))));
  }
  const channels = planes[0]!.length;
  result = { dtype, width: source.width, height: source.height, channels, planes };
  const tiling = tilingOf(facts, source.height, source.width, settings.limit);
  return {
    channels,
    dtype,
    seconds: (performance.now() - started) / 1000,
    tiles: tiling.y.length * tiling.x.length * settings.planes.length,
    tile: tiling.tile,
    device: found.device,
    threads: found.threads,
    check,
    notes,
  };
}

function channelsOf(output: { shape: number[]; data: Values }): Values[] {
  const size = output.shape.slice(-2).reduce((a, b) => a * b, 1);
  return Array.from({ length: output.data.length / size }, (_, c) => output.data.subarray(c * size, (c + 1) * size) as Values);
}

/** Open the network once: on WebGPU only if the package's own test image gives the expected result there. */
async function openNetwork(wanted: RunSettings["device"]): Promise<NonNullable<typeof network>> {
  if (network?.wanted === wanted) return network;
  network = null;
  report("Opening the network", 0, 0);
  const weights = new Uint8Array(await parts.weights!.arrayBuffer());
  const notes: string[] = [];
  if (wanted !== "wasm" && (await hasWebGpu(wanted === "webgpu"))) {
    try {
      const found = await open("webgpu", weights);
      if (found.check === null || found.check.agrees || wanted === "webgpu") return (network = { ...found, notes, wanted });
      notes.push("The graphics processor does not give the package's expected result, so the processor is used.");
    } catch (error) {
      if (wanted === "webgpu") throw new UserError(`the network cannot be run with WebGPU (${message(error)}): choose the processor under Options`);
      notes.push(`The network cannot be run with WebGPU (${message(error)}), so the processor is used.`);
    }
  } else if (wanted === "webgpu") {
    throw new UserError("this browser has no WebGPU for this page: choose the processor under Options");
  }
  try {
    return (network = { ...(await open("wasm", weights)), notes, wanted });
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`the network cannot be opened (${message(error)}): use im2im-zoo predict`);
  }
}

async function open(device: Device, weights: Uint8Array): Promise<{ network: Network; check: Difference | null }> {
  const name = device === "webgpu" ? "ort_webgpu" : "ort_wasm";
  const runtime: Runtime = {
    script: await parts[`${name}_script`]!.arrayBuffer(),
    wasm: await parts[name]!.arrayBuffer(),
  };
  const found = await Network.open(runtime, weights, device);
  if (facts.test === null) return { network: found, check: null };
  report("Checking the network on the package's test image", 0, 0);
  const expected = await Promise.all(facts.outputs.map((_, i) => parts[`test_output_${i}`]!.arrayBuffer()));
  const check = await checkTest(facts, await parts.test_input!.arrayBuffer(), expected, (tile) => found.run(tile));
  return { network: found, check };
}

/** Return the package's own test image. */
async function testImage(): Promise<SourceImage> {
  const { test, input } = facts;
  if (test === null || !isDtype(input.dtype)) throw new UserError("the package has no test image in this page: choose an image");
  const at = input.axes.indexOf("batch");
  const axes = input.axes.filter((_, i) => i !== at);
  const tensor = {
    name: input.id,
    dtype: input.dtype,
    axes,
    shape: test.shape.filter((_, i) => i !== at),
    data: new Float64Array(await parts.test_input!.arrayBuffer()) as Values,
  };
  const ordered = transpose({ ...tensor, dtype: "float64" }, ["channel", "y", "x"].filter((axis) => axes.includes(axis)));
  const arrays = channelsOf(ordered);
  const exact = { uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array }[input.dtype as string] ?? Float64Array;
  const channels = arrays.map((values) => exact.from(values) as Values);
  return {
    format: "test image of the package",
    width: ordered.shape.at(-1)!,
    height: ordered.shape.at(-2)!,
    dtype: exact === Float64Array ? "float64" : input.dtype,
    channels: channels.length,
    channelNames: input.channels,
    slices: 1,
    frames: 1,
    pixelSize: null,
    notes: [],
    read: async (channel) => channels[channel]!,
  };
}

/** Let messages in after each tile. */
async function pausing<T>(work: Promise<T>): Promise<T> {
  const value = await work;
  await new Promise((resolve) => setTimeout(resolve));
  return value;
}

function isProbability(dtype: Dtype, values: Values | null): boolean {
  if (dtype === "bool") return true;
  if (!isFloat(dtype) || values === null) return false;
  for (let i = 0; i < values.length; i++) if (!(values[i]! >= 0 && values[i]! <= 1)) return false;
  return true;
}

/** Return a picture of at most `PREVIEW_SIZE` pixels a side: means, or for labels the value in the middle. */
function reduce(values: Values, width: number, height: number, kind: "range" | "percentiles" | "labels"): Preview {
  const factor = Math.max(1, Math.ceil(Math.max(width, height) / PREVIEW_SIZE));
  const [w, h] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const small = new Float32Array(w * h);
  const middle = factor >> 1;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      if (kind === "labels") {
        small[y * w + x] = values[Math.min(y * factor + middle, height - 1) * width + Math.min(x * factor + middle, width - 1)]!;
        continue;
      }
      const [bottom, right] = [Math.min((y + 1) * factor, height), Math.min((x + 1) * factor, width)];
      let sum = 0;
      for (let i = y * factor; i < bottom; i++) for (let j = x * factor; j < right; j++) sum += values[i * width + j]!;
      small[y * w + x] = sum / ((bottom - y * factor) * (right - x * factor));
    }
  }
  const sorted = kind === "percentiles" ? small.filter(Number.isFinite).sort() : null;
  const at = (fraction: number): number => sorted![Math.floor(fraction * (sorted!.length - 1))] ?? 0;
  return { width: w, height: h, values: small, low: sorted ? at(0.003) : 0, high: sorted ? at(0.997) : 1 };
}

function report(stage: string, done: number, total: number): void {
  post({ kind: "progress", stage, done, total });
}

function post(reply: Reply): void {
  (self as unknown as { postMessage(reply: Reply): void }).postMessage(reply);
}

self.onmessage = async (event: MessageEvent<Request>) => {
  const { id, call, args } = event.data;
  try {
    const work = calls[call] as (...args: unknown[]) => Promise<unknown>;
    post({ id, kind: "result", value: await work(...args) });
  } catch (error) {
    post({ id, kind: "error", message: message(error), isUser: error instanceof UserError });
  }
};
