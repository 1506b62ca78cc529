/** From the microphone's rate to the model's, block by block: a windowed sinc in many phases. */

const HALF_WIDTH = 48; // zero crossings on each side
const PHASES = 256;
const ROLL_OFF = 0.94; // -6 dB, as a share of the lower Nyquist frequency; at 1.0 all is gone

/**
 * Streaming and band-limited; blocks of any length in, what is ready out. The times stay those of
 * the input; an output waits for `HALF_WIDTH` samples of the lower rate, 3 ms at 16 kHz.
 */
export class Resampler {
  private readonly ratio: number; // input samples for each output sample
  private readonly reach: number; // input samples on each side that the filter needs
  private readonly taps: Float32Array; // (PHASES + 1, 2 * reach)
  private kept: Float32Array;
  private position: number; // of the next output, in samples of `kept`

  constructor(fromHz: number, toHz: number) {
    this.ratio = fromHz / toHz;
    const scale = Math.min(1, toHz / fromHz);
    this.reach = Math.ceil(HALF_WIDTH / scale);
    this.taps = design(this.reach, scale * ROLL_OFF);
    this.kept = new Float32Array(this.reach);
    this.position = this.reach;
  }

  feed(samples: Float32Array): Float32Array {
    const heard = new Float32Array(this.kept.length + samples.length);
    heard.set(this.kept);
    heard.set(samples, this.kept.length);
    const last = heard.length - this.reach;
    const out = new Float32Array(Math.max(0, Math.ceil((last - this.position) / this.ratio)));
    let made = 0;
    for (; this.position < last && made < out.length; made++) {
      out[made] = this.at(heard, this.position);
      this.position += this.ratio;
    }
    const drop = Math.max(0, Math.floor(this.position) - this.reach);
    this.kept = heard.slice(drop);
    this.position -= drop;
    return out.subarray(0, made);
  }

  /** The signal between two samples: the two nearest phases, blended. */
  private at(heard: Float32Array, position: number): number {
    const whole = Math.floor(position);
    const phase = (position - whole) * PHASES;
    const row = Math.floor(phase);
    const blend = phase - row;
    const width = 2 * this.reach;
    const first = whole - this.reach + 1;
    let low = 0;
    let high = 0;
    for (let k = 0; k < width; k++) {
      low += heard[first + k]! * this.taps[row * width + k]!;
    }
    if (blend === 0) return low;
    for (let k = 0; k < width; k++) {
      high += heard[first + k]! * this.taps[(row + 1) * width + k]!;
    }
    return low + blend * (high - low);
  }
}

/** Blackman-windowed sinc, each phase of unit gain at 0 Hz. `cutoff` is in input Nyquists. */
function design(reach: number, cutoff: number): Float32Array {
  const width = 2 * reach;
  const taps = new Float32Array((PHASES + 1) * width);
  for (let phase = 0; phase <= PHASES; phase++) {
    const row = taps.subarray(phase * width, (phase + 1) * width);
    let sum = 0;
    for (let k = 0; k < width; k++) {
      const t = k - reach + 1 - phase / PHASES;
      const u = t / reach;
      const bell = 0.42 + 0.5 * Math.cos(Math.PI * u) + 0.08 * Math.cos(2 * Math.PI * u);
      const window = Math.abs(u) >= 1 ? 0 : bell;
      const x = Math.PI * cutoff * t;
      row[k] = window * (x === 0 ? 1 : Math.sin(x) / x);
      sum += row[k]!;
    }
    for (let k = 0; k < width; k++) row[k] = row[k]! / sum;
  }
  return taps;
}
