/** TIFF: planes, channels and pixel sizes of plain, ImageJ and OME files. The voxels are decoded by geotiff. */

import { fromArrayBuffer, fromBlob, type GeoTIFF, type GeoTIFFImage } from "geotiff";
import type { SourceImage } from "./image";
import { type Dtype, message, UserError, type Values } from "./tensor";

const COMPRESSIONS: Record<number, string> = {
  1: "none", 2: "CCITT", 3: "CCITT T.4", 4: "CCITT T.6", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate", 9: "JBIG", 10: "JBIG",
  32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
  34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 22610: "JPEG XR", 34934: "JPEG XR", 52546: "JPEG XL",
};
const MAX_IN_MEMORY = 2 ** 30;
const READABLE = new Set([1, 5, 7, 8, 32773, 32946, 50000]);

/** Planes of a file: how its pages are arranged, and what is known of the pixels. */
interface Arrangement {
  channels: number;
  slices: number;
  frames: number;
  /** Axes of the pages, the fastest first. */
  order: string;
  names: (string | null)[];
  pixelSize: { y: number; x: number } | null;
}

export async function openTiff(file: File): Promise<SourceImage> {
  const image = await readable(file, () => open(file));
  return { ...image, read: (channel, plane) => readable(file, () => image.read(channel, plane)) };
}

/** Do something with a file; say of any error of its decoders that the file is damaged. */
async function readable<T>(file: File, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${file.name} is damaged or no TIFF that this page can read (${message(error)}): save it again from Fiji`);
  }
}

async function open(file: File): Promise<SourceImage> {
  // Larger files are read in parts, which is slower.
  const tiff = file.size <= MAX_IN_MEMORY ? await fromArrayBuffer(await file.arrayBuffer()) : await fromBlob(file);
  const first = await tiff.getImage(0);
  const tags = await tagsOf(first);
  if (!READABLE.has(tags.compression)) {
    const name = COMPRESSIONS[tags.compression] ?? `method ${tags.compression}`;
    throw new UserError(
      `this TIFF is compressed with ${name}, which the page cannot read: save it uncompressed from Fiji (File > Save As > Tiff)`,
    );
  }
  const dtype = dtypeOf(tags.format, tags.bits);
  const samples = first.getSamplesPerPixel();
  const [width, height] = [first.getWidth(), first.getHeight()];
  const pages = await samePages(tiff, width, height, samples);
  const stored = virtualPages(tags, pages.length, samples);
  const count = stored ?? pages.length;
  const arrangement = arrange(tags.description, count) ?? plain(count);
  const { channels, slices, frames, order, names } = arrangement;
  const { resolution } = tags;
  const inMicrometers = /^unit=(micron|um|µm|\\u00B5m)\s*$/m.test(tags.description) && resolution !== null;
  const isColour = samples >= 3 && (tags.photometric === 2 || tags.photometric === 6);
  const notes: string[] = [];
  if (count !== channels * slices * frames) throw new UserError("the pages of this TIFF do not match its description: save it again from Fiji");
  let kept: { page: number; rasters: Values[] } | null = null;
  const rastersOf = async (page: number): Promise<Values[]> => {
    if (kept?.page !== page) {
      const rasters = stored === null ? await decode(pages[page]!, tags.photometric === 6) : await virtualPage(file, tags, page, dtype, width, height);
      kept = { page, rasters };
    }
    return kept.rasters;
  };
  return {
    format: tags.description.startsWith("ImageJ=") ? "ImageJ TIFF" : tags.description.includes("<OME") ? "OME-TIFF" : "TIFF",
    width,
    height,
    dtype,
    channels: channels * samples,
    channelNames: samples === 1 ? names : colourNames(samples, channels, isColour),
    slices,
    frames,
    pixelSize: inMicrometers ? { y: 1 / resolution.y, x: 1 / resolution.x } : arrangement.pixelSize,
    notes,
    read: async (channel, plane) => {
      const place: Record<string, number> = { C: Math.floor(channel / samples), Z: plane % slices, T: Math.floor(plane / slices) };
      const sizes: Record<string, number> = { C: channels, Z: slices, T: frames };
      let page = 0;
      let step = 1;
      for (const axis of order) {
        page += place[axis]! * step;
        step *= sizes[axis]!;
      }
      // A copy: the page is kept for the other channels.
      return (await rastersOf(page))[channel % samples]!.slice() as Values;
    },
  };
}

interface Tags {
  compression: number;
  photometric: number;
  bits: number;
  format: number;
  description: string;
  offset: number;
  littleEndian: boolean;
  /** Pixels per unit of ImageJ's description, along y and x. */
  resolution: { y: number; x: number } | null;
}

async function tagsOf(image: GeoTIFFImage): Promise<Tags> {
  const directory = image.fileDirectory as unknown as { loadValue(tag: string): Promise<unknown> };
  const load = async (tag: string): Promise<unknown> => {
    try {
      return await directory.loadValue(tag);
    } catch {
      return undefined;
    }
  };
  const number = async (tag: string, fallback: number): Promise<number> => {
    const value = await load(tag);
    const first = ArrayBuffer.isView(value) || Array.isArray(value) ? (value as unknown as ArrayLike<number>)[0] : value;
    return typeof first === "number" || typeof first === "bigint" ? Number(first) : fallback;
  };
  const description = await load("ImageDescription");
  return {
    compression: await number("Compression", 1),
    photometric: await number("PhotometricInterpretation", 1),
    bits: await number("BitsPerSample", 1),
    format: await number("SampleFormat", 1),
    description: typeof description === "string" ? description.replace(/\0+$/, "") : "",
    offset: await number("StripOffsets", 0),
    littleEndian: (image as unknown as { littleEndian: boolean }).littleEndian,
    resolution: resolutionOf(await load("YResolution"), await load("XResolution")),
  };
}

function resolutionOf(y: unknown, x: unknown): { y: number; x: number } | null {
  const ratio = (value: unknown): number => {
    const [above, below] = ArrayBuffer.isView(value) || Array.isArray(value) ? (value as unknown as number[]) : [];
    return above !== undefined && below ? above / below : 0;
  };
  const found = { y: ratio(y), x: ratio(x) };
  return found.y > 0 && found.x > 0 ? found : null;
}

function dtypeOf(format: number, bits: number): Dtype {
  if (format === 3 && (bits === 16 || bits === 32)) return "float32";
  if (format === 3 && bits === 64) return "float64";
  if (format === 1 || format === 4) {
    if (bits <= 8) return "uint8";
    if (bits <= 16) return "uint16";
    if (bits === 32) return "uint32";
  }
  if (format === 2) {
    if (bits === 8) return "int8";
    if (bits === 16) return "int16";
    if (bits === 32) return "int32";
  }
  throw new UserError(`this TIFF has ${bits}-bit values of the sample format ${format}, which the page cannot read: save it as 16 or 32 bit from Fiji`);
}

/** Return the pages of the size of the first one; others are thumbnails or levels of a pyramid. */
async function samePages(tiff: GeoTIFF, width: number, height: number, samples: number): Promise<GeoTIFFImage[]> {
  const count = await tiff.getImageCount();
  const pages: GeoTIFFImage[] = [];
  for (let i = 0; i < count; i++) {
    const page = await tiff.getImage(i);
    if (page.getWidth() === width && page.getHeight() === height && page.getSamplesPerPixel() === samples) pages.push(page);
  }
  return pages;
}

async function decode(page: GeoTIFFImage, isYCbCr: boolean): Promise<Values[]> {
  const rasters = isYCbCr ? await page.readRGB({ interleave: false }) : await page.readRasters({ interleave: false });
  return [...(rasters as unknown as Values[])];
}

/** Return the number of pages that ImageJ stores one after the other behind a single directory; null if each page has its own. */
function virtualPages(tags: Tags, pages: number, samples: number): number | null {
  const images = Number(/^images=(\d+)/m.exec(tags.description)?.[1] ?? 0);
  return tags.description.startsWith("ImageJ=") && pages === 1 && images > 1 && samples === 1 && tags.compression === 1 ? images : null;
}

async function virtualPage(file: File, tags: Tags, page: number, dtype: Dtype, width: number, height: number): Promise<Values[]> {
  const arrays: Partial<Record<Dtype, new (buffer: ArrayBuffer) => Values>> = { uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array };
  const make = arrays[dtype];
  if (make === undefined) throw new UserError(`this ImageJ stack has ${dtype} values, which the page cannot read: save it as 16 or 32 bit from Fiji`);
  const bytes = (tags.bits / 8) * width * height;
  const buffer = await file.slice(tags.offset + page * bytes, tags.offset + (page + 1) * bytes).arrayBuffer();
  if (buffer.byteLength < bytes) throw new UserError(`${file.name} ends before its last plane: it is incomplete; copy it again`);
  if (!tags.littleEndian && tags.bits > 8) {
    const view = new DataView(buffer);
    for (let i = 0; i < bytes; i += tags.bits / 8) {
      if (tags.bits === 16) view.setUint16(i, view.getUint16(i), true);
      else view.setUint32(i, view.getUint32(i), true);
    }
  }
  return [new make(buffer)];
}

function plain(count: number): Arrangement {
  return { channels: 1, slices: count, frames: 1, order: "CZT", names: [null], pixelSize: null };
}

/** Return how the pages are arranged by the description of ImageJ or OME; null if it says nothing that matches. */
export function arrange(description: string, pages: number): Arrangement | null {
  const found = description.startsWith("ImageJ=") ? imagej(description) : description.includes("<OME") ? ome(description) : null;
  return found !== null && found.channels * found.slices * found.frames === pages ? found : null;
}

function imagej(description: string): Arrangement {
  const read = (key: string): number => Number(new RegExp(`^${key}=(\\d+)`, "m").exec(description)?.[1] ?? 1);
  const [images, channels, frames] = [read("images"), read("channels"), read("frames")];
  const slices = /^slices=/m.test(description) ? read("slices") : Math.max(1, Math.round(images / channels / frames));
  return { channels, slices, frames, order: "CZT", names: new Array<null>(channels).fill(null), pixelSize: null };
}

function ome(description: string): Arrangement | null {
  const pixels = /<Pixels\b[^>]*>/.exec(description)?.[0];
  if (pixels === undefined) return null;
  const read = (key: string): string | undefined => new RegExp(`\\b${key}="([^"]*)"`).exec(pixels)?.[1];
  const samples = Number(/\bSamplesPerPixel="(\d+)"/.exec(description)?.[1] ?? 1);
  const channels = Math.max(1, Number(read("SizeC") ?? 1) / samples);
  const order = (read("DimensionOrder") ?? "XYCZT").slice(2);
  const names = [...description.matchAll(/<Channel\b[^>]*>/g)].map((tag) => /\bName="([^"]*)"/.exec(tag[0])?.[1] ?? null);
  const inMicrometers = (axis: string): number | null => {
    const size = Number(read(`PhysicalSize${axis}`));
    const factor = { "µm": 1, nm: 1e-3, mm: 1e3 }[read(`PhysicalSize${axis}Unit`) ?? "µm"];
    return size > 0 && factor !== undefined ? size * factor : null;
  };
  const [y, x] = [inMicrometers("Y"), inMicrometers("X")];
  return {
    channels,
    slices: Number(read("SizeZ") ?? 1),
    frames: Number(read("SizeT") ?? 1),
    order,
    names: Array.from({ length: channels }, (_, i) => names[i] ?? null),
    pixelSize: y !== null && x !== null ? { y, x } : null,
  };
}

function colourNames(samples: number, channels: number, isColour: boolean): (string | null)[] {
  const colours = isColour ? ["red", "green", "blue", "alpha"] : [];
  return Array.from({ length: samples * channels }, (_, i) => (channels === 1 ? (colours[i] ?? null) : null));
}
