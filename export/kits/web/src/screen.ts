/** The page's elements. It knows nothing of sound or models: it shows what it is told. */

import type { Kit } from "./kit";
import type { Checked, Heard } from "./messages";
import { Strip } from "./strip";
import { duration, timeOfDay } from "./words";

export type StateKind = "loading" | "idle" | "listening" | "crying" | "trouble";

const QUIET_DBFS = -90; // the left end of the loudness bar
const KEPT_CRIES = 100;

/** One cry for the list; `seconds` is null while it lasts. */
export interface Cry {
  startMs: number;
  seconds: number | null;
}

export class Screen {
  readonly toggle = find<HTMLButtonElement>("toggle");
  readonly check = find<HTMLButtonElement>("check");
  private readonly strip = new Strip(find<HTMLCanvasElement>("strip"));
  private cries = 0;

  /** The big words: what state it is in, and a sentence on it. */
  showState(kind: StateKind, word: string, detail: string): void {
    find("state").dataset.kind = kind;
    write("word", word);
    // Read out, too: the word whenever it changes, the sentence only where something is wrong.
    find("detail").ariaLive = kind === "trouble" ? "assertive" : "off";
    write("detail", detail);
    document.title = kind === "idle" ? "Cry listener" : `${word} - Cry listener`;
  }

  showKit(kit: Kit): void {
    write("model", `${kit.description}. Model ${kit.modelId}, ${kit.precision}, ${kit.licence}.`);
    find("threshold").style.left = percent(kit.gate.onThreshold);
  }

  /** What the big button does now. */
  offer(label: string): void {
    write("toggle", label);
    this.toggle.disabled = false;
  }

  showAwake(text: string): void {
    write("awake", text);
  }

  showHeard(heard: Heard, mels: number): void {
    const probability = Math.max(...heard.cryProbability);
    const level = Math.max(...heard.levelDbfs);
    write("probability", percent(probability));
    write("level", `${Math.round(level)} dB`);
    fill("probability-bar", probability);
    fill("level-bar", 1 - level / QUIET_DBFS);
    this.strip.add(heard.logMel, mels);
  }

  /** As if nothing were heard: numbers of a moment ago would look like now. */
  clearMeters(): void {
    for (const name of ["probability", "level"]) {
      write(name, "-");
      fill(`${name}-bar`, 0);
    }
    this.strip.clear();
  }

  /** A new line on top of the list. */
  addCry(cry: Cry): void {
    const line = document.createElement("li");
    line.append(document.createElement("span"), document.createElement("span"));
    const list = find("list");
    list.prepend(line);
    if (list.children.length > KEPT_CRIES) list.lastElementChild!.remove();
    this.cries += 1;
    write("count", `(${this.cries})`);
    this.updateCry(cry);
  }

  /** The line on top of the list again. */
  updateCry(cry: Cry): void {
    const [start, length] = find("list").firstElementChild!.children;
    start!.textContent = timeOfDay(cry.startMs);
    length!.textContent = cry.seconds === null ? "now" : duration(cry.seconds);
  }

  showChecked({ passed, fault, largestDifference, realTimeFactor }: Checked): void {
    const speed = Math.round(1 / realTimeFactor);
    const result = passed
      ? `Passed: hears as it should, ${speed} times faster than needed.`
      : `Failed: ${fault}.`;
    write("checked", result);
    find("checked").title = `largest difference ${largestDifference.toExponential(1)}`;
  }

  clearChecked(text: string): void {
    write("checked", text);
  }
}

function find<E extends HTMLElement = HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

/** Only what changes is written: a screen reader would repeat the rest. */
function write(id: string, text: string): void {
  const element = find(id);
  if (element.textContent !== text) element.textContent = text;
}

function fill(id: string, share: number): void {
  find(id).style.transform = `scaleX(${Math.min(Math.max(share, 0), 1)})`;
}

function percent(share: number): string {
  return `${Math.round(100 * share)}%`;
}
