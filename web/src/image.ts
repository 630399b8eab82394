/** Images as the page reads them: planes of channels with their exact values. */

import { decode } from "fast-png";
import type { ImageInfo } from "./protocol";
import { type Dtype, message, UserError, type Values } from "./tensor";
import { openTiff } from "./tiff";
import { openZippedZarr } from "./zarr";

/** An open image. */
export interface SourceImage extends ImageInfo {
  /** Return the values (y, x) of a channel of a plane. */
  read(channel: number, plane: number): Promise<Values>;
}

const TYPES_READ = "This page reads TIFF, PNG, JPEG and OME-Zarr";

/**
 * Open an image file.
 *
 * @param level of a pyramid; null for the usual one.
 */
export async function openImage(file: File, level: number | null = null): Promise<SourceImage> {
  const head = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  if (head.length === 0) throw new UserError(`${file.name} is empty: choose another file`);
  const text = String.fromCharCode(...head.slice(0, 8));
  if (text.startsWith("II*\0") || text.startsWith("MM\0*") || text.startsWith("II+\0") || text.startsWith("MM\0+")) {
    return openTiff(file);
  }
  if (text.startsWith("\x89PNG")) return openPng(file);
  if (head[0] === 0xff && head[1] === 0xd8) return openPicture(file, "JPEG");
  if (text.startsWith("PK\x03\x04")) return openZippedZarr(file, level);
  throw new UserError(`${file.name} is no image that this page can read. ${TYPES_READ}: save it as one of these, e.g. with Fiji`);
}

async function openPng(file: File): Promise<SourceImage> {
  let png;
  try {
    png = decode(await file.arrayBuffer());
  } catch (error) {
    throw new UserError(`${file.name} is damaged or no PNG (${message(error)}): save it again`);
  }
  if (png.depth < 8 || png.palette !== undefined) return openPicture(file, "PNG");
  const { width, height, channels, data } = png;
  return picture("PNG", width, height, png.depth === 16 ? "uint16" : "uint8", channels, data as Values);
}

/** Decode a picture with the browser: 8 bit, without a change of its colours. */
async function openPicture(file: File, format: string): Promise<SourceImage> {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" });
  } catch {
    throw new UserError(`${file.name} is damaged or no ${format} that this browser reads: save it again`);
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  const image = picture(format, width, height, "uint8", 4, new Uint8Array(pixels.buffer));
  let isGrey = true;
  for (let i = 0; isGrey && i < pixels.length; i += 4) isGrey = pixels[i] === pixels[i + 1] && pixels[i] === pixels[i + 2];
  image.channels = isGrey ? 1 : 3;
  image.channelNames = isGrey ? [null] : ["red", "green", "blue"];
  if (format === "JPEG") image.notes.push("JPEG has changed the values of the image: use the original file for measurements.");
  return image;
}

function picture(format: string, width: number, height: number, dtype: Dtype, channels: number, data: Values): SourceImage {
  const names = { 1: [null], 2: [null, "alpha"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"] }[channels]!;
  return {
    format,
    width,
    height,
    dtype,
    channels,
    channelNames: names,
    slices: 1,
    frames: 1,
    pixelSize: null,
    notes: [],
    read: async (channel) => {
      const values = new (data.constructor as new (length: number) => Values)(width * height);
      for (let i = 0; i < values.length; i++) values[i] = data[i * channels + channel]!;
      return values;
    },
  };
}
