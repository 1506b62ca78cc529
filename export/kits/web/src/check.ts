/** Replay the golden sound and compare with what crykit's Python listener heard in it. */

import { EventGate, type GateClosed } from "./gate";
import { type Kit, fetchBytes, fetchJson } from "./kit";
import { Listener } from "./listener";
import type { Checked } from "./messages";
import type { Model } from "./model";
import { readWav } from "./wav";

interface ExpectedEvent {
  onset_sample: number;
  offset_sample: number;
}

interface Expected {
  tolerance: { cry_probability_max_abs: number };
  cry_probability: number[];
  events: ExpectedEvent[];
}

/** Play it as fast as it goes, from fresh states. */
export async function checkGolden(kit: Kit, model: Model, base: string): Promise<Checked> {
  const [wav, json] = await Promise.all([
    fetchBytes(new URL(kit.golden.audio, base)),
    fetchJson(new URL(kit.golden.expected, base)),
  ]);
  const samples = readWav(wav, kit.sampleRateHz);
  const expected = json as Expected;
  const probabilities: number[] = [];
  const gate = new EventGate(kit.gate, kit.frameSamples, kit.sampleRateHz);
  const listener = new Listener(model, gate, kit.stepSamples, (block) =>
    probabilities.push(...block.cryProbability),
  );
  const started = performance.now();
  const found = [...(await listener.feed(samples)), ...(await listener.flush())];
  const seconds = (performance.now() - started) / 1000;
  listener.reset();
  const events = found.filter((change) => change.type === "closed");
  const tolerance = expected.tolerance.cry_probability_max_abs;
  const largestDifference = maxDifference(probabilities, expected.cry_probability);
  const fault = !(largestDifference <= tolerance)
    ? `probabilities differ by up to ${largestDifference.toFixed(4)}, allowed is ${tolerance}`
    : eventFault(events, expected.events, kit.stepSamples);
  return {
    type: "checked",
    passed: fault === "",
    fault,
    events: events.length,
    largestDifference,
    tolerance,
    realTimeFactor: seconds / (samples.length / kit.sampleRateHz),
  };
}

function maxDifference(got: number[], expected: number[]): number {
  if (got.length !== expected.length) return NaN;
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0);
}

/** Why the events are not the expected ones within a step, or nothing. */
function eventFault(got: GateClosed[], expected: ExpectedEvent[], step: number): string {
  if (got.length !== expected.length) {
    return `found ${got.length} cries, expected ${expected.length}`;
  }
  const strays = got.some(
    (event, i) =>
      Math.abs(event.onsetSample - expected[i]!.onset_sample) > step ||
      Math.abs(event.offsetSample - expected[i]!.offset_sample) > step,
  );
  return strays ? "found a cry at another time than expected" : "";
}
