/** The microphone, from permission to blocks of mono sound at the model's rate. */

import captureUrl from "./capture.worklet?worker&url";

export type Trouble =
  | "insecure"
  | "unsupported"
  | "denied"
  | "none"
  | "busy"
  | "gone"
  | "silent"
  | "paused";

/** Why there is no sound. */
export class MicrophoneError extends Error {
  constructor(readonly trouble: Trouble) {
    super(trouble);
  }
}

/** An open microphone; `close` lets go of it. */
export interface Microphone {
  name: string;
  close(): void;
}

// A phone's voice processing takes the cry of a baby for noise, and turns quiet rooms up.
const RAW: MediaTrackConstraints = {
  echoCancellation: false,
  noiseSuppression: false,
  autoGainControl: false,
  channelCount: { ideal: 1 },
};

/**
 * Ask for the microphone and send its sound to `engine`.
 *
 * @param onGone called once when it is unplugged or taken away.
 * @throws MicrophoneError
 */
export async function openMicrophone(
  sampleRateHz: number,
  engine: MessagePort,
  onGone: () => void,
): Promise<Microphone> {
  if (!window.isSecureContext) throw new MicrophoneError("insecure");
  if (!navigator.mediaDevices || !window.AudioWorkletNode) throw new MicrophoneError("unsupported");
  const stream = await ask();
  let context: AudioContext | undefined;
  try {
    context = await connect(stream, sampleRateHz, engine);
  } catch (error) {
    release(stream);
    throw error;
  }
  const [track] = stream.getAudioTracks();
  track!.addEventListener("ended", onGone, { once: true });
  // Coming back to the page, or a call that has ended, lets a paused context go on.
  const wake = () => void context.resume();
  document.addEventListener("visibilitychange", wake);
  return {
    name: track!.label,
    close: () => {
      document.removeEventListener("visibilitychange", wake);
      track!.removeEventListener("ended", onGone);
      release(stream);
      void context.close();
    },
  };
}

async function ask(): Promise<MediaStream> {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: RAW });
  } catch (error) {
    const name = (error as DOMException).name;
    if (name === "NotAllowedError" || name === "SecurityError") throw new MicrophoneError("denied");
    if (name === "NotFoundError") throw new MicrophoneError("none");
    throw new MicrophoneError("busy");
  }
}

/** At the model's own rate where the browser resamples a microphone, else in the worklet. */
async function connect(stream: MediaStream, sampleRateHz: number, engine: MessagePort) {
  try {
    return await wire(new AudioContext({ sampleRate: sampleRateHz }), stream, sampleRateHz, engine);
  } catch {
    return await wire(new AudioContext(), stream, sampleRateHz, engine);
  }
}

async function wire(
  context: AudioContext,
  stream: MediaStream,
  sampleRateHz: number,
  engine: MessagePort,
): Promise<AudioContext> {
  try {
    const source = context.createMediaStreamSource(stream);
    await context.audioWorklet.addModule(captureUrl);
    const capture = new AudioWorkletNode(context, "capture", {
      numberOfOutputs: 0,
      processorOptions: { sampleRateHz },
    });
    capture.port.postMessage(engine, [engine]);
    source.connect(capture);
    void context.resume(); // where a phone holds it back, the page says that it is paused
    return context;
  } catch (error) {
    void context.close();
    throw error;
  }
}

function release(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}
