/**
 * From frame probabilities to events: two thresholds, minimum durations, a merge gap.
 *
 * A plain translation of crykit's `EventGate`; test/gate.test.ts holds it to the Python one. The
 * clock is an integer count of samples; frame j covers samples [j * n, (j + 1) * n).
 */

export const SILENCE_DBFS = -100;

/** When a probability becomes an event; durations in milliseconds. */
export interface GateSettings {
  onThreshold: number;
  offThreshold: number;
  smoothingMs: number;
  minOnMs: number;
  minOffMs: number;
  mergeGapMs: number;
}

/** An event has begun; `detectedSample` is how much had been heard when that was known. */
export interface GateOpened {
  type: "opened";
  onsetSample: number;
  detectedSample: number;
  peakProbability: number;
}

/** An event has ended; statistics are over its frames, the level over their mean power. */
export interface GateClosed {
  type: "closed";
  onsetSample: number;
  offsetSample: number;
  peakProbability: number;
  meanProbability: number;
  levelDbfs: number;
}

export type GateChange = GateOpened | GateClosed;

/** Statistics of consecutive frames from `onset`, in samples. */
class Span {
  offset: number;
  frames = 0;
  peak = 0;
  total = 0;
  power = 0;

  constructor(readonly onset: number) {
    this.offset = onset;
  }

  add(probability: number, power: number, frameSamples: number): void {
    this.offset += frameSamples;
    this.frames += 1;
    this.total += probability;
    this.power += power;
    if (probability > this.peak) this.peak = probability;
  }

  /** Append a span that begins where this one ends. */
  extend(other: Span): void {
    this.offset = other.offset;
    this.frames += other.frames;
    this.total += other.total;
    this.power += other.power;
    this.peak = Math.max(this.peak, other.peak);
  }
}

/** Hysteresis over a stream of frame probabilities; see crykit/gate.py for what it promises. */
export class EventGate {
  private readonly minOn: number;
  private readonly minOff: number;
  private readonly mergeGap: number;
  private readonly follow: number;
  private readonly walkBack: number;
  private clock = 0;
  private smoothed: number | null = null;
  private rise: [number, number][] = [];
  private run: Span | null = null; // over the thresholds now, or within minOff of it
  private gap: Span | null = null; // frames since, which belong to the run if it goes on
  private event: Span | null = null; // opened, not yet closed
  private between: Span | null = null; // frames after the event, before the next run

  constructor(
    readonly settings: GateSettings,
    readonly frameSamples: number,
    readonly sampleRateHz: number,
    firstSample = 0,
  ) {
    this.minOn = this.samples(settings.minOnMs);
    this.minOff = this.samples(settings.minOffMs);
    this.mergeGap = this.samples(settings.mergeGapMs);
    const frameMs = (1000 * frameSamples) / sampleRateHz;
    const tau = settings.smoothingMs;
    this.follow = tau > 0 ? 1 - Math.exp(-frameMs / tau) : 1;
    this.walkBack = Math.ceil(this.minOn / frameSamples);
    this.reset(firstSample);
  }

  /** Whether an event has been opened and not yet closed. */
  get isOpen(): boolean {
    return this.event !== null;
  }

  /** End of the last frame fed, in samples. */
  get clockSample(): number {
    return this.clock;
  }

  /** Forget everything; the next frame starts at `firstSample`. */
  reset(firstSample = 0): void {
    this.clock = firstSample;
    this.smoothed = null;
    this.rise = [];
    this.run = this.gap = this.event = this.between = null;
  }

  /** Take frames in order, any number. Throws where a probability is not finite. */
  feed(probabilities: ArrayLike<number>, levelsDbfs: ArrayLike<number>): GateChange[] {
    if (probabilities.length !== levelsDbfs.length) {
      throw new Error(`${probabilities.length} probabilities, but ${levelsDbfs.length} levels`);
    }
    const found: GateChange[] = [];
    for (let i = 0; i < probabilities.length; i++) {
      const probability = probabilities[i]!;
      if (!Number.isFinite(probability)) {
        throw new Error(`frame at sample ${this.clock}: not a probability: ${probability}`);
      }
      this.frame(probability, 10 ** (levelsDbfs[i]! / 10), found);
    }
    return found;
  }

  /** The stream ends here: close what is open, drop what is too short. */
  flush(): GateChange[] {
    const found: GateChange[] = [];
    this.endRun();
    this.close(found);
    this.rise = [];
    return found;
  }

  private samples(durationMs: number): number {
    return Math.ceil((durationMs * this.sampleRateHz) / 1000);
  }

  private frame(probability: number, power: number, found: GateChange[]): void {
    const last = this.smoothed ?? probability;
    const value = (this.smoothed = last + this.follow * (probability - last));
    const start = this.clock;
    this.clock += this.frameSamples;
    if (this.run !== null) this.continueRun(this.run, value, probability, power);
    else this.awaitRun(value, probability, power, start);
    const run = this.run as Span | null;
    if (run === null) this.closeIfOver(found);
    else if (run.offset - run.onset >= this.minOn && this.gap === null) this.accept(run, found);
  }

  private continueRun(run: Span, value: number, probability: number, power: number): void {
    if (value >= this.settings.offThreshold) {
      if (this.gap !== null) {
        run.extend(this.gap);
        this.gap = null;
      }
      run.add(probability, power, this.frameSamples);
      return;
    }
    this.gap ??= new Span(run.offset);
    this.gap.add(probability, power, this.frameSamples);
    if (this.gap.offset - this.gap.onset >= this.minOff) this.endRun();
  }

  private awaitRun(value: number, probability: number, power: number, start: number): void {
    if (value >= this.settings.onThreshold) {
      const run = (this.run = new Span(start - this.rise.length * this.frameSamples));
      for (const [p, w] of this.rise) run.add(p, w, this.frameSamples);
      this.rise = [];
      run.add(probability, power, this.frameSamples);
      return;
    }
    this.rise.push([probability, power]);
    const keep = value >= this.settings.offThreshold ? this.walkBack : 0;
    while (this.rise.length > keep) {
      const [p, w] = this.rise.shift()!;
      this.between?.add(p, w, this.frameSamples);
    }
  }

  /** A run long enough opens an event, or goes on with the one before it. */
  private accept(run: Span, found: GateChange[]): void {
    const event = this.event;
    if (event === run) return;
    if (event === null || this.between === null) {
      this.event = run;
      found.push({
        type: "opened",
        onsetSample: run.onset,
        detectedSample: this.clock,
        peakProbability: run.peak,
      });
      return;
    }
    // The pause had not yet outlasted the merge gap, else the event would be closed.
    event.extend(this.between);
    event.extend(run);
    this.run = event;
    this.between = null;
  }

  /** The run is over: its event now waits for one to merge with, or it was too short. */
  private endRun(): void {
    const { run, gap } = this;
    if (run === null) return;
    this.run = this.gap = null;
    if (this.event === run) {
      this.between = gap ?? new Span(run.offset);
    } else if (this.between !== null) {
      this.between.extend(run);
      if (gap !== null) this.between.extend(gap);
    }
  }

  private closeIfOver(found: GateChange[]): void {
    // A rise that may yet become a run is not in `between`: its onset is what counts.
    const between = this.between;
    if (between !== null && between.offset - between.onset >= this.mergeGap) this.close(found);
  }

  private close(found: GateChange[]): void {
    const event = this.event;
    if (event === null) return;
    this.event = this.between = null;
    const power = event.power / event.frames;
    found.push({
      type: "closed",
      onsetSample: event.onset,
      offsetSample: event.offset,
      peakProbability: event.peak,
      meanProbability: event.total / event.frames,
      levelDbfs: power > 0 ? 10 * Math.log10(power) : SILENCE_DBFS,
    });
  }
}
