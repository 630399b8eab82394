// Run the page on an image in a headless browser, as a user would: node drive.mjs '{"page": URL, "image": PATH, ...}'.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(fileURLToPath(new URL("../../web/package.json", import.meta.url)));
const { chromium } = require("playwright-core");

const { browser: executablePath, page: address, image, folder, url, drop, level, probe, output, labels, of, tile, plane, channels } = JSON.parse(process.argv[2]);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const context = await browser.newContext({ acceptDownloads: true });
const page = await context.newPage();
const errors = [];
const requests = [];
page.on("pageerror", (error) => errors.push(error.message));
page.on("console", (line) => line.type() === "error" && errors.push(line.text()));
page.on("request", (request) => requests.push(request.url()));
const text = (selector) => page.textContent(selector);
// The policy of the page forbids conditions in text.
const STATES = {
  start: () => document.documentElement.dataset.ready === "true",
  image: () => document.getElementById("status").textContent === "Ready." && !document.getElementById("run").disabled,
  result: () => !document.getElementById("result").hidden && document.getElementById("download").offsetParent !== null,
  count: () => document.getElementById("objects-count").textContent !== "",
};
const settled = async (state) => {
  const stopped = page.waitForFunction(() => !document.getElementById("problem").hidden, null, { timeout: 300_000 });
  await Promise.race([stopped, page.waitForFunction(STATES[state], null, { timeout: 300_000 })]);
  stopped.catch(() => undefined);
};

await page.goto(address);
await settled("start");
if (image) await page.setInputFiles("#file", image);
if (folder || url) await page.click("#zarr summary");
if (folder) await page.setInputFiles("#folder", folder);
if (drop) {
  const { x, y, width, height } = await page.locator("#drop").boundingBox();
  const devtools = await context.newCDPSession(page);
  const data = { items: [], files: [drop], dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) {
    await devtools.send("Input.dispatchDragEvent", { type, x: x + width / 2, y: y + height / 2, data });
  }
}
if (url) {
  await page.fill("#address", url);
  await page.click("#address-form button");
}
await settled("image");
if (level && (await page.isHidden("#problem"))) {
  await page.selectOption("#level", { value: String(level) });
  await page.waitForFunction(() => document.getElementById("status").textContent !== "Ready.");
  await settled("image");
}
let objects = null;
if (await page.isHidden("#problem")) {
  if (tile) {
    await page.evaluate((value) => {
      const select = document.getElementById("tile");
      select.add(new Option(value, value));
      select.value = value;
    }, String(tile));
  }
  if (plane) await page.selectOption("#plane", { value: String(plane) });
  for (const [i, channel] of (channels ?? []).entries()) await page.selectOption(`#channel-${i}`, { value: String(channel) });
  if (of) {
    await page.click(".options summary:text('Options')");
    await page.selectOption("#output", { label: of });
  }
  await page.click("#run");
  await settled("result");
}
if (await page.isHidden("#problem")) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  await download.saveAs(output);
  if (await page.isVisible("#count")) {
    await page.click("#count");
    await settled("count");
    objects = await text("#objects-count");
    if (labels) {
      const [counted] = await Promise.all([page.waitForEvent("download"), page.click("#download-labels")]);
      await counted.saveAs(labels);
    }
  }
}
// Whether the page, and a worker that it starts, could send something to these servers.
const connections = {};
for (const target of probe ?? []) {
  connections[target] = await page.evaluate(async (to) => {
    const reach = (address) => fetch(address, { method: "POST", body: "pixels", mode: "no-cors" }).then(() => true, () => false);
    const worker = new Worker(URL.createObjectURL(new Blob([`const reach = ${reach}; reach(${JSON.stringify(to)}).then(postMessage)`])));
    return [await reach(to), await new Promise((resolve) => (worker.onmessage = ({ data }) => resolve(data)))];
  }, target);
}
const canCount = await page.isVisible("#count");
const found = { canCount, objectsNote: await text("#objects-note"), status: await text("#status"), info: await text("#image-info"), problem: await text("#problem"), notes: await text("#result-notes") };
console.log(JSON.stringify({ ...found, objects, connections, errors, requests }));
await browser.close();
