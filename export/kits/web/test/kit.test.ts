/** kit.json as it is read: this kit's own, and broken ones. */

import { readFileSync } from "node:fs";

import { expect, it } from "vitest";

import { readKit } from "../src/kit";

const FILE = new URL("../public/kit/kit.json", import.meta.url);
const document = JSON.parse(readFileSync(FILE, "utf8"));

it("reads this kit", () => {
  const kit = readKit(document);
  expect(kit.modelId).toBe(document.model_id);
  expect(kit.stepSamples % kit.frameSamples).toBe(0);
  expect(kit.frontend.inputs[0]!.shape.at(-1)).toBe(kit.stepSamples);
  expect(kit.gate.onThreshold).toBe(document.gate.on_threshold);
});

it.each([
  [{ format_version: 2 }, "expected format 1, got 2"],
  [{ runtime: "executorch" }, "expected a model for onnx"],
  [{ model_id: 7 }, "expected model_id to be text"],
  [{ step_samples: 0 }, "step_samples to be a whole number over 0"],
  [{ step_samples: 1000 }, "is not whole frames"],
  [{ sample_rate_hz: "16000" }, "sample_rate_hz to be a number"],
  [{ network: null }, "expected network to be an object"],
  [{ frontend: { ...document.frontend, outputs: [] } }, "frontend to list its outputs"],
  [{ gate: { ...document.gate, off_threshold: 0.99 } }, "thresholds 0 < off <= on <= 1"],
  [{ gate: { ...document.gate, min_on_ms: -1 } }, "min_on_ms to be a number of 0 or more"],
])("refuses %j", (change, message) => {
  expect(() => readKit({ ...document, ...change })).toThrow(message);
});

it("refuses what is no object", () => {
  for (const json of [null, [], "kit"]) expect(() => readKit(json)).toThrow("to be an object");
});
