/** Tells a quiet room from a microphone that gives nothing. */

import type { Trouble } from "./microphone";

/** No room and no microphone is as quiet as this; a muted one is. */
const DEAD_DBFS = -95;
const SILENT_AFTER_MS = 5000;
const PAUSED_AFTER_MS = 3000;

export class InputWatch {
  private lastBlockMs: number;
  private lastSoundMs: number;

  constructor(nowMs: number) {
    this.lastBlockMs = this.lastSoundMs = nowMs;
  }

  /** Levels of one step, as they come. */
  heard(levelsDbfs: ArrayLike<number>, nowMs: number): void {
    // A pause is not silence: count from its end.
    if (nowMs - this.lastBlockMs > PAUSED_AFTER_MS) this.lastSoundMs = nowMs;
    this.lastBlockMs = nowMs;
    if (Math.max(...Array.from(levelsDbfs)) > DEAD_DBFS) this.lastSoundMs = nowMs;
  }

  /** What is wrong at this moment, or null. */
  trouble(nowMs: number): Trouble | null {
    if (nowMs - this.lastBlockMs > PAUSED_AFTER_MS) return "paused";
    return nowMs - this.lastSoundMs > SILENT_AFTER_MS ? "silent" : null;
  }
}
