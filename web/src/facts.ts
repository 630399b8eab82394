/** The facts of a package that the page needs, written by `im2im_zoo/workflows/browser/facts.py`. */

import type { Operation } from "./operations";
import type { Grid, PadMode } from "./tiling";
import type { WatershedSettings } from "./watershed";

export interface TensorFacts {
  id: string;
  /** Ids of the axes in the tensor's order; y and x are named so, `batch` and `channel` are optional. */
  axes: string[];
  dtype: string;
  channels: string[];
  /** Preprocessing of the input, postprocessing of an output. */
  operations: Operation[];
}

export interface AxisFacts {
  grid: Grid;
  halo: number;
  cut: boolean;
}

export interface Facts {
  name: string;
  version: string | null;
  description: string;
  authors: string[];
  citations: { text: string; url: string | null }[];
  license: string | null;
  input: TensorFacts & { pad: PadMode; pixelSize: { y: number; x: number; unit: string } | null };
  outputs: TensorFacts[];
  y: AxisFacts;
  x: AxisFacts;
  /** Why tiles differ from the whole image, if they do. */
  tilesDiffer: string | null;
  /** How the package makes objects of the maps of an output. */
  instances:
    | null
    | { kind: "components"; output: string; channel: number; threshold: number; minSize: number }
    | ({ kind: "watershed"; output: string } & WatershedSettings)
    | { kind: "program"; output: string | null; method: string };
  /** Sizes and tolerance of the package's test tensors, whose values are parts of the page; null if they are too large. */
  test: { shape: number[]; expected: number[][]; absolute: number; relative: number; perMillion: number } | null;
  parts: Record<string, { bytes: number; chunks: number }>;
  command: string;
  version_of_page: string;
}
