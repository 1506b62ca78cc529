/** What the page and its engine, a worker, say to each other. */

import type { GateClosed, GateOpened } from "./gate";
import type { Kit } from "./kit";

export type ToEngine =
  | { type: "load"; base: string }
  | { type: "listen"; microphone: MessagePort }
  | { type: "stop" }
  | { type: "check" };

/** What one step heard: (frames) each, and the log-mel, mel by mel. */
export interface Heard {
  type: "heard";
  clockSample: number;
  cryProbability: Float32Array;
  levelDbfs: Float32Array;
  logMel: Float32Array;
}

/** The outcome of replaying the golden sound on this very device. */
export interface Checked {
  type: "checked";
  passed: boolean;
  /** Why it did not pass; empty where it did. */
  fault: string;
  events: number;
  largestDifference: number;
  tolerance: number;
  realTimeFactor: number;
}

export type FromEngine =
  | { type: "ready"; kit: Kit }
  | { type: "fault"; message: string }
  | { type: "stopped" }
  | { type: "lost"; samples: number }
  | Heard
  | Checked
  | GateOpened
  | GateClosed;
