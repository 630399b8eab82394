/** Messages between the page and its worker. */

import type { Device } from "./network";
import type { Difference } from "./predict";
import type { Dtype } from "./tensor";
import type { WatershedSettings } from "./watershed";

/** Parts of the page, by their names. */
export type Parts = Record<string, Blob>;

/** Where an image is. A folder lists its files by their paths in it, with `/`. */
export type Source =
  | { kind: "test" }
  | { kind: "file"; name: string; file: File }
  | { kind: "folder"; name: string; files: [path: string, file: File][] }
  | { kind: "address"; name: string; address: string };

export interface ImageInfo {
  format: string;
  width: number;
  height: number;
  dtype: Dtype;
  channels: number;
  channelNames: (string | null)[];
  /** Planes beside the channels: z positions and time points, z first. */
  slices: number;
  frames: number;
  /** Micrometers of a pixel, if the file states them. */
  pixelSize: { y: number; x: number } | null;
  notes: string[];
  /** Of a pyramid: its levels, the finest first, and the number of this one. */
  pyramid?: { levels: Level[]; level: number };
}

export interface Level {
  width: number;
  height: number;
  /** Whether the page can run it. */
  fits: boolean;
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

export type LabelSettings = { plane: number } & (
  | { kind: "components"; channel: number; threshold: number; minSize: number }
  | ({ kind: "watershed" } & WatershedSettings)
);

export interface Calls {
  start: { args: [facts: string, parts: Parts]; result: null };
  open: { args: [source: Source, level: number | null]; result: ImageInfo };
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
