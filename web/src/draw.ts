/** Draw reduced maps into canvases. */

import type { Preview } from "./protocol";

type Colour = readonly [number, number, number];

const OVERLAY: Colour = [255, 140, 40];

/** Draw a map in grey. */
export function drawGrey(canvas: HTMLCanvasElement, map: Preview): void {
  draw(canvas, map, (i) => {
    const grey = shade(map, i);
    return [grey, grey, grey];
  });
}

/** Draw a map in grey with a second one as a colour over it. */
export function drawOverlay(canvas: HTMLCanvasElement, map: Preview, over: Preview, opacity: number): void {
  draw(canvas, map, (i) => {
    const grey = shade(map, i);
    const part = (shade(over, i) / 255) * opacity;
    return OVERLAY.map((c) => grey * (1 - part) + c * part) as unknown as Colour;
  });
}

/** Draw labels, each in a colour of its own; where a map is given, over it. */
export function drawLabels(canvas: HTMLCanvasElement, labels: Preview, under: Preview | null, opacity: number): void {
  draw(canvas, labels, (i) => {
    const label = labels.values[i]!;
    const grey = under === null ? 0 : shade(under, i);
    if (label === 0) return [grey, grey, grey];
    const part = under === null ? 1 : opacity;
    return colourOf(label).map((c) => grey * (1 - part) + c * part) as unknown as Colour;
  });
}

function draw(canvas: HTMLCanvasElement, map: Preview, colour: (i: number) => Colour): void {
  canvas.width = map.width;
  canvas.height = map.height;
  const pixels = new ImageData(map.width, map.height);
  for (let i = 0; i < map.values.length; i++) {
    const [r, g, b] = colour(i);
    pixels.data[4 * i] = r;
    pixels.data[4 * i + 1] = g;
    pixels.data[4 * i + 2] = b;
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
}

function shade(map: Preview, i: number): number {
  const span = map.high - map.low || 1;
  return 255 * Math.min(1, Math.max(0, (map.values[i]! - map.low) / span));
}

/** Return a bright colour for a label: hues by the golden ratio, so that neighbouring numbers differ. */
function colourOf(label: number): Colour {
  const hue = ((label * 0.618034) % 1) * 6;
  const fraction = hue % 1;
  const [low, up, down] = [70, 70 + 185 * fraction, 255 - 185 * fraction];
  return ([[255, up, low], [down, 255, low], [low, 255, up], [low, down, 255], [up, low, 255], [255, low, down]] as const)[Math.floor(hue)]!;
}
