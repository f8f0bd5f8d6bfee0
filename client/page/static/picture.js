// A picture under its anomaly map on a canvas: colours, the mask's outline, defects, zoom and pan.
import { ask } from "./common.js";

// As in the overlays of `predict`: dark violet, red, orange, pale yellow; brighter is more anomalous.
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const FULL_SCALE = 1.5; // thresholds; where the colours end
const CLEAR = 0.3, FULL = 0.9; // thresholds; below the first the picture shows through as it is, above the second the map is whole
const PALETTE = new Uint8ClampedArray(256 * 3);
for (let step = 0; step < 256; step++) {
  const place = (step / 255) * (STOPS.length - 1), low = Math.min(Math.floor(place), STOPS.length - 2);
  for (let channel = 0; channel < 3; channel++) {
    PALETTE[3 * step + channel] = STOPS[low][channel] + (place - low) * (STOPS[low + 1][channel] - STOPS[low][channel]);
  }
}

// The map as [rows, columns] values and the mask as bytes; null where there is none.
export async function loadMap(id) {
  const response = await ask(`/api/inspections/${id}/map`);
  const [rows, columns] = ["x-rows", "x-columns"].map((name) => Number(response.headers.get(name))), cells = rows * columns;
  const content = await response.arrayBuffer();
  return {
    rows, columns, release: response.headers.get("x-release"),
    values: new Float32Array(content, 0, cells),
    mask: new Uint8Array(content, 4 * cells, cells),
  };
}

export function loadImage(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("The picture is not there any more."));
    image.src = address;
  });
}

export function heatOf(map, threshold) {
  const canvas = new OffscreenCanvas(map.columns, map.rows), context = canvas.getContext("2d");
  const pixels = context.createImageData(map.columns, map.rows), limit = Math.max(threshold, 1e-6), scale = 255 / (FULL_SCALE * limit);
  for (let index = 0; index < map.values.length; index++) {
    const step = Math.max(0, Math.min(255, Math.round(map.values[index] * scale)));
    pixels.data[4 * index] = PALETTE[3 * step];
    pixels.data[4 * index + 1] = PALETTE[3 * step + 1];
    pixels.data[4 * index + 2] = PALETTE[3 * step + 2];
    pixels.data[4 * index + 3] = 255 * Math.max(0, Math.min(1, (map.values[index] / limit - CLEAR) / (FULL - CLEAR)));
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// The border of the mask's cells, in cells.
export function outlineOf(map) {
  const path = new Path2D(), { rows, columns, mask } = map;
  const at = (row, column) => row >= 0 && column >= 0 && row < rows && column < columns && mask[row * columns + column];
  for (let row = 0; row <= rows; row++) {
    for (let column = 0; column <= columns; column++) {
      const here = at(row, column);
      if (!!here !== !!at(row - 1, column)) { path.moveTo(column, row); path.lineTo(column + 1, row); }
      if (!!here !== !!at(row, column - 1)) { path.moveTo(column, row); path.lineTo(column, row + 1); }
    }
  }
  return path;
}

export class View {
  // What is seen of a picture of width x height: `scale` screen pixels a pixel of it, `left` and `top` on the screen.
  constructor(canvas) { this.canvas = canvas; this.fitted = true; this.width = this.height = 1; }

  ratio() { return globalThis.devicePixelRatio || 1; }

  resize() {
    const ratio = this.ratio(), width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) { this.canvas.width = width; this.canvas.height = height; }
    if (this.fitted) this.fit();
  }

  of(width, height) { this.width = width; this.height = height; this.fit(); }

  fit() {
    this.fitted = true;
    this.scale = Math.min(this.canvas.width / this.width, this.canvas.height / this.height) || 1;
    this.left = (this.canvas.width - this.scale * this.width) / 2;
    this.top = (this.canvas.height - this.scale * this.height) / 2;
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const least = Math.min(this.canvas.width / this.width, this.canvas.height / this.height) / 2;
    const scale = Math.max(least, Math.min(64, this.scale * factor)), applied = scale / this.scale;
    this.left = x - applied * (x - this.left);
    this.top = y - applied * (y - this.top);
    this.scale = scale;
    this.fitted = false;
  }

  move(x, y) { this.left += x; this.top += y; this.fitted = false; }

  // Where on the picture a pointer is, in its pixels.
  place(event) {
    const box = this.canvas.getBoundingClientRect(), ratio = this.ratio();
    return [((event.clientX - box.left) * ratio - this.left) / this.scale, ((event.clientY - box.top) * ratio - this.top) / this.scale];
  }

  onto(context, image, { smooth = true, alpha = 1 } = {}) {
    context.globalAlpha = alpha;
    context.imageSmoothingEnabled = smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, this.left, this.top, this.scale * this.width, this.scale * this.height);
    context.globalAlpha = 1;
  }
}

// Draw a picture; `content` has image, and where wanted heat, opacity, outline with the map it is of, defects and the chosen one.
export function draw(view, content) {
  view.resize();
  const context = view.canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, view.canvas.width, view.canvas.height);
  if (!content.image) return;
  view.onto(context, content.image, { smooth: view.scale < 3 });
  if (content.heat && content.opacity > 0) view.onto(context, content.heat, { alpha: content.opacity });
  if (content.outline) {
    const path = new Path2D();
    path.addPath(content.outline, new DOMMatrix([view.scale * view.width / content.map.columns, 0, 0, view.scale * view.height / content.map.rows, view.left, view.top]));
    stroke(context, path, "#00e5ff", 2);
  }
  (content.defects ?? []).forEach((defect, index) => {
    const path = new Path2D();
    path.rect(view.left + view.scale * defect.left, view.top + view.scale * defect.top, view.scale * defect.width, view.scale * defect.height);
    stroke(context, path, index === content.chosen ? "#ffffff" : "#ffd400", index === content.chosen ? 4 : 2);
  });
  if (content.drawn) view.onto(context, content.drawn, { smooth: false, alpha: 0.55 });
}

function stroke(context, path, colour, width) {
  const ratio = globalThis.devicePixelRatio || 1;
  context.lineWidth = (width + 2) * ratio;
  context.strokeStyle = "#000a";
  context.stroke(path);
  context.lineWidth = width * ratio;
  context.strokeStyle = colour;
  context.stroke(path);
}
