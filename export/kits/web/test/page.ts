/** The built page in a real Chromium, with a recording as its microphone. */

import { existsSync } from "node:fs";

import { type Browser, type BrowserContext, type Page, chromium } from "playwright-core";
import { type PreviewServer, preview } from "vite";

export const PHONE = { width: 390, height: 844 };

export const CHROMIUM = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find(
  (path) => path && existsSync(path),
);

const QUIET_FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** An event as the engine tells it. */
export interface Told {
  type: "opened" | "closed";
  onsetSample: number;
  offsetSample: number;
}

/** Serve what `npm run build` made. */
export function serve(): Promise<PreviewServer> {
  return preview({ logLevel: "error", preview: { host: "127.0.0.1" } });
}

/** A browser whose microphone plays a recording once, or that has no microphone. */
export function launch(recording?: string): Promise<Browser> {
  const microphone = recording
    ? [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        `--use-file-for-fake-audio-capture=${recording}%noloop`,
      ]
    : [];
  return chromium.launch({ executablePath: CHROMIUM, args: [...QUIET_FLAGS, ...microphone] });
}

/**
 * A phone's page that keeps what its engine tells in `window.told`.
 *
 * @param serviceWorkers blocked where a test puts its own files in place of the page's.
 */
export async function openPage(
  browser: Browser,
  serviceWorkers: "allow" | "block" = "allow",
): Promise<{ page: Page; context: BrowserContext }> {
  const context = await browser.newContext({
    viewport: PHONE,
    deviceScaleFactor: 2,
    serviceWorkers,
  });
  const page = await context.newPage();
  await page.addInitScript(() => {
    const told: unknown[] = ((window as any).told = []);
    window.Worker = class extends Worker {
      constructor(url: string | URL, options?: WorkerOptions) {
        super(url, options);
        this.addEventListener("message", ({ data }) => {
          if (data.type !== "heard") told.push(data);
        });
      }
    };
  });
  return { page, context };
}

/** Open it and wait until it can be used; returns milliseconds since navigation began. */
export async function ready(page: Page, url: string): Promise<number> {
  await page.goto(url);
  await page.locator("#state[data-kind=idle]").waitFor();
  return page.evaluate(() => performance.now());
}

export function told<T>(page: Page, type: string): Promise<T[]> {
  return page.evaluate(
    (wanted) => (window as any).told.filter((m: any) => m.type === wanted),
    type,
  );
}
