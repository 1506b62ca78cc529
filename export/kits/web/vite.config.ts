import { createHash } from "node:crypto";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { type Plugin, defineConfig } from "vitest/config";

import { POLICY } from "./src/policy.ts";

const DIST = "dist";
const FOR_TESTS = "kit/golden/gate_vectors.json";

/** The policy stands in the page itself, for hosts that send no headers of their own. */
function policyInPage(): Plugin {
  return {
    name: "policy-in-page",
    apply: "build", // the development server needs inline styles
    transformIndexHtml: () => [
      {
        tag: "meta",
        attrs: { "http-equiv": "Content-Security-Policy", content: POLICY },
        injectTo: "head-prepend",
      },
    ],
  };
}

/** Store the runtime compressed, then tell the service worker of every file. */
function finish(): Plugin {
  return {
    name: "finish",
    apply: "build",
    closeBundle() {
      const files = readdirSync(DIST, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(DIST.length + 1))
        .sort();
      for (const file of files.filter((name) => name.endsWith(".wasm"))) {
        const packed = gzipSync(readFileSync(join(DIST, file)), { level: 9 });
        writeFileSync(join(DIST, `${file}.gz`), packed);
        rmSync(join(DIST, file));
      }
      rmSync(join(DIST, FOR_TESTS));
      const kept = files
        .filter((file) => file !== "sw.js" && file !== FOR_TESTS)
        .map((file) => (file.endsWith(".wasm") ? `${file}.gz` : file));
      const digest = createHash("sha256");
      for (const file of kept) digest.update(file).update(readFileSync(join(DIST, file)));
      const pages = kept.map((file) => (file === "index.html" ? "./" : file));
      const worker = join(DIST, "sw.js");
      writeFileSync(
        worker,
        readFileSync(worker, "utf8")
          .replaceAll("__VERSION__", JSON.stringify(digest.digest("hex").slice(0, 16)))
          .replaceAll("__FILES__", JSON.stringify(pages)),
      );
      writeFileSync(join(DIST, "_headers"), `/*\n  Content-Security-Policy: ${POLICY}\n`);
    },
  };
}

export default defineConfig({
  base: "./", // the page may lie in any folder of a host
  plugins: [policyInPage(), finish()],
  worker: { format: "es" },
  build: {
    outDir: DIST,
    target: "es2022",
    modulePreload: false,
    reportCompressedSize: false,
    rolldownOptions: {
      input: { index: "index.html", sw: "src/sw.ts" },
      output: {
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
  preview: { headers: { "Content-Security-Policy": POLICY } },
  test: {
    include: ["test/**/*.test.ts"],
    fileParallelism: false, // the page's tests measure time
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
