/** Places of an OME-Zarr: a web server, files of a folder, and a zip. */

import ZipFileStore from "@zarrita/storage/zip";
import type { AbsolutePath, AsyncReadable, RangeQuery } from "zarrita";
import { message, UserError } from "./tensor";

const METADATA = /\/(zarr\.json|\.zarray|\.zattrs|\.zgroup)$/;
const REQUESTS = 16;

/** A place of a zarr; `problem` is what kept metadata from being read, where that may be why there seems to be none. */
export interface ZarrStore extends AsyncReadable {
  problem?: UserError;
}

/** Return the address of a zarr as the user typed it, with its server. */
export function parseAddress(text: string): URL {
  let url;
  try {
    url = new URL(text.trim());
  } catch {
    throw new UserError(`${text.trim() || "the address"} is no address: enter one that begins with https:// and ends with the name of the OME-Zarr`);
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new UserError(`${url.protocol}// addresses cannot be read by a page: enter the https:// address of the OME-Zarr, or choose its folder`);
  }
  if (/\.(zip|ozx)$/i.test(url.pathname)) throw new UserError("a zip cannot be read by its address: download it, then drop it here");
  url.hash = "";
  url.pathname = url.pathname.replace(/\/+$/, "").replace(/\/(zarr\.json|\.zattrs|\.zgroup)$/, "");
  return url;
}

/** Return the name of what is at an address. */
export function nameOf(url: URL): string {
  const last = url.pathname.split("/").filter(Boolean).at(-1) ?? url.host;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

/** A zarr on a web server: reads of its files, whole or in part. */
export class WebStore implements ZarrStore {
  problem?: UserError;
  private readonly sizes = new Map<string, Promise<number>>();

  constructor(private readonly base: URL) {}

  async get(key: AbsolutePath): Promise<Uint8Array | undefined> {
    const url = this.urlOf(key);
    if (!METADATA.test(key)) return this.bytes(await this.request(url), url);
    // A server may answer in many ways that a file is missing; the zarr has either zarr.json or the older files.
    try {
      const answer = await this.request(url);
      if (answer.status !== 404 && !answer.ok) this.problem ??= refusal(url, answer);
      return answer.ok ? new Uint8Array(await answer.arrayBuffer()) : undefined;
    } catch (error) {
      this.problem ??= error as UserError;
      return undefined;
    }
  }

  async getRange(key: AbsolutePath, range: RangeQuery): Promise<Uint8Array | undefined> {
    const url = this.urlOf(key);
    let [start, length] = [0, 0];
    if ("suffixLength" in range) {
      const size = await this.size(url);
      if (size === undefined) return undefined;
      [start, length] = [Math.max(0, size - range.suffixLength), Math.min(size, range.suffixLength)];
    } else [start, length] = [range.offset, range.length];
    const answer = await this.request(url, { headers: { Range: `bytes=${start}-${start + length - 1}` } });
    const bytes = await this.bytes(answer, url);
    // A server that reads whole files only answers 200.
    const part = answer.status === 206 ? bytes : bytes?.subarray(start, start + length);
    if (part !== undefined && part.length !== length) throw new UserError(`${url} is shorter than its index says: it is incomplete; copy it to the server again`);
    return part;
  }

  private urlOf(key: string): string {
    const url = new URL(this.base);
    url.pathname += key.split("/").map(encodeURIComponent).join("/");
    return url.href;
  }

  /** Return the bytes of a file; undefined if there is none. */
  private async size(url: string): Promise<number | undefined> {
    const size = this.sizes.get(url) ?? this.measure(url);
    this.sizes.set(url, size);
    const found = await size;
    return found < 0 ? undefined : found;
  }

  private async measure(url: string): Promise<number> {
    const answer = await this.request(url, { method: "HEAD" });
    if (answer.status === 404) return -1;
    if (!answer.ok) throw refusal(url, answer);
    const stated = answer.headers.get("Content-Length");
    return stated !== null ? Number(stated) : (await this.bytes(await this.request(url), url))?.length ?? -1;
  }

  private async bytes(answer: Response, url: string): Promise<Uint8Array | undefined> {
    if (answer.status === 404) return undefined;
    if (!answer.ok) throw refusal(url, answer);
    return new Uint8Array(await answer.arrayBuffer());
  }

  private async request(url: string, options: RequestInit = {}): Promise<Response> {
    try {
      return await fetch(url, { ...options, credentials: "omit", referrerPolicy: "no-referrer" });
    } catch (error) {
      throw unreachable(this.base, error);
    }
  }
}

function refusal(url: string, answer: Response): UserError {
  const reason = answer.status === 401 || answer.status === 403 ? "it may not be public" : "try again later, or check the address";
  return new UserError(`the server answers ${answer.status} for ${url}: ${reason}`);
}

/** Return why a request failed: browsers do not tell pages the reason. */
function unreachable(base: URL, error: unknown): UserError {
  const isMixed = globalThis.location?.protocol === "https:" && base.protocol === "http:";
  if (isMixed) {
    return new UserError(`${base.href} is an http:// address, which a page from an https:// address cannot read: enter its https:// address, or save this page and open it from your disk`);
  }
  return new UserError(
    `${base.origin} cannot be read (${message(error)}): check the address and the network. If both are right, the server does not allow pages to read it: ` +
      "it must answer with the header Access-Control-Allow-Origin: * (CORS), and not forward to another server",
  );
}

/** A zarr as files of a chosen folder. */
export class FolderStore implements ZarrStore {
  private readonly files: Map<string, File>;

  constructor(files: readonly [path: string, file: File][]) {
    this.files = new Map(files);
  }

  async get(key: AbsolutePath): Promise<Uint8Array | undefined> {
    const file = this.files.get(key.slice(1));
    return file === undefined ? undefined : new Uint8Array(await file.arrayBuffer());
  }

  async getRange(key: AbsolutePath, range: RangeQuery): Promise<Uint8Array | undefined> {
    const file = this.files.get(key.slice(1));
    if (file === undefined) return undefined;
    const [start, stop] = "suffixLength" in range ? [Math.max(0, file.size - range.suffixLength), file.size] : [range.offset, range.offset + range.length];
    return new Uint8Array(await file.slice(start, stop).arrayBuffer());
  }
}

/** Return a zip as a place of a zarr, which may be in one folder of it. */
export function zipStore(file: File): ZarrStore {
  return ZipFileStore.fromBlob(file, { transformEntries: (entries) => Object.fromEntries(withoutFolder(Object.entries(entries))) });
}

/** Return files by their paths in the outermost folder that has the metadata of a zarr. */
export function withoutFolder<T>(files: [path: string, file: T][]): [path: string, file: T][] {
  const folders = files.filter(([path]) => METADATA.test(`/${path}`)).map(([path]) => path.slice(0, path.lastIndexOf("/") + 1));
  const depth = (path: string): number => path.split("/").length;
  const [root = ""] = folders.sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1));
  return files.filter(([path]) => path.startsWith(root)).map(([path, file]) => [path.slice(root.length), file]);
}

/** A queue of reads that starts some at a time, since browsers refuse thousands. */
export class ReadQueue {
  private readonly waiting: (() => Promise<void>)[] = [];

  add(read: () => Promise<void>): void {
    this.waiting.push(read);
  }

  async onIdle(): Promise<void[]> {
    const next = async (): Promise<void> => {
      for (let read = this.waiting.shift(); read !== undefined; read = this.waiting.shift()) await read();
    };
    return Promise.all(Array.from({ length: REQUESTS }, next));
  }
}
