import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { openImage, type SourceImage } from "../src/image";
import { arrange } from "../src/tiff";
import { writeTiff } from "../src/tiffWriter";
import type { Values } from "../src/tensor";

interface Stored {
  name: string;
  dtype: string;
  shape: [number, number, number, number];
  values: number[];
  every: number;
  file: string;
}

const { files, refused } = JSON.parse(readFileSync(new URL("images.json", import.meta.url), "utf8")) as {
  files: Stored[];
  refused: { name: string; reason: string; file: string }[];
};

function fileOf({ name, file }: { name: string; file: string }): File {
  return new File([Buffer.from(file, "base64")], name);
}

async function read(image: SourceImage): Promise<number[]> {
  const found: number[] = [];
  for (let plane = 0; plane < image.slices * image.frames; plane++) {
    for (let channel = 0; channel < image.channels; channel++) found.push(...(await image.read(channel, plane)));
  }
  return found;
}

describe("images have the values that were written", () => {
  it.each(files.map((one) => [one.name, one] as const))("%s", async (_, one) => {
    const image = await openImage(fileOf(one));
    expect([image.slices * image.frames, image.channels, image.height, image.width]).toEqual(one.shape);
    expect(image.dtype).toBe(one.dtype);
    expect((await read(image)).filter((_, i) => i % one.every === 0)).toEqual(one.values);
  });

  it("and the channel names that OME states", async () => {
    const image = await openImage(fileOf(files.find((one) => one.name === "ome.tif")!));
    expect(image.channelNames).toEqual(["DAPI", "GFP"]);
    expect([image.slices, image.frames]).toEqual([3, 2]);
  });
});

describe("files are refused with the reason", () => {
  it.each(refused.map((one) => [one.name, one] as const))("%s", async (_, one) => {
    await expect(openImage(fileOf(one)).then(read)).rejects.toThrow(one.reason);
  });
});

describe("descriptions", () => {
  it("of ImageJ without slices", () => {
    expect(arrange("ImageJ=1.53t\nimages=6\nchannels=2\n", 6)).toMatchObject({ channels: 2, slices: 3, frames: 1 });
  });

  it("that do not match the pages are ignored", () => {
    expect(arrange("ImageJ=1.53t\nimages=6\nchannels=2\nslices=3\n", 5)).toBeNull();
  });

  it("of OME with pixel sizes in nanometers", () => {
    const description = `<?xml version="1.0"?><OME><Pixels DimensionOrder="XYZCT" SizeC="2" SizeZ="3" SizeT="1" PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="250" PhysicalSizeYUnit="nm"><Channel Name="a" SamplesPerPixel="1"/><Channel SamplesPerPixel="1"/></Pixels></OME>`;
    expect(arrange(description, 6)).toEqual({
      channels: 2, slices: 3, frames: 1, order: "ZCT", names: ["a", null], pixelSize: { y: 0.25, x: 0.25 },
    });
  });
});

describe("a TIFF that the page writes", () => {
  it.each([
    ["float32", new Float32Array(12).map((_, i) => i / 7 - 1)],
    ["uint8", new Uint8Array(12).map((_, i) => i * 20)],
    ["int32", new Int32Array(12).map((_, i) => i * 70000 - 3)],
    ["uint16", new Uint16Array(12).map((_, i) => i * 5000)],
  ] as const)("has the values of %s", async (dtype, data: Values) => {
    const planes = [data.subarray(0, 6), data.subarray(6)] as Values[];
    const image = await openImage(new File(writeTiff(planes, dtype, 3, 2, 2), "result.tif"));
    expect([image.channels, image.slices, image.height, image.width, image.dtype]).toEqual([2, 1, 2, 3, dtype]);
    expect(await read(image)).toEqual([...data]);
  });
});
