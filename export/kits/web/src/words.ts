/** Every sentence about trouble that a tired parent may have to read, and how times are said. */

import type { Trouble } from "./microphone";

export const TROUBLE: Record<Trouble, string> = {
  insecure: "This page must be opened over https to use the microphone.",
  unsupported: "This browser is too old. Update it, or use another one.",
  denied: "The microphone is not allowed. Allow it in the browser's settings for this page.",
  none: "There is no microphone. Connect one, then try again.",
  busy: "The microphone does not open. Close other apps that use it, then try again.",
  gone: "The microphone was taken away. Connect it, then try again.",
  silent: "Only silence comes from the microphone. Is it muted or switched off?",
  paused: "The phone has paused the microphone. Keep this page open on the screen.",
};

/** For example "42 s", "3 min 05 s", "1 h 12 min". */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  const pad = (value: number) => String(value).padStart(2, "0");
  if (minutes < 60) return `${minutes} min ${pad(whole % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

/** The time of day by this phone's clock, for example "03:12:44". */
export function timeOfDay(ms: number): string {
  return new Date(ms).toLocaleTimeString("en-GB");
}
