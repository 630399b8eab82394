/** OME-Zarr 0.1 to 0.5: levels, axes and pixel sizes; planes are read by their chunks. The voxels are decoded by zarrita. */

import { type Array as ZarrArray, type DataType, get, isZarritaError, open, type Readable, root } from "zarrita";
import type { SourceImage } from "./image";
import type { Level, Source } from "./protocol";
import { type Dtype, isDtype, message, UserError, type Values } from "./tensor";
import { FolderStore, parseAddress, ReadQueue, WebStore, withoutFolder, type ZarrStore, zipStore } from "./zarrStores";

/** Most pixels of a plane: beyond it the browser's memory ends. */
const MAX_PIXELS = 2 ** 28;
/** Most pixels of the level that is chosen first. */
const USUAL_PIXELS = 2 ** 24;
const AXES = ["t", "c", "z", "y", "x"];
const MICROMETERS: Record<string, number> = { micrometer: 1, nanometer: 1e-3, millimeter: 1e3, centimeter: 1e4, meter: 1e6, angstrom: 1e-4 };

interface Scale {
  type?: string;
  scale?: number[];
}

interface Multiscale {
  axes?: (string | { name?: string; unit?: string })[];
  datasets?: { path?: string; coordinateTransformations?: Scale[] }[];
  coordinateTransformations?: Scale[];
}

interface Attributes {
  multiscales?: Multiscale[];
  omero?: { channels?: { label?: unknown }[] };
  plate?: { wells?: { path?: string }[] };
  well?: { images?: { path?: string }[] };
  labels?: string[];
  "bioformats2raw.layout"?: number;
}

/** Open an OME-Zarr by its address, or as a folder. */
export async function openZarr(source: Source & { kind: "folder" | "address" }, level: number | null): Promise<SourceImage> {
  if (source.kind === "address") return openStore(new WebStore(parseAddress(source.address)), source.name, level);
  return openStore(new FolderStore(withoutFolder(source.files)), source.name, level);
}

/** Open an OME-Zarr in a zip. */
export async function openZippedZarr(file: File, level: number | null): Promise<SourceImage> {
  return openStore(zipStore(file), file.name, level);
}

async function openStore(store: ZarrStore, name: string, level: number | null): Promise<SourceImage> {
  const image = await readable(store, name, () => openImage(store, name, level));
  return { ...image, read: (channel, plane) => readable(store, name, () => image.read(channel, plane)) };
}

/** Do something with a zarr; report errors of its decoders as what they mean for the image. */
async function readable<T>(store: ZarrStore, name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UserError) throw error;
    if (isZarritaError(error, "NotFoundError")) {
      throw store.problem ?? new UserError(`${name} is no OME-Zarr: choose the folder, or enter the address, that has zarr.json or .zattrs in it`);
    }
    const codec = isZarritaError(error, "UnknownCodecError") ? error.codec.replace(/^numcodecs\./, "") : null;
    if (codec !== null) throw new UserError(`${name} is compressed with ${codec}, which this page cannot read: use im2im-zoo predict`);
    const cause = error instanceof Error && error.cause !== undefined ? `; ${message(error.cause)}` : "";
    throw new UserError(`${name} is damaged or no OME-Zarr that this page can read (${message(error)}${cause}): use im2im-zoo predict`);
  }
}

async function openImage(store: ZarrStore, name: string, level: number | null): Promise<SourceImage> {
  const notes: string[] = [];
  let location = root(store);
  const openNode = await versionOf(location);
  let attributes = await attributesOf(location, openNode);
  if (attributes.multiscales === undefined && attributes["bioformats2raw.layout"] !== undefined) {
    notes.push("This OME-Zarr may hold several images: the first one is read. For another one, open it alone (its folder, or its address with /1 at the end).");
    location = location.resolve("0");
    attributes = await attributesOf(location, openNode);
  }
  const multiscale = attributes.multiscales?.[0];
  if (multiscale?.datasets === undefined || multiscale.datasets.length === 0) throw new UserError(`${name} ${describe(attributes, store)}`);
  const arrays = [];
  for (const { path } of multiscale.datasets) arrays.push(await openNode(location.resolve(String(path)), { kind: "array" }));
  const axes = axesOf(multiscale, arrays[0]!.shape.length);
  const levels = arrays.map((array) => levelOf(array, axes));
  const chosen = level ?? usualLevel(levels);
  const array = arrays[chosen];
  if (array === undefined || !levels[chosen]!.fits) {
    const { width, height } = levels[chosen] ?? levels.at(-1)!;
    throw new UserError(`${name} has ${width} x ${height} pixels, more than the ${MAX_PIXELS.toLocaleString("en")} that a page can run: use im2im-zoo predict`);
  }
  if (level === null && chosen > 0) {
    notes.push(`The finest level has ${levels[0]!.width} x ${levels[0]!.height} pixels, so a coarser one is chosen. Choose the level whose pixels have the size that the model was trained on.`);
  }
  const sizeOf = (axis: string): number => (axes.includes(axis) ? array.shape[axes.indexOf(axis)]! : 1);
  const channels = sizeOf("c");
  const labels = attributes.omero?.channels ?? [];
  let kept: { key: string; values: Promise<Values> } | null = null;
  return {
    format: "OME-Zarr",
    width: sizeOf("x"),
    height: sizeOf("y"),
    dtype: dtypeOf(array.dtype, name),
    channels,
    channelNames: Array.from({ length: channels }, (_, i) => (typeof labels[i]?.label === "string" ? (labels[i]!.label as string) : null)),
    slices: sizeOf("z"),
    frames: sizeOf("t"),
    pixelSize: pixelSizeOf(multiscale, chosen, axes),
    notes,
    pyramid: { levels, level: chosen },
    read: async (channel, plane) => {
      const key = `${channel} ${plane}`;
      if (kept?.key !== key) kept = { key, values: readPlane(array, axes, { c: channel, z: plane % sizeOf("z"), t: Math.floor(plane / sizeOf("z")) }) };
      try {
        return (await kept.values).slice() as Values;
      } catch (error) {
        kept = null;
        throw error;
      }
    },
  };
}

type Place = ReturnType<typeof root<ZarrStore>>;
type OpenNode = typeof open.v3;

/** Return what opens the nodes of a zarr: that of version 3, unless there is only the older metadata. */
async function versionOf(location: Place): Promise<OpenNode> {
  try {
    await open.v3(location);
  } catch (error) {
    if (!isZarritaError(error, "NotFoundError", "InvalidMetadataError")) throw error;
    try {
      await open.v2(location);
      return open.v2 as OpenNode;
    } catch (older) {
      throw isZarritaError(error, "NotFoundError") ? older : error;
    }
  }
  return open.v3;
}

/** Return the OME attributes of a group, which 0.5 has in a key of their own. */
async function attributesOf(location: Place, openNode: OpenNode): Promise<Attributes> {
  const found = await openNode(location);
  const attributes = found.attrs as Attributes & { ome?: Attributes };
  return attributes.ome ?? attributes;
}

/** Return what a zarr without an image is, and what to open instead. */
function describe(attributes: Attributes, store: ZarrStore): string {
  const example = (path: string | undefined): string => (path === undefined ? "" : `, such as ${path}`);
  if (attributes.plate !== undefined) {
    const well = attributes.plate.wells?.[0]?.path;
    return `is a plate of wells: open one of its images${example(well && `${well}/0`)} in it`;
  }
  if (attributes.well !== undefined) return `is a well of a plate: open one of its images${example(attributes.well.images?.[0]?.path)} in it`;
  if (attributes.labels !== undefined) return `is a group of label images: open one of them${example(attributes.labels[0])} in it`;
  if (store.problem !== undefined) throw store.problem;
  return "is a zarr without the metadata of an image (multiscales): open the OME-Zarr of an image";
}

function axesOf(multiscale: Multiscale, count: number): string[] {
  const names = multiscale.axes?.map((axis) => (typeof axis === "string" ? axis : (axis.name ?? ""))) ?? AXES.slice(-count);
  if (names.length !== count) throw new UserError(`the metadata of this OME-Zarr names ${names.length} axes, but its array has ${count}: write it again`);
  const lower = names.map((axis) => axis.toLowerCase());
  if (!lower.includes("y") || !lower.includes("x")) throw new UserError(`this OME-Zarr has the axes ${names.join(", ")}, but a page needs y and x`);
  return lower;
}

function levelOf(array: ZarrArray<DataType, Readable>, axes: readonly string[]): Level {
  if (array.shape.length !== axes.length) throw new UserError("the levels of this OME-Zarr have different axes: write it again");
  const other = axes.findIndex((axis, i) => !AXES.includes(axis) && array.shape[i]! > 1);
  if (other >= 0) throw new UserError(`this OME-Zarr has the axis ${axes[other]}, which a page cannot read: use im2im-zoo predict`);
  const [height, width] = [array.shape[axes.indexOf("y")]!, array.shape[axes.indexOf("x")]!];
  return { width, height, fits: width * height <= MAX_PIXELS };
}

/** Return the finest level of a usual size; if there is none, the finest that fits. */
function usualLevel(levels: readonly Level[]): number {
  const usual = levels.findIndex(({ width, height }) => width * height <= USUAL_PIXELS);
  return usual >= 0 ? usual : Math.max(0, levels.findIndex(({ fits }) => fits));
}

function pixelSizeOf(multiscale: Multiscale, level: number, axes: readonly string[]): { y: number; x: number } | null {
  const size = (axis: string): number | null => {
    const at = axes.indexOf(axis);
    const described = multiscale.axes?.[at];
    const unit = typeof described === "object" ? MICROMETERS[described.unit ?? ""] : undefined;
    const scales = [...(multiscale.datasets![level]!.coordinateTransformations ?? []), ...(multiscale.coordinateTransformations ?? [])];
    const factors = scales.filter(({ type }) => type === "scale").map(({ scale }) => Number(scale?.[at]));
    const product = factors.reduce((a, b) => a * b, 1);
    return unit !== undefined && factors.length > 0 && product > 0 ? product * unit : null;
  };
  const [y, x] = [size("y"), size("x")];
  return y !== null && x !== null ? { y, x } : null;
}

function dtypeOf(dtype: DataType, name: string): Dtype {
  if (String(dtype) === "float16") return "float32";
  if (isDtype(dtype)) return dtype;
  throw new UserError(`${name} has values of the type ${dtype}, which this page cannot read: use im2im-zoo predict`);
}

/** Return a plane (y, x) of an array, in memory of that order. */
async function readPlane(array: ZarrArray<DataType, Readable>, axes: readonly string[], place: Record<string, number>): Promise<Values> {
  const selection = axes.map((axis) => (axis === "y" || axis === "x" ? null : (place[axis] ?? 0)));
  const { data, shape, stride } = await get(array, selection, { createQueue: () => new ReadQueue() });
  const isFirst = axes.indexOf("y") < axes.indexOf("x");
  const [height, width] = isFirst ? [shape[0]!, shape[1]!] : [shape[1]!, shape[0]!];
  const [down, right] = isFirst ? [stride[0]!, stride[1]!] : [stride[1]!, stride[0]!];
  const values = plainValues(data);
  if (right === 1 && down === width) return values;
  const ordered = new (values.constructor as new (length: number) => Values)(values.length);
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i++) ordered[i] = values[y * down + x * right]!;
  return ordered;
}

/** Return values as the page keeps them: 64-bit integers in doubles, 16-bit floats in 32 bits, booleans in bytes. */
function plainValues(data: unknown): Values {
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return Float64Array.from(data, Number);
  if (data instanceof Uint8ClampedArray) return new Uint8Array(data);
  const known = [Uint8Array, Int8Array, Uint16Array, Int16Array, Uint32Array, Int32Array, Float32Array, Float64Array];
  if (known.some((type) => data instanceof type)) return data as Values;
  const other = data as Iterable<number | boolean> & { length: number; get?: unknown };
  return typeof other.get === "function" ? Uint8Array.from(other as Iterable<boolean>, Number) : Float32Array.from(other as Iterable<number>);
}
