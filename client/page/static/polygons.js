// Polygons to inspect and to ignore, in pixels of a picture: changed, undone, checked, and read from and written as regions.json.
const UNDOS = 200, SAME_SHAPE = 1.01, LEAST_CORNERS = 3;
export const KINDS = ["inspect", "ignore"];
const KEYS = ["format", "picture", ...KINDS];

export class Polygons {
  // `list` holds {kind, corners: [[x, y], ...], open}; at most one is open, which clicks go on drawing.
  constructor() { this.list = []; this.before = []; this.width = this.height = 0; }

  // What a change begins with, so that it can be undone.
  remember() {
    this.before.push(JSON.stringify([this.list, this.width, this.height]));
    if (this.before.length > UNDOS) this.before.shift();
  }

  undo() {
    const before = this.before.pop();
    if (!before) return false;
    const [list, width, height] = JSON.parse(before);
    this.list = list;
    this.scaleTo(this.width, this.height, width, height); // the picture may have changed since
    return true;
  }

  scaleTo(width, height, fromWidth = this.width, fromHeight = this.height) {
    if (fromWidth && (fromWidth !== width || fromHeight !== height)) {
      for (const polygon of this.list) polygon.corners = polygon.corners.map(([x, y]) => [round((x * width) / fromWidth), round((y * height) / fromHeight)]);
    }
    this.width = width;
    this.height = height;
  }

  // Take another picture: polygons stay where it has the same shape; else a sentence says why not.
  show(width, height) {
    if (this.list.length && !sameShape(width, height, this.width, this.height)) {
      return `That picture has ${width} × ${height} pixels, and the polygons are drawn on ${this.width} × ${this.height}, another shape; remove the polygons first.`;
    }
    this.scaleTo(width, height);
    return null;
  }

  open() { return this.list.find((polygon) => polygon.open); }

  // A corner of the polygon that is being drawn, or of a new one.
  add(kind, x, y) {
    this.remember();
    let polygon = this.open();
    if (!polygon || polygon.kind !== kind) { this.closeAll(); polygon = this.addPolygon(kind); }
    polygon.corners.push([this.within(x, this.width), this.within(y, this.height)]);
  }

  addPolygon(kind) {
    const polygon = { kind, corners: [], open: true };
    this.closeAll();
    this.list.push(polygon);
    return polygon;
  }

  closeAll() { for (const polygon of this.list) polygon.open = false; }
  within(value, most) { return round(Math.max(0, Math.min(most, value))); }

  // The number that a polygon has among those of its kind, from 1.
  number(polygon) { return this.list.filter((other) => other.kind === polygon.kind).indexOf(polygon) + 1; }

  // What is wrong, in a sentence; null for nothing.
  fault() {
    for (const polygon of this.list) {
      const name = `${polygon.kind} ${this.number(polygon)}`;
      for (const [index, [x, y]] of polygon.corners.entries()) {
        if (!Number.isFinite(x) || !Number.isFinite(y)) return `Corner ${index + 1} of ${name} is not given as two numbers.`;
        if (x < 0 || y < 0 || x > this.width || y > this.height) return `Corner ${index + 1} of ${name} lies at ${x}, ${y}, outside the picture of ${this.width} × ${this.height} pixels.`;
      }
    }
    for (const polygon of this.list) {
      const count = polygon.corners.length;
      if (count < LEAST_CORNERS) return `${polygon.kind} ${this.number(polygon)} has ${count} ${count === 1 ? "corner" : "corners"}; it takes at least ${LEAST_CORNERS}.`;
    }
    return null;
  }

  // The area of all polygons of a kind as one path, in pixels of the picture; each by the even-odd rule.
  paths(kind) {
    return this.list.filter((polygon) => polygon.kind === kind && polygon.corners.length >= LEAST_CORNERS).map(pathOf);
  }

  content() {
    const corners = (kind) => this.list.filter((polygon) => polygon.kind === kind).map((polygon) => polygon.corners);
    return { format: 1, picture: [this.width, this.height], inspect: corners("inspect"), ignore: corners("ignore") };
  }

  // Take what a file holds in place of what is drawn; a sentence where it cannot be.
  read(text) {
    let values;
    try {
      values = JSON.parse(text);
    } catch {
      return text.trim() ? "That file is no JSON." : "That file is empty.";
    }
    const fault = faultOf(values);
    if (fault) return fault;
    const [width, height] = values.picture;
    if (this.width && !sameShape(width, height, this.width, this.height)) {
      return `The file is drawn on a picture of ${width} × ${height} pixels, and this one has ${this.width} × ${this.height}, another shape; choose the picture first.`;
    }
    this.remember();
    this.list = KINDS.flatMap((kind) => (values[kind] ?? []).map((corners) => ({ kind, corners, open: false })));
    this.scaleTo(this.width || width, this.height || height, width, height);
    return null;
  }
}

export function pathOf(polygon) {
  const path = new Path2D();
  polygon.corners.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
  if (!polygon.open) path.closePath();
  return path;
}

const round = (value) => Math.round(value * 100) / 100;
const sameShape = (width, height, otherWidth, otherHeight) => {
  const stretch = (width * otherHeight) / (height * otherWidth);
  return Math.max(stretch, 1 / stretch) <= SAME_SHAPE;
};

function faultOf(values) {
  if (typeof values !== "object" || values === null || Array.isArray(values)) return "That file holds no regions.";
  const unknown = Object.keys(values).find((key) => !KEYS.includes(key));
  if (unknown !== undefined) return `That file has an unknown key, ${unknown.slice(0, 40)}.`;
  if (values.format !== 1) return "That file is not of format 1, which this page reads.";
  const { picture } = values, isCount = (value) => Number.isInteger(value) && value > 0;
  if (!Array.isArray(picture) || picture.length !== 2 || !picture.every(isCount)) return "That file does not say the picture's width and height.";
  const isCorner = (corner) => Array.isArray(corner) && corner.length === 2 && corner.every(Number.isFinite);
  const isPolygon = (polygon) => Array.isArray(polygon) && polygon.every(isCorner);
  if (!KINDS.every((kind) => Array.isArray(values[kind] ?? []) && (values[kind] ?? []).every(isPolygon))) return "That file's polygons are not lists of corners [x, y].";
  return null;
}
