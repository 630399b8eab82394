import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { readFileSync } from "node:fs";
import { unzip } from "unzipit";
import { afterEach, describe, expect, it, vi } from "vitest";
import { openImage, type SourceImage } from "../src/image";
import { openZarr } from "../src/zarr";
import { parseAddress } from "../src/zarrStores";

interface Stored {
  name: string;
  dtype: string;
  shape: [number, number, number, number];
  values: number[];
  file: string;
}

const { files, refused } = JSON.parse(readFileSync(new URL("zarrs.json", import.meta.url), "utf8")) as {
  files: Stored[];
  refused: { name: string; reason: string; file: string }[];
};

function fileOf({ name, file }: { name: string; file: string }): File {
  return new File([Buffer.from(file, "base64")], name);
}

function named(name: string): Stored {
  return files.find((one) => one.name === name)!;
}

async function read(image: SourceImage): Promise<number[]> {
  const found: number[] = [];
  for (let plane = 0; plane < image.slices * image.frames; plane++) {
    for (let channel = 0; channel < image.channels; channel++) found.push(...(await image.read(channel, plane)));
  }
  return found;
}

async function expectValues(image: SourceImage, one: Stored): Promise<void> {
  expect([image.slices * image.frames, image.channels, image.height, image.width]).toEqual(one.shape);
  expect(image.dtype).toBe(one.dtype);
  expect(await read(image)).toEqual(one.values);
}

/** Return the files of a zip, by path. */
async function contents(one: Stored): Promise<Map<string, Buffer>> {
  const { entries } = await unzip(await fileOf(one).arrayBuffer());
  const found = new Map<string, Buffer>();
  for (const [path, entry] of Object.entries(entries)) found.set(path, Buffer.from(await entry.arrayBuffer()));
  return found;
}

describe("zips have the values that were written", () => {
  it.each(files.map((one) => [one.name, one] as const))("%s", async (_, one) => {
    await expectValues(await openImage(fileOf(one)), one);
  });

  it("and channel names, pixel sizes and levels", async () => {
    const image = await openImage(fileOf(named("stack 0.5.ozx")));
    expect(image).toMatchObject({ format: "OME-Zarr", slices: 3, frames: 2, channels: 2, pixelSize: { y: 0.25, x: 0.25 } });
    expect(image.channelNames).toEqual(["channel 0", "channel 1"]);
    expect(image.pyramid).toEqual({ level: 0, levels: [{ width: 11, height: 9, fits: true }, { width: 6, height: 5, fits: true }] });
  });

  it("also of a coarser level", async () => {
    const one = named("zstd.zip");
    const image = await openImage(fileOf(one), 1);
    expect([image.height, image.width, image.pixelSize]).toEqual([5, 6, { y: 0.5, x: 0.5 }]);
    expect(await read(image)).toEqual(one.values.filter((_, i) => Math.floor(i / 11) % 2 === 0 && (i % 11) % 2 === 0));
  });
});

describe("zips are refused with the reason", () => {
  it.each(refused.map((one) => [one.name, one] as const))("%s", async (_, one) => {
    await expect(openImage(fileOf(one)).then(read)).rejects.toThrow(one.reason);
  });
});

describe("a folder", () => {
  it.each(["stack 0.5.ozx", "stack 0.4.zip", "container.zip"])("has the values of %s", async (name) => {
    const one = named(name);
    const inside = [...(await contents(one))].map(([path, bytes]): [string, File] => [`chosen/${path}`, new File([new Uint8Array(bytes)], "part")]);
    await expectValues(await openZarr({ kind: "folder", name, files: inside }, null), one);
  });
});

describe("an address", () => {
  let server: Server;
  afterEach(() => server?.close());

  /** Serve files; return their address and the requests. */
  async function serve(answer: (path: string, request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
    server = createServer((request, response) => answer(decodeURIComponent(request.url!.slice(1)), request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/image.ome.zarr`;
  }

  function open(address: string): Promise<SourceImage> {
    return openZarr({ kind: "address", name: "image.ome.zarr", address }, null);
  }

  async function serveFiles(one: Stored, ranges: boolean, missing = 404): Promise<string> {
    const inside = await contents(one);
    return serve((path, request, response) => {
      const bytes = inside.get(path.replace("image.ome.zarr/", ""));
      if (bytes === undefined) return response.writeHead(missing).end();
      const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
      if (range === null || !ranges) return response.writeHead(200, { "Content-Length": bytes.length }).end(request.method === "HEAD" ? undefined : bytes);
      return response.writeHead(206).end(bytes.subarray(Number(range[1]), Number(range[2]) + 1));
    });
  }

  it.each([
    ["stack 0.5.ozx", true],
    ["stack 0.5.ozx", false],
    ["stack 0.4.zip", true],
    ["missing chunks of shards.zip", true],
    ["missing chunks.zip", true],
    ["dots in names.zip", true],
  ])("has the values of %s (parts of files: %s)", async (name, ranges) => {
    await expectValues(await open(await serveFiles(named(name), ranges)), named(name));
  });

  it("of zarr 2 is found where the server answers 403 for missing files, and missing voxels are not made up", async () => {
    await expectValues(await open(await serveFiles(named("zlib.zip"), true, 403)), named("zlib.zip"));
    server.close();
    await expect(open(await serveFiles(named("missing chunks.zip"), true, 403)).then(read)).rejects.toThrow("the server answers 403");
  });

  it("that cannot be reached, or is no image, is refused with what to do", async () => {
    const address = await serve((_, __, response) => response.writeHead(404).end());
    await expect(open(address)).rejects.toThrow("is no OME-Zarr");
    server.close();
    await expect(open(await serve((_, __, response) => response.writeHead(401).end()))).rejects.toThrow("answers 401 for http");
    server.close();
    await expect(open("http://127.0.0.1:9/image.zarr")).rejects.toThrow("Access-Control-Allow-Origin");
  });

  it("of http is explained to a page from https", async () => {
    vi.stubGlobal("location", { protocol: "https:" });
    await expect(open("http://127.0.0.1:9/image.zarr")).rejects.toThrow("a page from an https:// address cannot read");
    vi.unstubAllGlobals();
  });

  it("is read as it is typed", () => {
    expect(parseAddress(" https://example.org/a%20b/image.zarr/ ").href).toBe("https://example.org/a%20b/image.zarr");
    expect(parseAddress("https://example.org/image.zarr/zarr.json?key=1#part").href).toBe("https://example.org/image.zarr?key=1");
    for (const [text, reason] of [["image.zarr", "is no address"], ["", "is no address"], ["s3://bucket/a.zarr", "cannot be read by a page"], ["https://a.org/b.ozx", "drop it here"]]) {
      expect(() => parseAddress(text!)).toThrow(reason);
    }
  });
});
