/** On the audio thread: mix to mono, resample to the model's rate, hand blocks to the engine. */

import { LeadIn } from "./lead";
import { Resampler } from "./resample";

// What lib.dom does not know of an AudioWorkletGlobalScope.
declare const sampleRate: number;
declare function registerProcessor(name: string, processor: unknown): void;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}

const BLOCK_MS = 40;
const MAX_LEAD_S = 1;

class Capture extends AudioWorkletProcessor {
  private readonly resampler: Resampler | null;
  private readonly block: Float32Array;
  private filled = 0;
  private readonly lead = new LeadIn(MAX_LEAD_S * sampleRate);
  private engine: MessagePort | null = null;

  constructor(options: { processorOptions: { sampleRateHz: number } }) {
    super();
    const wanted = options.processorOptions.sampleRateHz;
    this.resampler = sampleRate === wanted ? null : new Resampler(sampleRate, wanted);
    this.block = new Float32Array((wanted * BLOCK_MS) / 1000);
    this.port.onmessage = (message: MessageEvent<MessagePort | null>) => {
      this.engine = message.data;
    };
  }

  process([channels]: Float32Array[][]): boolean {
    if (channels && channels.length > 0) this.take(this.lead.pass(mono(channels)));
    return true;
  }

  private take(samples: Float32Array): void {
    const heard = this.resampler ? this.resampler.feed(samples) : samples;
    for (let start = 0; start < heard.length; ) {
      const taken = Math.min(this.block.length - this.filled, heard.length - start);
      this.block.set(heard.subarray(start, start + taken), this.filled);
      this.filled += taken;
      start += taken;
      if (this.filled === this.block.length) {
        this.filled = 0;
        const copy = this.block.slice();
        this.engine?.postMessage(copy, [copy.buffer]);
      }
    }
  }
}

function mono(channels: Float32Array[]): Float32Array {
  if (channels.length === 1) return channels[0]!;
  const mixed = new Float32Array(channels[0]!.length);
  for (const channel of channels) {
    for (let i = 0; i < mixed.length; i++) mixed[i] = mixed[i]! + channel[i]! / channels.length;
  }
  return mixed;
}

registerProcessor("capture", Capture);
