/** The log-mel strip: the last 20 seconds of sound as the model sees them, newest at the right. */

// From quiet to loud; lightness rises all the way, so that it reads without hue.
const HEAT = [
  [0x1a, 0x05, 0x04],
  [0x3a, 0x0d, 0x08],
  [0x6e, 0x20, 0x12],
  [0xb0, 0x44, 0x2a],
  [0xff, 0x9c, 0x76],
] as const;
// In the model's scale, 20 dB a unit: from a quiet room to a loud cry close by.
const QUIETEST = 0.8;
const LOUDEST = 4;
const FRAMES_A_COLUMN = 4; // 40 ms

export class Strip {
  private readonly context: CanvasRenderingContext2D;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.context = canvas.getContext("2d")!;
  }

  clear(): void {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Move to the left and draw one step at the right; `logMel` is (mels, frames), mel by mel. */
  add(logMel: Float32Array, mels: number): void {
    const frames = logMel.length / mels;
    const columns = Math.ceil(frames / FRAMES_A_COLUMN);
    const image = this.context.createImageData(columns, mels);
    for (let mel = 0; mel < mels; mel++) {
      for (let column = 0; column < columns; column++) {
        const first = column * FRAMES_A_COLUMN;
        const last = Math.min(first + FRAMES_A_COLUMN, frames);
        const loudest = Math.max(...logMel.subarray(mel * frames + first, mel * frames + last));
        const pixel = 4 * ((mels - 1 - mel) * columns + column); // high tones above
        image.data.set(heat((loudest - QUIETEST) / (LOUDEST - QUIETEST)), pixel);
      }
    }
    this.context.drawImage(this.canvas, -columns, 0);
    this.context.putImageData(image, this.canvas.width - columns, 0);
  }
}

function heat(share: number): [number, number, number, number] {
  const scaled = Math.min(Math.max(share, 0), 1) * (HEAT.length - 1);
  const low = Math.min(Math.floor(scaled), HEAT.length - 2);
  const mix = (channel: 0 | 1 | 2) => {
    const from = HEAT[low]![channel];
    return from + (scaled - low) * (HEAT[low + 1]![channel] - from);
  };
  return [mix(0), mix(1), mix(2), 255];
}
