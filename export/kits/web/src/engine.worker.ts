/** The engine, a worker of its own: sound comes from the audio thread, events go to the page. */

import { checkGolden } from "./check";
import { EventGate, type GateChange } from "./gate";
import { type Kit, fetchJson, readKit } from "./kit";
import { type FrameBlock, Listener } from "./listener";
import type { FromEngine, ToEngine } from "./messages";
import { OnnxModel } from "./model";

/** Sound that may wait for a phone that is too slow; what comes on top is dropped and told. */
const MAX_WAITING_S = 10;

let kit: Kit;
let base: string;
let model: OnnxModel;
let listener: Listener;
let microphone: MessagePort | null = null;
let waiting = 0; // samples that came and are not yet heard
let work: Promise<unknown> = Promise.resolve();

self.onmessage = ({ data }: MessageEvent<ToEngine>) => {
  if (data.type === "load") inOrder(() => load(data.base));
  else if (data.type === "listen") inOrder(() => listen(data.microphone));
  else if (data.type === "stop") stop();
  else inOrder(async () => say(await checkGolden(kit, model, base)));
};

function say(message: FromEngine, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

/** One thing after the other: steps must not overlap. */
function inOrder(job: () => Promise<unknown> | unknown): void {
  work = work.then(job).catch((error: Error) => {
    hangUp();
    say({ type: "fault", message: error.message });
  });
}

async function load(from: string): Promise<void> {
  base = from;
  kit = readKit(await fetchJson(new URL("kit.json", base)));
  model = await OnnxModel.open(kit, base);
  const gate = new EventGate(kit.gate, kit.frameSamples, kit.sampleRateHz);
  listener = new Listener(model, gate, kit.stepSamples, tell);
  say({ type: "ready", kit });
}

function listen(port: MessagePort): void {
  listener.reset();
  waiting = 0;
  microphone = port;
  port.onmessage = ({ data }: MessageEvent<Float32Array>) => hear(data);
}

function hear(samples: Float32Array): void {
  if (waiting + samples.length > MAX_WAITING_S * kit.sampleRateHz) {
    say({ type: "lost", samples: samples.length });
    return;
  }
  waiting += samples.length;
  inOrder(async () => {
    report(await listener.feed(samples));
    waiting -= samples.length;
  });
}

/** No more sound is taken; what has come is heard to the end, and an open cry is closed. */
function stop(): void {
  hangUp();
  inOrder(async () => {
    report(await listener.flush());
    say({ type: "stopped" });
  });
}

function hangUp(): void {
  microphone?.close();
  microphone = null;
}

function report(changes: GateChange[]): void {
  for (const change of changes) say(change);
}

function tell(block: FrameBlock): void {
  const { buffer } = block.logMel;
  say({ type: "heard", ...block }, [buffer as ArrayBuffer]);
}
