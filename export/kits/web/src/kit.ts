/** The model's description, `kit/kit.json`, and its files, checked before anything uses them. */

import type { GateSettings } from "./gate";

export interface TensorSpec {
  name: string;
  shape: number[];
  dtype: string;
}

/** A file and its tensors in order. A state that comes in as `x` goes out as `x_next`. */
export interface GraphFile {
  file: string;
  sha256: string;
  bytes: number;
  inputs: TensorSpec[];
  outputs: TensorSpec[];
}

/** What the page must know of its model; times in samples. */
export interface Kit {
  modelId: string;
  name: string;
  version: string;
  licence: string;
  description: string;
  sampleRateHz: number;
  frameSamples: number;
  stepSamples: number;
  latencySamples: number;
  nMels: number;
  precision: string;
  frontend: GraphFile;
  network: GraphFile;
  gate: GateSettings;
  golden: { audio: string; expected: string };
}

type Json = Record<string, unknown>;

const FORMAT_VERSION = 1;

/** Read a parsed `kit.json`. Throws, in one sentence, where it is not what this page can run. */
export function readKit(json: unknown): Kit {
  const kit = object(json, "kit.json");
  if (kit.format_version !== FORMAT_VERSION) {
    throw new Error(`kit.json: expected format ${FORMAT_VERSION}, got ${kit.format_version}`);
  }
  if (kit.runtime !== "onnx") {
    throw new Error(`kit.json: expected a model for onnx, got one for ${kit.runtime}`);
  }
  const golden = object(kit.golden, "golden");
  const read: Kit = {
    modelId: text(kit, "model_id"),
    name: text(kit, "name"),
    version: text(kit, "version"),
    licence: text(kit, "licence"),
    description: text(kit, "description"),
    sampleRateHz: count(kit, "sample_rate_hz"),
    frameSamples: count(kit, "frame_samples"),
    stepSamples: count(kit, "step_samples"),
    latencySamples: count(kit, "latency_samples"),
    nMels: count(kit, "n_mels"),
    precision: text(kit, "precision"),
    frontend: graph(kit, "frontend"),
    network: graph(kit, "network"),
    gate: readGate(kit.gate),
    golden: { audio: text(golden, "audio"), expected: text(golden, "expected") },
  };
  if (read.stepSamples % read.frameSamples !== 0) {
    throw new Error(`kit.json: a step of ${read.stepSamples} samples is not whole frames`);
  }
  return read;
}

/** Gate settings as the bundle writes them, in snake case. */
export function readGate(json: unknown): GateSettings {
  const gate = object(json, "gate");
  const settings = {
    onThreshold: number(gate, "on_threshold"),
    offThreshold: number(gate, "off_threshold"),
    smoothingMs: number(gate, "smoothing_ms"),
    minOnMs: number(gate, "min_on_ms"),
    minOffMs: number(gate, "min_off_ms"),
    mergeGapMs: number(gate, "merge_gap_ms"),
  };
  const { onThreshold: on, offThreshold: off } = settings;
  if (!(0 < off && off <= on && on <= 1)) {
    throw new Error(`kit.json: expected thresholds 0 < off <= on <= 1, got on ${on}, off ${off}`);
  }
  return settings;
}

/** Fetch a graph's file; nothing parses it before its size and sha256 are those of `kit.json`. */
export async function fetchGraph(graph: GraphFile, base: string): Promise<Uint8Array> {
  const data = await fetchBytes(new URL(graph.file, base));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (data.byteLength !== graph.bytes || hex !== graph.sha256) {
    throw new Error(`the model file ${graph.file} is damaged`);
  }
  return new Uint8Array(data);
}

/** Fetch one of the page's own files. */
export async function fetchBytes(url: URL): Promise<ArrayBuffer> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch {
    throw new Error(`${name(url)} could not be loaded; is the connection up?`);
  }
  if (!response.ok) throw new Error(`${name(url)} is missing (HTTP ${response.status})`);
  return response.arrayBuffer();
}

/** Fetch and parse one of the page's own JSON files. */
export async function fetchJson(url: URL): Promise<unknown> {
  const data = await fetchBytes(url);
  try {
    return JSON.parse(new TextDecoder().decode(data));
  } catch {
    throw new Error(`${name(url)} is not JSON`);
  }
}

function name(url: URL): string {
  return url.pathname.split("/").pop() ?? url.pathname;
}

function object(value: unknown, what: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`kit.json: expected ${what} to be an object`);
  }
  return value as Json;
}

function text(json: Json, key: string): string {
  const value = json[key];
  if (typeof value !== "string") throw new Error(`kit.json: expected ${key} to be text`);
  return value;
}

function number(json: Json, key: string): number {
  const value = json[key];
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) {
    throw new Error(`kit.json: expected ${key} to be a number of 0 or more, got ${value}`);
  }
  return value;
}

function count(json: Json, key: string): number {
  const value = number(json, key);
  if (!Number.isInteger(value) || value === 0) {
    throw new Error(`kit.json: expected ${key} to be a whole number over 0, got ${value}`);
  }
  return value;
}

function graph(json: Json, key: string): GraphFile {
  const value = object(json[key], key);
  for (const side of ["inputs", "outputs"]) {
    if (!Array.isArray(value[side]) || value[side].length === 0) {
      throw new Error(`kit.json: expected ${key} to list its ${side}`);
    }
  }
  return {
    file: text(value, "file"),
    sha256: text(value, "sha256"),
    bytes: count(value, "bytes"),
    inputs: value.inputs as TensorSpec[],
    outputs: value.outputs as TensorSpec[],
  };
}
