/** Sound in, cries out: any length of samples through a model and a gate, as in crykit. */

import { type EventGate, type GateChange, SILENCE_DBFS } from "./gate";
import type { Model } from "./model";

/** What one step heard and said. */
export interface FrameBlock {
  /** Clock of the block's end, in samples. */
  clockSample: number;
  cryProbability: Float32Array;
  levelDbfs: Float32Array;
  /** (mels, log-mel frames), mel by mel. */
  logMel: Float32Array;
}

/**
 * Collects whole steps. What comes out depends on the samples alone, never on how they were cut.
 * Calls must not overlap: await one before the next.
 */
export class Listener {
  private readonly pending: Float32Array;
  private filled = 0;
  private clock = 0;

  constructor(
    private readonly model: Model,
    private readonly gate: EventGate,
    readonly stepSamples: number,
    private readonly onBlock: (block: FrameBlock) => void = () => {},
  ) {
    this.pending = new Float32Array(stepSamples);
    this.reset();
  }

  /** Clock up to which the model has heard, padding excluded. */
  get clockSample(): number {
    return this.clock;
  }

  /** Start a new stream: clock and states are zero. */
  reset(): void {
    this.model.reset();
    this.gate.reset();
    this.filled = this.clock = 0;
  }

  /** Take sound of any length; throws where a sample is not finite. */
  async feed(samples: Float32Array): Promise<GateChange[]> {
    const found: GateChange[] = [];
    for (let start = 0; start < samples.length; ) {
      const taken = Math.min(this.stepSamples - this.filled, samples.length - start);
      this.pending.set(samples.subarray(start, start + taken), this.filled);
      this.filled += taken;
      start += taken;
      if (this.filled === this.stepSamples) {
        this.filled = 0;
        found.push(...(await this.step(this.stepSamples)));
      }
    }
    return found;
  }

  /** The stream ends: score the rest, led out by zeros, and close an open cry. */
  async flush(): Promise<GateChange[]> {
    const found: GateChange[] = [];
    if (this.filled > 0) {
      this.pending.fill(0, this.filled);
      const heard = this.filled;
      this.filled = 0;
      found.push(...(await this.step(heard)));
    }
    found.push(...this.gate.flush());
    return found;
  }

  private async step(heard: number): Promise<GateChange[]> {
    const samples = this.pending.slice();
    if (!samples.every(Number.isFinite)) throw new Error("the microphone gave no numbers");
    const output = await this.model.step(samples);
    // Only frames that were heard in full reach the gate: no event outlasts the sound.
    const whole = Math.floor(heard / this.gate.frameSamples);
    const levelDbfs = levels(samples, this.gate.frameSamples).slice(0, whole);
    const cryProbability = output.cryProbability.slice(0, whole);
    this.clock += heard;
    this.onBlock({ clockSample: this.clock, cryProbability, levelDbfs, logMel: output.logMel });
    return this.gate.feed(cryProbability, levelDbfs);
  }
}

/** Root-mean-square level of whole frames in dB of full scale; silence reads `SILENCE_DBFS`. */
export function levels(samples: Float32Array, frameSamples: number): Float32Array {
  const floor = 10 ** (SILENCE_DBFS / 10);
  const decibels = new Float32Array(Math.floor(samples.length / frameSamples));
  for (let frame = 0; frame < decibels.length; frame++) {
    let power = 0;
    for (let i = frame * frameSamples; i < (frame + 1) * frameSamples; i++) {
      power += samples[i]! ** 2;
    }
    decibels[frame] = 10 * Math.log10(Math.max(power / frameSamples, floor));
  }
  return decibels;
}
