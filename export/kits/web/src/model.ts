/** The model under ONNX Runtime Web: one thread, SIMD, states carried from step to step. */

import * as ort from "onnxruntime-web/wasm";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { type GraphFile, type Kit, fetchBytes, fetchGraph } from "./kit";

/** One step's results. */
export interface StepOutput {
  /** (frames) */
  cryProbability: Float32Array;
  /** (mels, log-mel frames), mel by mel, scaled as the model sees it. */
  logMel: Float32Array;
}

/** A model that hears `stepSamples` at a time, one stream between resets. */
export interface Model {
  reset(): void;
  step(samples: Float32Array): Promise<StepOutput>;
}

/** A graph and what it carries over. */
class Graph {
  private readonly dataName: string;
  private readonly resultName: string;
  private readonly states: GraphFile["inputs"];
  private state: Record<string, ort.Tensor> = {};

  constructor(
    private readonly session: ort.InferenceSession,
    private readonly spec: GraphFile,
  ) {
    const outputs = new Set(spec.outputs.map((tensor) => tensor.name));
    this.states = spec.inputs.filter((tensor) => outputs.has(`${tensor.name}_next`));
    this.dataName = spec.inputs.find((tensor) => !this.states.includes(tensor))!.name;
    this.resultName = spec.outputs[0]!.name;
    for (const tensor of spec.inputs) {
      if (!session.inputNames.includes(tensor.name)) {
        throw new Error(`the model file ${spec.file} has no input ${tensor.name}`);
      }
    }
    this.reset();
  }

  reset(): void {
    for (const { name, shape } of this.states) {
      const size = shape.reduce((product, extent) => product * extent, 1);
      this.state[name] = new ort.Tensor("float32", new Float32Array(size), shape);
    }
  }

  /** The first output; the states are kept. */
  async run(data: Float32Array): Promise<Float32Array> {
    const shape = this.spec.inputs.find((tensor) => tensor.name === this.dataName)!.shape;
    const outputs = await this.session.run({
      ...this.state,
      [this.dataName]: new ort.Tensor("float32", data, shape),
    });
    for (const { name } of this.states) this.state[name] = outputs[`${name}_next`]!;
    return outputs[this.resultName]!.data as Float32Array;
  }
}

/** Front end and network, one after the other. */
export class OnnxModel implements Model {
  private constructor(
    private readonly frontend: Graph,
    private readonly network: Graph,
    private readonly melValues: number,
  ) {}

  /** Fetch, check and open the kit's graphs, and run them once so that the first step is fast. */
  static async open(kit: Kit, base: string): Promise<OnnxModel> {
    const [frontend, network] = await Promise.all([
      fetchGraph(kit.frontend, base),
      fetchGraph(kit.network, base),
      startRuntime(),
    ]);
    const [, , mels, frames] = kit.frontend.outputs[0]!.shape;
    const model = new OnnxModel(
      new Graph(await session(frontend, kit.frontend), kit.frontend),
      new Graph(await session(network, kit.network), kit.network),
      mels! * frames!,
    );
    await model.step(new Float32Array(kit.stepSamples));
    model.reset();
    return model;
  }

  reset(): void {
    this.frontend.reset();
    this.network.reset();
  }

  async step(samples: Float32Array): Promise<StepOutput> {
    const features = await this.frontend.run(samples);
    const cryProbability = await this.network.run(features);
    // The first channel is the log-mel, the second what stands out of the noise floor.
    return { cryProbability, logMel: features.slice(0, this.melValues) };
  }
}

async function session(data: Uint8Array, graph: GraphFile): Promise<ort.InferenceSession> {
  try {
    return await ort.InferenceSession.create(data, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`the model file ${graph.file} cannot be run here: ${(error as Error).message}`);
  }
}

/** The build stores the runtime compressed: a quarter of the bytes on any host. */
async function startRuntime(): Promise<void> {
  ort.env.wasm.numThreads = 1; // threads would need cross-origin isolation and gain nothing
  ort.env.logLevel = "error";
  const stored = import.meta.env.PROD ? `${wasmUrl}.gz` : wasmUrl;
  const data = await fetchBytes(new URL(stored, import.meta.url));
  // Some hosts mark .gz as a content encoding, and the browser has then unpacked it.
  const isGzip = new DataView(data).getUint16(0) === 0x1f8b;
  ort.env.wasm.wasmBinary = isGzip ? await unpack(data) : data;
}

async function unpack(data: ArrayBuffer): Promise<ArrayBuffer> {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
