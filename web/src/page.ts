/** The page: what users see and do. The work is done by the worker. */

import { chosenFolder, droppedSource } from "./chosen";
import { Cancelled, Client } from "./client";
import { limitConnections } from "./connections";
import { drawGrey, drawLabels, drawOverlay } from "./draw";
import type { Facts } from "./facts";
import { readFacts, readParts } from "./parts";
import type { ImageInfo, Preview, RunResult, RunSettings, Source } from "./protocol";
import { message, UserError } from "./tensor";
import { nameOf, parseAddress } from "./zarrStores";

const SMALLEST_TILE = 256;
const FEW_PIXELS = 400;

function element<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function show(id: string, visible: boolean): void {
  element(id).hidden = !visible;
}

interface State {
  source: Source | null;
  info: ImageInfo | null;
  result: RunResult | null;
  /** Planes of the image that the result has, and the number of the output that it is. */
  planes: number[];
  output: number;
  imageView: Preview | null;
  resultView: Preview | null;
  labelView: Preview | null;
}

const state: State = { source: null, info: null, result: null, planes: [], output: 0, imageView: null, resultView: null, labelView: null };
let facts: Facts;
let client: Client;
let startedAt = 0;
let firstDone: { at: number; done: number } | null = null;

function status(text: string): void {
  element("status").textContent = text;
}

function problem(text: string | null): void {
  show("problem", text !== null);
  element("problem").textContent = text;
  if (text !== null) element("problem").scrollIntoView({ block: "nearest" });
}

function describe(error: unknown): string {
  if (error instanceof UserError) return sentence(error.message);
  return `Something unexpected went wrong (${message(error)}). Please load the page again; if it happens again, report it with this message.`;
}

function sentence(text: string): string {
  // The name of a file keeps its letters.
  const isWord = /^[a-z]+[ ,]/.test(text);
  return (isWord ? text.charAt(0).toUpperCase() + text.slice(1) : text) + (/[.!?]$/.test(text) ? "" : ".");
}

/** Do something that the user asked for; show its error. */
async function guarded(work: () => Promise<void>): Promise<void> {
  problem(null);
  try {
    await work();
  } catch (error) {
    if (error instanceof Cancelled) status("Cancelled.");
    else {
      status("");
      problem(describe(error));
    }
  } finally {
    show("progress", false);
    for (const id of ["cancel", "cancel-reading"]) show(id, false);
    element<HTMLButtonElement>("run").disabled = state.info === null;
  }
}

function onProgress(stage: string, done: number, total: number): void {
  show("progress", true);
  const bar = element<HTMLProgressElement>("bar");
  const now = performance.now();
  if (total === 0) {
    bar.removeAttribute("value");
    element("progress-text").textContent = `${stage} ...`;
    return;
  }
  if (done === 0) [startedAt, firstDone] = [now, null];
  bar.value = done / total;
  // The first tile takes longer than the others.
  if (done === 1) firstDone = { at: now, done };
  const from = firstDone !== null && done > firstDone.done ? firstDone : { at: startedAt, done: 0 };
  const left = done === 0 ? null : ((now - from.at) / (done - from.done)) * (total - done);
  element("progress-text").textContent = `${stage}: tile ${Math.min(done + 1, total)} of ${total}${left === null ? "" : `, about ${duration(left / 1000)} left`}`;
}

function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}

/** Fill a place with selects; each is a label and its options. */
function select(parent: HTMLElement, id: string, label: string, options: string[], chosen: number, changed: () => void): void {
  const field = document.createElement("label");
  field.textContent = label;
  const choice = document.createElement("select");
  choice.id = id;
  options.forEach((text, i) => choice.add(new Option(text, String(i), i === chosen, i === chosen)));
  choice.addEventListener("change", changed);
  field.append(choice);
  parent.append(field);
}

function chosen(id: string, fallback = 0): number {
  const found = document.getElementById(id) as HTMLSelectElement | null;
  return found === null ? fallback : Number(found.value);
}

async function openSource(source: Source, level: number | null = null): Promise<void> {
  show("result", false);
  for (const id of ["image-info", "image-fields", "image-notes", "image-preview"]) show(id, false);
  Object.assign(state, { source: null, info: null, result: null });
  element<HTMLButtonElement>("run").disabled = true;
  status("Reading the image ...");
  show("cancel-reading", source.kind === "address");
  const info = await load(source, level);
  const wanted = facts.input.channels.length;
  if (info.channels < wanted) {
    throw new UserError(
      `the model takes ${wanted} channels (${facts.input.channels.join(", ")}), but the image has ${info.channels}: choose an image with all of them`,
    );
  }
  showInfo(info, source);
  await showPreview();
  Object.assign(state, { source, info });
  status("Ready.");
}

/** Show the chosen channel of the chosen plane before anything is run. */
async function showPreview(): Promise<void> {
  await ensureImage();
  const canvas = element<HTMLCanvasElement>("image-preview");
  drawGrey(canvas, await client.call("preview", chosen("channel-0"), Math.max(0, chosen("plane", 1) - 1)));
  canvas.classList.toggle("few", Math.max(canvas.width, canvas.height) < FEW_PIXELS);
  canvas.hidden = false;
}

/** Open the image again where a cancelled run has ended the worker. */
async function ensureImage(): Promise<void> {
  if (!client.isRunning && state.source !== null) await load(state.source, state.info?.pyramid?.level ?? null);
}

/** Open an image. Before it is read, the page gives up all connections that this image does not need. */
async function load(source: Source, level: number | null): Promise<ImageInfo> {
  limitConnections(source.kind === "address" ? parseAddress(source.address).origin : null);
  return client.call("open", source, level);
}

function showInfo(info: ImageInfo, source: Source): void {
  const planes = info.slices * info.frames;
  const parts = [
    source.kind === "test" ? "Test image of the package" : source.name,
    `${info.width} x ${info.height} pixels`,
    info.dtype,
    info.channels > 1 ? `${info.channels} channels` : "",
    info.slices > 1 ? `${info.slices} slices` : "",
    info.frames > 1 ? `${info.frames} time points` : "",
    source.kind === "test" ? "" : info.format,
  ];
  element("image-info").textContent = parts.filter((part) => part !== "").join(", ");
  show("image-info", true);
  const fields = element("image-fields");
  fields.replaceChildren();
  if (info.pyramid !== undefined && info.pyramid.levels.length > 1) {
    const { levels, level } = info.pyramid;
    const names = levels.map(({ width, height, fits }) => `${width} x ${height} pixels${fits ? "" : " (too large)"}`);
    select(fields, "level", "Level", names, level, () => void guarded(() => openSource(source, chosen("level"))));
    levels.forEach(({ fits }, i) => (element<HTMLSelectElement>("level").options[i]!.disabled = !fits));
  }
  if (info.channels > facts.input.channels.length) {
    const names = Array.from({ length: info.channels }, (_, i) => (info.channelNames[i] ? `${i + 1}: ${info.channelNames[i]}` : `${i + 1}`));
    facts.input.channels.forEach((name, i) => select(fields, `channel-${i}`, `Channel for "${name}"`, names, i, () => void guarded(showPreview)));
  }
  if (planes > 1) {
    const names = Array.from({ length: planes }, (_, i) => planeName(i, info));
    select(fields, "plane", "Plane", [`all ${planes}, one by one`, ...names], 1 + (Math.floor(info.slices / 2) % planes), () => void guarded(showPreview));
  }
  fields.hidden = fields.childElementCount === 0;
  showNotes("image-notes", [...info.notes, ...pixelNote(info), ...wholeNote()]);
}

function planeName(plane: number, info: ImageInfo): string {
  const parts = [];
  if (info.slices > 1) parts.push(`slice ${1 + (plane % info.slices)}`);
  if (info.frames > 1) parts.push(`time ${1 + Math.floor(plane / info.slices)}`);
  return parts.join(", ") || "1";
}

function pixelNote(info: ImageInfo): string[] {
  const wanted = facts.input.pixelSize;
  if (wanted === null || info.pixelSize === null || Math.abs(info.pixelSize.x / wanted.x - 1) <= 0.25) return [];
  return [
    `A pixel of this image has ${shorter(info.pixelSize.x)} µm, the model was trained on ${shorter(wanted.x)} µm: results may be poor. im2im-zoo predict --rescale resamples the image.`,
  ];
}

function wholeNote(): string[] {
  if (facts.tilesDiffer === null) return [];
  return [`The network needs the whole image at once (${facts.tilesDiffer}), so large images may not fit: use ${facts.command}.`];
}

function shorter(value: number): string {
  return String(Number(value.toPrecision(3)));
}

function showNotes(id: string, notes: readonly string[]): void {
  const place = element(id);
  place.replaceChildren(
    ...notes.map((text) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = text;
      return paragraph;
    }),
  );
  place.hidden = notes.length === 0;
}

async function run(): Promise<void> {
  const info = state.info!;
  show("result", false);
  element<HTMLButtonElement>("run").disabled = true;
  show("cancel", true);
  status("");
  const count = info.slices * info.frames;
  const plane = chosen("plane", count > 1 ? 1 : 0);
  const planes = count === 1 ? [0] : plane === 0 ? Array.from({ length: count }, (_, i) => i) : [plane - 1];
  const settings: RunSettings = {
    channels: facts.input.channels.map((_, i) => chosen(`channel-${i}`, i)),
    planes,
    output: chosen("output"),
    device: element<HTMLSelectElement>("device").value as RunSettings["device"],
    limit: Number(element<HTMLSelectElement>("tile").value) ** 2,
  };
  const { result, notes } = await runWithin(settings);
  Object.assign(state, { result, planes, output: settings.output, labelView: null });
  status(
    `Done in ${duration(result.seconds)}: ${result.tiles} tile${result.tiles === 1 ? "" : "s"} of ${result.tile.x} x ${result.tile.y} pixels, ` +
      `${result.device === "webgpu" ? "graphics processor" : `processor, ${result.threads} thread${result.threads === 1 ? "" : "s"}`}. ${checkText(result)}`,
  );
  await showResult([...result.notes, ...notes]);
}

/** Run; where the browser's memory is not enough, in smaller tiles. A worker that ran out of memory is replaced. */
async function runWithin(settings: RunSettings): Promise<{ result: RunResult; notes: string[] }> {
  const notes: string[] = [];
  for (;;) {
    try {
      await ensureImage();
      return { result: await client.call("run", settings), notes };
    } catch (error) {
      if (error instanceof Cancelled || error instanceof UserError) throw error;
      client.end();
      const side = Math.sqrt(settings.limit);
      if (side / 2 < SMALLEST_TILE || facts.tilesDiffer !== null) {
        throw new UserError(`the network failed (${message(error)}): the image may need more memory than the browser has; use ${facts.command}`);
      }
      settings.limit /= 4;
      notes.splice(0, 1, `Tiles of ${side} x ${side} pixels failed (${message(error)}), so smaller tiles were used.`);
    }
  }
}

function checkText(result: RunResult): string {
  if (result.check === null) return "";
  const largest = result.check.largest.toExponential(0);
  return result.check.agrees
    ? `The package's own test image gives the expected result here (largest difference ${largest}).`
    : "";
}

async function showResult(notes: string[]): Promise<void> {
  const result = state.result!;
  const failed = result.check !== null && !result.check.agrees;
  showNotes("result-notes", [
    ...(failed
      ? [`The package's own test image gives another result than it should here (largest difference ${result.check!.largest.toPrecision(2)}): do not rely on this result.`]
      : []),
    ...notes,
  ]);
  const fields = element("result-fields");
  fields.replaceChildren();
  const described = facts.outputs[state.output]!;
  if (result.channels > 1) {
    const names = Array.from({ length: result.channels }, (_, i) => described.channels[i] ?? `channel ${i + 1}`);
    select(fields, "result-channel", "Channel of the result", names, 0, () => void guarded(refresh));
  }
  if (state.planes.length > 1) {
    const names = state.planes.map((plane) => planeName(plane, state.info!));
    select(fields, "result-plane", "Plane", names, 0, () => void guarded(refresh));
  }
  fields.hidden = fields.childElementCount === 0;
  showObjects();
  show("result", true);
  await refresh();
  element("result").scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

async function refresh(): Promise<void> {
  const place = chosen("result-plane");
  state.labelView = null;
  element("objects-count").textContent = "";
  show("download-labels", false);
  state.imageView = await client.call("preview", chosen("channel-0"), state.planes[place]!);
  state.resultView = await client.call("resultPreview", chosen("result-channel"), place);
  // Regions of a map that is no probability, such as a predicted stain, are no objects.
  const isProbability = state.resultView.low === 0 && state.resultView.high === 1;
  show("objects", isProbability || instancesOf(state.output) !== null);
  draw();
}

function draw(): void {
  const { imageView, resultView, labelView } = state;
  if (imageView === null || resultView === null) return;
  const over = element<HTMLInputElement>("overlay").checked;
  const opacity = Number(element<HTMLInputElement>("opacity").value);
  show("opacity-field", over);
  const [left, right] = [element<HTMLCanvasElement>("input-view"), element<HTMLCanvasElement>("output-view")];
  if (!over) drawGrey(left, imageView);
  else if (labelView !== null) drawLabels(left, labelView, imageView, opacity);
  else drawOverlay(left, imageView, resultView, opacity);
  if (labelView !== null) drawLabels(right, labelView, null, 1);
  else drawGrey(right, resultView);
  for (const canvas of [left, right]) canvas.classList.toggle("few", Math.max(canvas.width, canvas.height) < FEW_PIXELS);
  const described = facts.outputs[state.output]!;
  const name = described.channels[chosen("result-channel")] ?? described.id;
  element("input-caption").textContent = over ? `Image, with ${labelView === null ? name : "objects"} in colour` : "Image";
  element("output-caption").textContent =
    labelView !== null ? "Objects, each in a colour of its own" : `${name}: black ${shorter(resultView.low)}, white ${shorter(resultView.high)}`;
}

/** Return how the package makes objects of an output; null if it does not. */
function instancesOf(output: number): Facts["instances"] {
  const { instances, outputs } = facts;
  return instances === null || (instances.output !== null && instances.output !== outputs[output]!.id) ? null : instances;
}

function showObjects(): void {
  const instances = instancesOf(state.output);
  const dtype = state.result!.dtype;
  const canCount = instances?.kind !== "program" && (dtype.startsWith("float") || dtype === "bool" || dtype === "uint8");
  show("objects-fields", canCount);
  show("seed-field", instances?.kind === "watershed");
  element("threshold-name").textContent = instances?.kind === "watershed" ? "Threshold of objects" : "Threshold";
  const note = element("objects-note");
  if (instances === null) {
    note.textContent = "Regions of the map above a threshold, each connected region counted as one. Objects that touch count as one.";
  } else if (instances.kind === "program") {
    note.textContent = `This package makes objects of its maps by ${instances.method}, which this page cannot do: use ${facts.command}.`;
  } else if (instances.kind === "watershed") {
    note.textContent = "The package defines objects by a watershed of its maps: they grow from seeds.";
    element<HTMLInputElement>("threshold").value = String(instances.foregroundThreshold);
    element<HTMLInputElement>("seed-threshold").value = String(instances.seedThreshold);
    element<HTMLInputElement>("min-size").value = String(instances.minSize);
  } else {
    note.textContent = "The package defines objects as connected regions of the map above this threshold.";
    element<HTMLInputElement>("threshold").value = String(instances.threshold);
    element<HTMLInputElement>("min-size").value = String(instances.minSize);
    if (state.result!.channels > 1) {
      const channel = document.getElementById("result-channel") as HTMLSelectElement | null;
      if (channel !== null) channel.value = String(instances.channel);
    }
  }
}

async function count(): Promise<void> {
  // Not a number if the field is empty.
  const [threshold, seedThreshold] = ["threshold", "seed-threshold"].map((id) => element<HTMLInputElement>(id).valueAsNumber) as [number, number];
  const minSize = Math.max(1, element<HTMLInputElement>("min-size").valueAsNumber || 1);
  const instances = instancesOf(state.output);
  const isWatershed = instances?.kind === "watershed";
  if (!Number.isFinite(threshold) || (isWatershed && !Number.isFinite(seedThreshold))) {
    throw new UserError("the threshold is not a number: enter one, such as 0.5");
  }
  const plane = chosen("result-plane");
  const found = await client.call(
    "labels",
    isWatershed
      ? { ...instances, plane, seedThreshold, foregroundThreshold: threshold, minSize }
      : { kind: "components", channel: chosen("result-channel"), plane, threshold, minSize },
  );
  state.labelView = found.preview;
  element("objects-count").textContent = `${found.count.toLocaleString("en")} object${found.count === 1 ? "" : "s"}`;
  show("download-labels", true);
  draw();
}

async function download(what: "result" | "labels"): Promise<void> {
  const blob = await client.call("tiff", what);
  const source = state.source;
  const stem = source === null || source.kind === "test" ? "test_image" : source.name.replace(/(\.ome)?(\.(zarr|tiff?))?\.[^.]+$/i, "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${stem}_${what === "labels" ? "objects" : facts.outputs[state.output]!.id}.tif`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function showFacts(): void {
  document.title = facts.name;
  element("name").textContent = facts.name;
  element("description").textContent = facts.description;
  element("command").textContent = facts.command;
  element("page-version").textContent = facts.version_of_page;
  const about = element("about");
  const add = (term: string, ...values: (string | Node)[]): void => {
    if (values.length === 0) return;
    const dt = document.createElement("dt");
    dt.textContent = term;
    const dds = values.map((value) => {
      const dd = document.createElement("dd");
      dd.append(value);
      return dd;
    });
    about.append(dt, ...dds.slice(0, 1));
    for (const dd of dds.slice(1)) about.append(document.createElement("dt"), dd);
  };
  if (facts.version !== null) add("Version", facts.version);
  if (facts.authors.length > 0) add("Authors", facts.authors.join(", "));
  add("Cite", ...facts.citations.map(({ text, url }) => citation(text, url)));
  if (facts.license !== null) add("Licence of the model", facts.license);
  const { pixelSize } = facts.input;
  add("Input", `${facts.input.channels.join(", ")}${pixelSize === null ? "" : `; pixels of ${shorter(pixelSize.x)} ${pixelSize.unit}`}`);
  if (facts.outputs.length > 1) {
    select(element("device").closest(".fields")!, "output", "Output", facts.outputs.map((output) => output.id), usualOutput(), () => undefined);
  }
}

/** Return the output that objects are made of, or the first. */
function usualOutput(): number {
  return Math.max(0, facts.outputs.findIndex((output) => output.id === facts.instances?.output));
}

function citation(text: string, url: string | null): string | Node {
  if (url === null || !/^https?:\/\//.test(url)) return text;
  const link = document.createElement("a");
  link.href = url;
  link.rel = "noopener noreferrer";
  link.textContent = text;
  return link;
}

function connect(): void {
  const file = element<HTMLInputElement>("file");
  const drop = element("drop");
  const choose = (work: () => Promise<Source> | Source): void => {
    client.end();
    void guarded(async () => openSource(await work()));
  };
  file.addEventListener("change", () => {
    const [first] = file.files ?? [];
    if (first) choose(() => ({ kind: "file", name: first.name, file: first }));
    file.value = "";
  });
  const folder = element<HTMLInputElement>("folder");
  folder.addEventListener("change", () => {
    const files = [...(folder.files ?? [])];
    if (files.length > 0) choose(() => chosenFolder(files));
    folder.value = "";
  });
  element("address-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const { value: address } = element<HTMLInputElement>("address");
    choose(() => ({ kind: "address", name: nameOf(parseAddress(address)), address }));
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const dropped = event.dataTransfer === null ? null : droppedSource(event.dataTransfer);
    if (dropped !== null) choose(() => dropped);
  });
  element("use-test").addEventListener("click", () => choose(() => ({ kind: "test" })));
  element("run").addEventListener("click", () => void guarded(run));
  for (const id of ["cancel", "cancel-reading"]) element(id).addEventListener("click", () => client.end());
  element("count").addEventListener("click", () => void guarded(count));
  element("download").addEventListener("click", () => void guarded(() => download("result")));
  element("download-labels").addEventListener("click", () => void guarded(() => download("labels")));
  element("overlay").addEventListener("change", draw);
  element("opacity").addEventListener("input", draw);
}

async function start(): Promise<void> {
  const { facts: found, plain } = readFacts();
  facts = found;
  showFacts();
  const parts = await readParts(facts, (done, total) => status(`Loading the model: part ${done + 1} of ${total} ...`));
  client = new Client(plain, parts, onProgress);
  connect();
  show("use-test", facts.test !== null);
  status("Ready: choose an image.");
  document.documentElement.dataset.ready = "true";
}

start().catch((error: unknown) => {
  status("");
  problem(describe(error));
});
