/** The gate against the vectors that crykit's Python gate made. */

import { readFileSync } from "node:fs";

import { describe, expect, it } from "vitest";

import { EventGate, type GateChange } from "../src/gate";
import { readGate } from "../src/kit";

interface Vector {
  shows: string[];
  settings: unknown;
  frame_samples: number;
  sample_rate_hz: number;
  first_sample: number;
  probabilities: number[];
  levels_dbfs: number[];
  found: Record<string, number | string>[];
}

const FILE = new URL("../public/kit/golden/gate_vectors.json", import.meta.url);
const { vectors } = JSON.parse(readFileSync(FILE, "utf8")) as { vectors: Vector[] };

function gateOf(vector: Vector): EventGate {
  return new EventGate(
    readGate(vector.settings),
    vector.frame_samples,
    vector.sample_rate_hz,
    vector.first_sample,
  );
}

/** Whole numbers exactly, others to 1e-9. */
function expectSame(found: GateChange[], expected: Vector["found"]): void {
  expect(found.map((change) => change.type)).toEqual(expected.map((change) => change.type));
  found.forEach((change, i) => {
    for (const [key, value] of Object.entries(change)) {
      const wanted = expected[i]![key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)];
      if (typeof value !== "number" || key.endsWith("Sample")) expect(value).toBe(wanted);
      else expect(Math.abs(value - (wanted as number))).toBeLessThan(1e-9);
    }
    expect(Object.keys(change)).toHaveLength(Object.keys(expected[i]!).length);
  });
}

describe("the gate", () => {
  it("has vectors to be held to", () => expect(vectors.length).toBeGreaterThan(50));

  it.each(vectors.map((vector, i) => [i, vector.shows.join(", "), vector] as const))(
    "says what the Python gate says: vector %i, %s",
    (_, __, vector) => {
      const gate = gateOf(vector);
      const found = gate.feed(vector.probabilities, vector.levels_dbfs);
      expectSame([...found, ...gate.flush()], vector.found);
      const { frame_samples: frame, first_sample: first, probabilities } = vector;
      expect(gate.clockSample).toBe(first + frame * probabilities.length);
      expect(gate.isOpen).toBe(false);
    },
  );

  it("does not mind how the frames are cut, and starts anew after a reset", () => {
    for (const vector of vectors) {
      const gate = gateOf(vector);
      gate.feed([1, 1, 1], [-20, -20, -20]);
      gate.reset(vector.first_sample);
      const found = vector.probabilities.flatMap((probability, i) =>
        gate.feed([probability], [vector.levels_dbfs[i]!]),
      );
      expectSame([...found, ...gate.flush()], vector.found);
    }
  });

  it("refuses what is no probability, and frames without a level", () => {
    const gate = gateOf(vectors[0]!);
    expect(() => gate.feed([NaN], [0])).toThrow("not a probability");
    expect(() => gate.feed([0.5], [])).toThrow("1 probabilities, but 0 levels");
  });
});
