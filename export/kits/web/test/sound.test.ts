/** Steps, levels, resampling, WAV files, and the watch over the microphone. */

import { expect, it } from "vitest";

import { EventGate, type GateSettings } from "../src/gate";
import { type FrameBlock, Listener, levels } from "../src/listener";
import type { Model, StepOutput } from "../src/model";
import { LeadIn } from "../src/lead";
import { Resampler } from "../src/resample";
import { InputWatch } from "../src/watch";
import { readWav } from "../src/wav";
import { duration } from "../src/words";

const FRAME = 4;
const STEP = 8;
const SETTINGS: GateSettings = {
  onThreshold: 0.5,
  offThreshold: 0.5,
  smoothingMs: 0,
  minOnMs: 4,
  minOffMs: 4,
  mergeGapMs: 0,
};

/** Says of each frame how loud it was, and remembers how much it was given. */
class Echo implements Model {
  steps = 0;
  resets = 0;

  reset(): void {
    this.resets += 1;
  }

  async step(samples: Float32Array): Promise<StepOutput> {
    this.steps += 1;
    const firsts = samples.filter((_, i) => i % FRAME === 0);
    return { cryProbability: firsts, logMel: new Float32Array(2) };
  }
}

/** A cry over the samples 12 to 28, then a rest that is no whole step and no whole frame. */
const SOUND = Float32Array.from({ length: 37 }, (_, i) => (i >= 12 && i < 28 ? 0.9 : 0.1));

async function listen(cuts: number[]) {
  const model = new Echo();
  const blocks: FrameBlock[] = [];
  const gate = new EventGate(SETTINGS, FRAME, 1000);
  const listener = new Listener(model, gate, STEP, (block) => blocks.push(block));
  const found = [];
  let start = 0;
  for (const cut of [...cuts, SOUND.length]) {
    found.push(...(await listener.feed(SOUND.subarray(start, cut))));
    start = cut;
  }
  found.push(...(await listener.flush()));
  return { model, blocks, found, listener };
}

it("hears the same however the sound is cut", async () => {
  const whole = await listen([]);
  expect(whole.found.map((change) => [change.type, change.onsetSample])).toEqual([
    ["opened", 12],
    ["closed", 12],
  ]);
  expect(whole.found[1]).toMatchObject({ offsetSample: 28 });
  for (const cuts of [[8], [1, 2, 3], [7, 9, 30], Array.from({ length: 36 }, (_, i) => i + 1)]) {
    const { found, model, blocks } = await listen(cuts);
    expect(found).toEqual(whole.found);
    expect(model.steps).toBe(5);
    expect(blocks.map((block) => block.clockSample)).toEqual([8, 16, 24, 32, 37]);
    expect(blocks.at(-1)!.cryProbability).toHaveLength(1); // 5 samples are one whole frame
  }
});

it("starts a new stream from nothing", async () => {
  const { listener, model } = await listen([]);
  listener.reset();
  expect(listener.clockSample).toBe(0);
  expect(model.resets).toBe(2);
});

it("refuses sound that is no number", async () => {
  const { listener } = await listen([]);
  await expect(listener.feed(new Float32Array(STEP).fill(NaN))).rejects.toThrow("no numbers");
});

it("measures levels as crykit does", () => {
  const sine = Float32Array.from({ length: 64 }, (_, i) => Math.sin((2 * Math.PI * i) / 16));
  expect(levels(sine, 32)[1]).toBeCloseTo(-3.01, 2);
  expect([...levels(new Float32Array(9), 4)]).toEqual([-100, -100]);
});

function tone(hz: number, rateHz: number, seconds: number): Float32Array {
  const length = Math.round(rateHz * seconds);
  return Float32Array.from({ length }, (_, i) => Math.sin((2 * Math.PI * hz * i) / rateHz));
}

function resampled(sound: Float32Array, fromHz: number, blocks: number[]): Float32Array {
  const resampler = new Resampler(fromHz, 16_000);
  const out: number[] = [];
  for (let start = 0, i = 0; start < sound.length; i++) {
    const size = blocks[i % blocks.length]!;
    out.push(...resampler.feed(sound.subarray(start, start + size)));
    start += size;
  }
  return Float32Array.from(out);
}

const RATES_HZ = [48_000, 44_100, 22_050, 16_000, 8_000];

it.each(RATES_HZ)("keeps tones and their times from %i Hz", (fromHz) => {
  const hz = Math.min(3000, fromHz / 4);
  const out = resampled(tone(hz, fromHz, 0.5), fromHz, [128]);
  const wanted = tone(hz, 16_000, 0.5);
  expect(out.length).toBeGreaterThan(7800);
  expect(out.length).toBeLessThanOrEqual(8000);
  for (let i = 200; i < out.length; i++) expect(Math.abs(out[i]! - wanted[i]!)).toBeLessThan(2e-3);
});

it("lets nothing fold back, and does not mind the size of the blocks", () => {
  const high = resampled(tone(9000, 48_000, 0.2), 48_000, [128]).subarray(200, 3000);
  expect(Math.max(...high.map(Math.abs))).toBeLessThan(1e-3);
  const sound = tone(1000, 44_100, 0.2);
  const [one, other] = [[1, 500, 37], [128]].map((blocks) => resampled(sound, 44_100, blocks));
  expect(one!.length).toBe(other!.length);
  expect(Math.max(...one!.map((value, i) => Math.abs(value - other![i]!)))).toBeLessThan(1e-6);
});

it("passes over a silent lead-in, for a while, and over nothing else", () => {
  const pass = (lead: LeadIn, ...samples: number[]) => [...lead.pass(Float32Array.from(samples))];
  const lead = new LeadIn(6);
  expect(pass(lead, 0, 0)).toEqual([]);
  expect(pass(lead, 0, 0.5, 0)).toEqual([0.5, 0]);
  expect(pass(lead, 0, 0, 1)).toEqual([0, 0, 1]);
  const muted = new LeadIn(3);
  expect([pass(muted, 0, 0), pass(muted, 0, 0), pass(muted, 0, 0)]).toEqual([[], [], [0, 0]]);
});

function wav(samples: number[], { rateHz = 16_000, channels = 1, extra = 0 } = {}): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(44 + extra + 2 * samples.length));
  const tag = (at: number, name: string) => {
    for (const [i, letter] of [...name].entries()) view.setUint8(at + i, letter.charCodeAt(0));
  };
  tag(0, "RIFF");
  tag(8, "WAVE");
  tag(12, "fmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rateHz, true);
  view.setUint16(34, 16, true);
  if (extra) {
    tag(36, "LIST");
    view.setUint32(40, extra - 8, true);
  }
  tag(36 + extra, "data");
  view.setUint32(40 + extra, 2 * samples.length, true);
  samples.forEach((sample, i) => view.setInt16(44 + extra + 2 * i, sample, true));
  return view.buffer;
}

it("reads WAV files, with and without other chunks, and refuses other kinds", () => {
  for (const extra of [0, 12]) {
    expect([...readWav(wav([16384, -32768], { extra }), 16_000)]).toEqual([0.5, -1]);
  }
  expect(() => readWav(wav([1], { rateHz: 8000 }), 16_000)).toThrow("got 1/1/8000/16");
  expect(() => readWav(wav([1, 2], { channels: 2 }), 16_000)).toThrow("PCM16 mono");
  expect(() => readWav(new ArrayBuffer(4), 16_000)).toThrow("got none");
});

it("tells quiet from silence from nothing at all", () => {
  const watch = new InputWatch(0);
  const hear = (from: number, to: number, level: number) => {
    for (let ms = from; ms <= to; ms += 160) watch.heard([level, level], ms);
  };
  hear(0, 8000, -80);
  expect(watch.trouble(8000)).toBeNull();
  hear(8160, 14_000, -100);
  expect(watch.trouble(14_000)).toBe("silent");
  expect(watch.trouble(18_000)).toBe("paused");
  hear(18_100, 19_000, -100); // after a pause silence has to last anew
  expect(watch.trouble(19_000)).toBeNull();
  hear(19_100, 24_000, -60);
  expect(watch.trouble(24_000)).toBeNull();
});

it("says durations as one reads them", () => {
  expect([0.4, 59.6, 61, 3599, 4320].map(duration)).toEqual([
    "0 s",
    "1 min 00 s",
    "1 min 01 s",
    "59 min 59 s",
    "1 h 12 min",
  ]);
});
