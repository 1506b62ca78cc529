/** Service worker: keeps the whole page, so that it starts without a connection. */

import { POLICY } from "./policy";

// What lib.dom does not know of a ServiceWorkerGlobalScope.
interface ExtendableEvent extends Event {
  waitUntil(done: Promise<unknown>): void;
}
interface FetchEvent extends ExtendableEvent {
  request: Request;
  respondWith(response: Promise<Response>): void;
}
declare const clients: { claim(): Promise<void> };

// The build fills these in: every file of the page, and a digest over all of them.
declare const __FILES__: string[];
declare const __VERSION__: string;
const CACHE = `crykit-${__VERSION__}`;

self.addEventListener("install", (event) => {
  (event as ExtendableEvent).waitUntil(fill());
});

self.addEventListener("activate", (event) => {
  (event as ExtendableEvent).waitUntil(dropOldCaches().then(() => clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event as FetchEvent;
  const isOurs = new URL(request.url).origin === location.origin;
  if (isOurs && request.method === "GET") (event as FetchEvent).respondWith(answer(request));
});

async function fill(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(__FILES__.map((file) => new Request(file, { cache: "no-cache" })));
}

async function dropOldCaches(): Promise<void> {
  const old = (await caches.keys()).filter((key) => key.startsWith("crykit-") && key !== CACHE);
  await Promise.all(old.map((key) => caches.delete(key)));
}

/** From the cache of this version; a page in use is never given files of two versions. */
async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept =
    (await cache.match(request, { ignoreSearch: true, ignoreVary: true })) ??
    (request.mode === "navigate" ? await cache.match("./", { ignoreVary: true }) : undefined);
  return kept ? restricted(kept) : fetch(request);
}

/** A worker's policy comes with its script: state it even where the host sends none. */
function restricted(response: Response): Response {
  const headers = new Headers(response.headers);
  headers.set("Content-Security-Policy", POLICY);
  return new Response(response.body, { status: response.status, headers });
}
