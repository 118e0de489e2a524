import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig } from "vite";

// One classic script and one style sheet with fixed names: an export opened from a disk may load these, but no
// module, and the committed files change only where the source does.
const out = process.env.EXPLORER_OUT ?? resolve(import.meta.dirname, "../src/sarm_control/explorer/static");

const beside = {
  name: "licences",
  closeBundle() {
    const preact = readFileSync(resolve(import.meta.dirname, "node_modules/preact/LICENSE"), "utf-8");
    const { version } = JSON.parse(
      readFileSync(resolve(import.meta.dirname, "node_modules/preact/package.json"), "utf-8"),
    );
    writeFileSync(
      resolve(out, "LICENSES.txt"),
      `explorer.js holds parts of these packages.\n\npreact ${version}\n\n${preact.trim()}\n`,
    );
    copyFileSync(resolve(import.meta.dirname, "index.html"), resolve(out, "index.html"));
  },
};

export default defineConfig({
  publicDir: false,
  plugins: [beside],
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    outDir: out,
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    reportCompressedSize: false,
    lib: {
      entry: resolve(import.meta.dirname, "src/main.tsx"),
      formats: ["iife"],
      name: "sarmExplorer",
      fileName: () => "explorer.js",
      cssFileName: "explorer",
    },
  },
});
