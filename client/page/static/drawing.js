// A mask drawn over a picture, in its own pixels: brush, eraser, undo.
const COLOUR = "#ff2fd0"; // nothing at the line has it
const UNDOS = 20;

export class Drawing {
  constructor() { this.active = this.erase = this.drawing = this.changed = false; this.size = 0.2; this.before = []; this.canvas = null; }

  of(width, height) {
    this.canvas = new OffscreenCanvas(width, height);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.context.lineCap = this.context.lineJoin = "round";
  }

  // Take over a mask that was drawn before: white on black.
  load(image) {
    this.context.drawImage(image, 0, 0);
    const pixels = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let index = 0; index < pixels.data.length; index += 4) pixels.data[index + 3] = pixels.data[index] ? 255 : 0;
    this.context.putImageData(pixels, 0, 0);
    this.context.globalCompositeOperation = "source-in";
    this.context.fillStyle = COLOUR;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.context.globalCompositeOperation = "source-over";
  }

  begin(x, y) {
    this.before.push(this.context.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.before.length > UNDOS || this.canvas.width * this.canvas.height * 4 * this.before.length > 4e8) this.before.shift();
    this.drawing = this.changed = true;
    this.last = [x, y];
    this.go(x, y);
  }

  go(x, y) {
    const context = this.context;
    context.globalCompositeOperation = this.erase ? "destination-out" : "source-over";
    context.strokeStyle = COLOUR;
    context.lineWidth = Math.max(1, this.size * this.size * Math.min(this.canvas.width, this.canvas.height));
    context.beginPath();
    context.moveTo(...this.last);
    context.lineTo(x, y);
    context.stroke();
    context.globalCompositeOperation = "source-over";
    this.last = [x, y];
  }

  end() { this.drawing = false; }
  cancel() { if (this.drawing) { this.end(); this.undo(); } }
  undo() { const before = this.before.pop(); if (before) this.context.putImageData(before, 0, 0); }

  // The mask as base64 of a PNG, white where it is drawn; edges are not blurred.
  async png() {
    const pixels = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let index = 0; index < pixels.data.length; index += 4) {
      const drawn = pixels.data[index + 3] > 127 ? 255 : 0;
      pixels.data[index] = pixels.data[index + 1] = pixels.data[index + 2] = drawn;
      pixels.data[index + 3] = 255;
    }
    const canvas = new OffscreenCanvas(this.canvas.width, this.canvas.height);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
    let text = "";
    for (let start = 0; start < bytes.length; start += 32768) text += String.fromCharCode(...bytes.subarray(start, start + 32768));
    return btoa(text);
  }
}
