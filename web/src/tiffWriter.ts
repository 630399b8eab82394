/** Write planes as a TIFF that Fiji and Python read: uncompressed, little-endian, with ImageJ's description of the axes. */

import { type Dtype, UserError, type Values } from "./tensor";

interface Stored {
  bits: number;
  /** TIFF's SampleFormat: 1 unsigned, 2 signed, 3 float. */
  format: number;
}

const STORED: Partial<Record<Dtype, Stored>> = {
  bool: { bits: 8, format: 1 },
  uint8: { bits: 8, format: 1 },
  int8: { bits: 8, format: 2 },
  uint16: { bits: 16, format: 1 },
  int16: { bits: 16, format: 2 },
  uint32: { bits: 32, format: 1 },
  int32: { bits: 32, format: 2 },
  float32: { bits: 32, format: 3 },
  float64: { bits: 64, format: 3 },
  // Kept in doubles, which hold them exactly below 2^53.
  uint64: { bits: 64, format: 3 },
  int64: { bits: 64, format: 3 },
};

/**
 * Return the parts of a TIFF file.
 *
 * @param planes (y, x) each, the channels of a slice side by side.
 */
export function writeTiff(planes: readonly Values[], dtype: Dtype, width: number, height: number, channels: number): BlobPart[] {
  const { bits, format } = STORED[dtype]!;
  const bytes = (width * height * bits) / 8;
  const pages = planes.length;
  const described = new TextEncoder().encode(descriptionOf(pages, channels));
  const entries = 11;
  const directory = 2 + entries * 12 + 4;
  const start = 8 + pages * directory + described.length + (described.length % 2);
  if (start + pages * bytes >= 2 ** 32) {
    throw new UserError("the result has more than 4 GB, which no plain TIFF holds: run fewer planes, or use im2im-zoo predict");
  }
  const header = new ArrayBuffer(start);
  const view = new DataView(header);
  view.setUint16(0, 0x4949);
  view.setUint16(2, 42, true);
  view.setUint32(4, 8, true);
  for (let page = 0; page < pages; page++) {
    let at = 8 + page * directory;
    const entry = (tag: number, type: number, count: number, value: number): void => {
      view.setUint16(at, tag, true);
      view.setUint16(at + 2, type, true);
      view.setUint32(at + 4, count, true);
      if (type === 3) view.setUint16(at + 8, value, true);
      else view.setUint32(at + 8, value, true);
      at += 12;
    };
    view.setUint16(at, entries, true);
    at += 2;
    entry(256, 4, 1, width);
    entry(257, 4, 1, height);
    entry(258, 3, 1, bits);
    entry(259, 3, 1, 1);
    entry(262, 3, 1, 1);
    entry(270, 2, described.length, 8 + pages * directory);
    entry(273, 4, 1, start + page * bytes);
    entry(277, 3, 1, 1);
    entry(278, 4, 1, height);
    entry(279, 4, 1, bytes);
    entry(339, 3, 1, format);
    view.setUint32(at, page + 1 < pages ? 8 + (page + 1) * directory : 0, true);
  }
  new Uint8Array(header).set(described, 8 + pages * directory);
  return [header, ...planes.map((plane) => plane as Uint8Array<ArrayBuffer>)];
}

function descriptionOf(pages: number, channels: number): string {
  const slices = pages / channels;
  return `ImageJ=1.53t\nimages=${pages}\nchannels=${channels}\nslices=${slices}\nhyperstack=true\nmode=grayscale\nloop=false\n\0`;
}
