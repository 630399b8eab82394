/** The parts of the page beside its own code: weights and onnxruntime-web, inside the page or beside it on the local server. */

import type { Facts } from "./facts";
import type { Parts } from "./protocol";
import { UserError } from "./tensor";

/** Return the package's facts, which Python wrote into the page. */
export function readFacts(): { facts: Facts; plain: string } {
  const plain = document.getElementById("facts")?.textContent ?? "";
  try {
    return { facts: JSON.parse(plain) as Facts, plain };
  } catch {
    throw new UserError("this page holds no package: write one with im2im-zoo try PACKAGE");
  }
}

/** Return all parts, unpacked. Each is compressed by gzip, and inside the page also written in base64, in pieces. */
export async function readParts(facts: Facts, progress: (done: number, total: number) => void): Promise<Parts> {
  const found: Parts = {};
  const names = Object.keys(facts.parts);
  for (const [i, name] of names.entries()) {
    progress(i, names.length);
    const packed = facts.parts[name]!.chunks > 0 ? await fromPage(name, facts.parts[name]!.chunks) : await fromServer(name);
    found[name] = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
    if (found[name].size !== facts.parts[name]!.bytes) throw new UserError("this page is incomplete: write or copy it again");
  }
  return found;
}

async function fromPage(name: string, chunks: number): Promise<Blob> {
  const pieces: BlobPart[] = [];
  for (let i = 0; i < chunks; i++) {
    const element = document.getElementById(`part-${name}-${i}`);
    if (element === null) throw new UserError("this page is incomplete: write or copy it again");
    const text = atob(element.textContent!);
    const bytes = new Uint8Array(text.length);
    for (let j = 0; j < text.length; j++) bytes[j] = text.charCodeAt(j);
    pieces.push(bytes);
    element.remove();
    // Let the page be drawn in between.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return new Blob(pieces);
}

async function fromServer(name: string): Promise<Blob> {
  const answer = await fetch(`parts/${name}.gz`);
  if (!answer.ok) throw new UserError(`the part ${name} cannot be loaded (${answer.status}): start im2im-zoo serve again`);
  return answer.blob();
}
