/** The page: starts the engine and the microphone, and says at any time what state they are in. */

import { ScreenAwake } from "./awake";
import type { Kit } from "./kit";
import type { FromEngine, ToEngine } from "./messages";
import { type Microphone, MicrophoneError, openMicrophone } from "./microphone";
import { type Cry, Screen } from "./screen";
import { InputWatch } from "./watch";
import { TROUBLE, duration, timeOfDay } from "./words";

const ADVICE = "Not listening. Lay this phone near the baby, then press the button.";

const screen = new Screen();
const awake = new ScreenAwake((held) => {
  if (listening) screen.showAwake(held ? "Screen stays on" : "Keep the screen on yourself");
});
const engine = new Worker(new URL("./engine.worker.ts", import.meta.url), { type: "module" });

let kit: Kit | null = null;
let microphone: Microphone | null = null;
let listening: { sinceMs: number; watch: InputWatch } | null = null;
let cry: Cry | null = null;
let lostSamples = 0;

engine.onmessage = ({ data }: MessageEvent<FromEngine>) => take(data);
engine.onerror = (event) => fail(event.message || "the engine did not start");
screen.toggle.onclick = () => void (listening ? stop() : start());
screen.check.onclick = () => {
  screen.clearChecked("Checking ...");
  tell({ type: "check" });
};
setInterval(refresh, 500);
tell({ type: "load", base: new URL("kit/", document.baseURI).href });
// Where it is refused, the page works all the same, but not without a connection.
if (import.meta.env.PROD) navigator.serviceWorker?.register("./sw.js").catch(() => {});

function tell(message: ToEngine, transfer: Transferable[] = []): void {
  engine.postMessage(message, transfer);
}

function take(message: FromEngine): void {
  switch (message.type) {
    case "ready":
      return ready(message.kit);
    case "heard":
      listening?.watch.heard(message.levelDbfs, performance.now());
      if (listening) screen.showHeard(message, kit!.nMels);
      return;
    case "opened":
      cry = { startMs: ago(message.detectedSample - message.onsetSample), seconds: null };
      screen.addCry(cry);
      return refresh();
    case "closed":
      if (!cry) return;
      cry.seconds = (message.offsetSample - message.onsetSample) / kit!.sampleRateHz;
      screen.updateCry(cry);
      cry = null;
      return refresh();
    case "lost":
      lostSamples += message.samples;
      return;
    case "checked":
      return screen.showChecked(message);
    case "fault":
      return fail(message.message);
  }
}

function ago(samples: number): number {
  return Date.now() - (1000 * samples) / kit!.sampleRateHz;
}

function ready(loaded: Kit): void {
  kit = loaded;
  screen.showKit(kit);
  screen.showState("idle", "Off", ADVICE);
  screen.check.disabled = false;
  screen.offer("Start listening");
}

async function start(): Promise<void> {
  screen.toggle.disabled = screen.check.disabled = true;
  scrollTo(0, 0); // what state it is in must be in sight
  screen.showState("loading", "Starting", "Allow the microphone if the phone asks.");
  const { port1, port2 } = new MessageChannel();
  try {
    microphone = await openMicrophone(kit!.sampleRateHz, port1, () => {
      stop();
      trouble(TROUBLE.gone);
    });
  } catch (error) {
    const known = error instanceof MicrophoneError;
    const sentence = known ? TROUBLE[error.trouble] : `The microphone failed: ${error}`;
    return trouble(sentence);
  }
  tell({ type: "listen", microphone: port2 }, [port2]);
  listening = { sinceMs: performance.now(), watch: new InputWatch(performance.now()) };
  lostSamples = 0;
  screen.offer("Stop");
  refresh();
  await awake.hold();
}

function stop(): void {
  microphone?.close();
  microphone = listening = null;
  tell({ type: "stop" });
  awake.release();
  screen.showAwake("");
  screen.clearMeters();
  ready(kit!);
}

/** It cannot hear, and says so until it is started again. */
function trouble(sentence: string): void {
  screen.showState("trouble", "Cannot hear", sentence);
  screen.check.disabled = false;
  screen.offer("Try again");
}

/** The engine is broken: only loading the page again helps. */
function fail(message: string): void {
  if (listening) stop();
  screen.showState("trouble", "Cannot hear", `Load this page again: ${message}.`);
  screen.toggle.disabled = screen.check.disabled = true;
}

/** What goes on while it listens; also once every half second, for the clocks. */
function refresh(): void {
  if (!listening) return;
  const wrong = listening.watch.trouble(performance.now());
  const forSeconds = (performance.now() - listening.sinceMs) / 1000;
  if (wrong) {
    screen.showState("trouble", "Cannot hear", TROUBLE[wrong]);
  } else if (cry) {
    const since = duration((Date.now() - cry.startMs) / 1000);
    screen.showState("crying", "Crying", `since ${timeOfDay(cry.startMs)}, ${since}`);
  } else if (lostSamples > 0) {
    const lost = duration(lostSamples / kit!.sampleRateHz);
    screen.showState("listening", "Listening", `This phone is too slow: ${lost} were not heard.`);
  } else {
    screen.showState("listening", "Listening", `No crying. On for ${duration(forSeconds)}.`);
  }
}
