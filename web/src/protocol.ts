/** Messages between the page and its worker. */

import type { Device } from "./network";
import type { Difference } from "./predict";
import type { Dtype } from "./tensor";

/** Parts of the page, by their names. */
export type Parts = Record<string, Blob>;

export interface ImageInfo {
  format: string;
  width: number;
  height: number;
  dtype: Dtype;
  channels: number;
  channelNames: (string | null)[];
  slices: number;
  frames: number;
  pixelSize: { y: number; x: number } | null;
  notes: string[];
}

/** A reduced picture of a map: one value a pixel. */
export interface Preview {
  width: number;
  height: number;
  values: Float32Array;
  /** Values to show as black and white. */
  low: number;
  high: number;
}

export interface RunSettings {
  /** For each channel of the model, the channel of the image. */
  channels: number[];
  planes: number[];
  output: number;
  device: "auto" | Device;
  /** The most pixels of a tile. */
  limit: number;
}

export interface RunResult {
  channels: number;
  dtype: Dtype;
  seconds: number;
  tiles: number;
  tile: { y: number; x: number };
  device: Device;
  threads: number;
  check: Difference | null;
  notes: string[];
}

export interface LabelSettings {
  channel: number;
  plane: number;
  threshold: number;
  minSize: number;
}

export interface Calls {
  start: { args: [facts: string, parts: Parts]; result: null };
  open: { args: [file: File]; result: ImageInfo };
  openTest: { args: []; result: ImageInfo };
  preview: { args: [channel: number, plane: number]; result: Preview };
  run: { args: [settings: RunSettings]; result: RunResult };
  resultPreview: { args: [channel: number, plane: number]; result: Preview };
  labels: { args: [settings: LabelSettings]; result: { count: number; preview: Preview } };
  tiff: { args: [what: "result" | "labels"]; result: Blob };
}

export type Request = { [K in keyof Calls]: { id: number; call: K; args: Calls[K]["args"] } }[keyof Calls];

export type Reply =
  | { id: number; kind: "result"; value: unknown }
  | { id: number; kind: "error"; message: string; isUser: boolean }
  | { kind: "progress"; stage: string; done: number; total: number };
