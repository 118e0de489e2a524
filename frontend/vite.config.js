import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig } from "vite";

// One classic script and one style sheet with fixed names: an export opened from a disk may load these, but no
// module, and the committed files change only where the source does. `--mode widget` builds the bench of notebooks.
const out = process.env.EXPLORER_OUT ?? resolve(import.meta.dirname, "../src/sarm_control/explorer/static");
const at = (place) => resolve(import.meta.dirname, place);

const beside = {
  name: "licences",
  closeBundle() {
    const preact = readFileSync(at("node_modules/preact/LICENSE"), "utf-8");
    const { version } = JSON.parse(readFileSync(at("node_modules/preact/package.json"), "utf-8"));
    writeFileSync(
      resolve(out, "LICENSES.txt"),
      `explorer.js and widget.js hold parts of these packages.\n\npreact ${version}\n\n${preact.trim()}\n`,
    );
    copyFileSync(at("index.html"), resolve(out, "index.html"));
  },
};

const pages = {
  lib: {
    entry: at("src/main.tsx"),
    formats: ["iife"],
    name: "sarmExplorer",
    fileName: () => "explorer.js",
    cssFileName: "explorer",
  },
};

// The bench of a notebook: a module, as anywidget wants it, with the style sheet inside for its shadow root.
const widget = {
  rollupOptions: {
    input: at("src/widget.tsx"),
    preserveEntrySignatures: "strict",
    output: { format: "es", entryFileNames: "widget.js" },
  },
};

export default defineConfig(({ mode }) => ({
  publicDir: false,
  plugins: mode === "widget" ? [] : [beside],
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    outDir: out,
    emptyOutDir: mode !== "widget",
    target: "es2022",
    modulePreload: false,
    reportCompressedSize: false,
    ...(mode === "widget" ? widget : pages),
  },
}));
