/** The network, run by onnxruntime-web: WebGPU where there is one, else WebAssembly. */

import { isDtype, type Dtype, type Values } from "./tensor";
import { UserError } from "./tensor";

export type Device = "webgpu" | "wasm";

/** A build of onnxruntime-web: its JavaScript, and its WebAssembly. */
export interface Runtime {
  script: ArrayBuffer;
  wasm: ArrayBuffer;
}

export interface NetworkTensor {
  dtype: Dtype;
  shape: number[];
  data: Values;
}

interface OrtTensor {
  type: string;
  dims: readonly number[];
  data: Values | BigInt64Array | BigUint64Array;
  dispose(): void;
}

interface OrtSession {
  inputNames: readonly string[];
  outputNames: readonly string[];
  inputMetadata: readonly { type?: string }[];
  run(feeds: Record<string, unknown>): Promise<Record<string, OrtTensor>>;
}

interface Ort {
  env: { wasm: { numThreads: number; wasmBinary?: ArrayBuffer; proxy: boolean }; logLevel: string };
  Tensor: new (type: string, data: unknown, dims: readonly number[]) => OrtTensor;
  InferenceSession: { create(weights: Uint8Array, options: object): Promise<OrtSession> };
}

/**
 * Whether WebGPU can be tried here: the browser has it, and promise integration of WebAssembly, which the build for it needs.
 *
 * @param software whether an adapter counts that computes on the processor, which is slower than WebAssembly.
 */
export async function hasWebGpu(software: boolean): Promise<boolean> {
  if (!("gpu" in navigator) || !("Suspending" in WebAssembly)) return false;
  try {
    const adapter = await navigator.gpu.requestAdapter();
    return adapter !== null && (software || !adapter.info.isFallbackAdapter);
  } catch {
    return false;
  }
}

export function threadCount(): number {
  return globalThis.crossOriginIsolated ? Math.min(8, Math.max(1, navigator.hardwareConcurrency || 1)) : 1;
}

export class Network {
  private constructor(
    private readonly ort: Ort,
    private readonly session: OrtSession,
    readonly device: Device,
    readonly threads: number,
  ) {}

  /** Open the network from its ONNX weights. */
  static async open(runtime: Runtime, weights: Uint8Array, device: Device): Promise<Network> {
    const address = URL.createObjectURL(new Blob([runtime.script], { type: "text/javascript" }));
    const ort = (await import(/* @vite-ignore */ address)) as Ort;
    const threads = device === "wasm" ? threadCount() : 1;
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmBinary = runtime.wasm;
    const session = await ort.InferenceSession.create(weights, { executionProviders: [device] });
    return new Network(ort, session, device, threads);
  }

  /** Run the network on one tensor with its batch axis; return the outputs in the order of the file. */
  async run(input: NetworkTensor): Promise<NetworkTensor[]> {
    if (this.session.inputNames.length !== 1) {
      throw new UserError(`the network has ${this.session.inputNames.length} inputs, this page gives it one: use im2im-zoo predict`);
    }
    const type = this.session.inputMetadata[0]?.type ?? input.dtype;
    const tensor = new this.ort.Tensor(type, dataOf(type, input.data), input.shape);
    const outputs = await this.session.run({ [this.session.inputNames[0]!]: tensor });
    tensor.dispose();
    return this.session.outputNames.map((name) => {
      const output = outputs[name]!;
      const found = { dtype: dtypeOf(output.type), shape: [...output.dims], data: valuesOf(output) };
      output.dispose();
      return found;
    });
  }
}

/** Return values as onnxruntime-web takes them for a type. */
function dataOf(type: string, data: Values): unknown {
  switch (type) {
    case "float32":
      return data instanceof Float32Array ? data : Float32Array.from(data);
    case "float64":
      return data instanceof Float64Array ? data : Float64Array.from(data);
    case "bool":
    case "uint8":
      return Uint8Array.from(data);
    case "int8":
      return Int8Array.from(data);
    case "uint16":
      return Uint16Array.from(data);
    case "int16":
      return Int16Array.from(data);
    case "int32":
      return Int32Array.from(data);
    case "uint32":
      return Uint32Array.from(data);
    case "int64":
      return BigInt64Array.from(data as unknown as Float64Array, (value) => BigInt(Math.trunc(value as unknown as number))) as unknown;
    default:
      throw new UserError(`the network takes ${type}, which this page cannot give: export float32 ONNX weights`);
  }
}

function dtypeOf(type: string): Dtype {
  if (!isDtype(type)) throw new UserError(`the network returns ${type}, which this page cannot read: export float32 ONNX weights`);
  return type;
}

/** Return values that outlive the output; 64-bit integers become doubles. */
function valuesOf(output: OrtTensor): Values {
  if (output.data instanceof BigInt64Array || output.data instanceof BigUint64Array) {
    return Float64Array.from(output.data as unknown as ArrayLike<bigint>, Number);
  }
  return output.data.slice() as Values;
}
