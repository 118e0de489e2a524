/**
 * The bench in a notebook: what anywidget calls to draw it.
 *
 * The kernel hands over what lies on the bench and scores new texts; edits are computed here, by the page's own
 * algebra. Everything is drawn inside a shadow root, so that neither style sheet reaches into the other.
 */
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { BenchPage } from "./bench";
import { readHere } from "./files";
import { type Source, Told } from "./source";
import { type Shared, newShared } from "./store";
import style from "./style.css?inline";
import type { BenchRow, Edit, RawTable, World } from "./types";

/** The part of an anywidget model that is used. */
interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, listener: (message: unknown) => void): void;
  off(event: string, listener: (message: unknown) => void): void;
  send(content: unknown): void;
}

const SETTLED = 150; // ms without a change before edits go to the kernel: a slider gives many a second

class Kernel {
  private waiting = new Map<string, { resolve: (value: unknown) => void; reject: (told: Told) => void }>();
  private readonly own = Math.random().toString(36).slice(2); // several views hear the answers of one kernel
  private asked = 0;

  constructor(private model: Model) {
    model.on("msg:custom", this.hear);
  }

  private hear = (message: unknown) => {
    const { id, value, error, hint } = message as { id: string; value?: unknown; error?: string; hint?: string | null };
    const waits = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) waits?.resolve(value);
    else waits?.reject(new Told(error, hint ?? null));
  };

  ask<T>(ask: string, content: object = {}): Promise<T> {
    const id = `${this.own} ${++this.asked}`;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.model.send({ ...content, ask, id });
    });
  }

  close(): void {
    this.model.off("msg:custom", this.hear);
  }
}

const NONE = () => Promise.reject(new Told("only the bench is here", "sarm explore shows the rest"));

/** What the bench asks for; without a kernel it reads its own files, and scores nothing. */
function sourceOf(kernel: Kernel, live: boolean): Source {
  return {
    live,
    score: (asked) => kernel.ask("score", asked),
    controls: async (name, text, world) => (live ? kernel.ask("controls", { name, text }) : readHere(name, text, world)),
    world: NONE,
    latents: NONE,
    latent: NONE,
    rows: NONE,
    row: NONE,
    run: NONE,
    tokens: NONE,
    note: NONE,
    saveNote: NONE,
  };
}

function EmbeddedBench({ shared, kernel }: { shared: Shared; kernel: Kernel }) {
  const [live, setLive] = useState(false);
  useEffect(() => {
    // a notebook that was saved, or a page that was made of it, has no kernel: nothing ever answers
    void kernel.ask("hello").then(() => setLive(true));
  }, []);
  const world = { ...shared.world, scores: live };
  return <BenchPage {...shared} world={world} source={sourceOf(kernel, live)} />;
}

/** Edits follow the kernel's, and the kernel's these. */
function synchronise(model: Model, shared: Shared): () => void {
  const given = () => model.get("_edits") as Edit[];
  const spelled = (edits: Iterable<Edit>) => JSON.stringify([...edits]);
  const take = () => {
    if (spelled(given()) !== spelled(shared.edits.get().values())) shared.edits.replace(given());
  };
  let settling = 0;
  const give = () => {
    clearTimeout(settling);
    settling = window.setTimeout(() => {
      const now = [...shared.edits.get().values()];
      if (spelled(given()) === spelled(now)) return;
      model.set("_edits", now);
      model.save_changes();
    }, SETTLED);
  };
  take();
  const forget = shared.edits.subscribe(give);
  model.on("change:_edits", take);
  return () => {
    forget();
    clearTimeout(settling);
    model.off("change:_edits", take);
  };
}

/** Whether a notebook writes in a light colour, on a dark page then: each has a theme of its own. */
function isDark(element: Element): boolean {
  // painted, because a colour may be spelled in any colour space
  const paint = new OffscreenCanvas(1, 1).getContext("2d")!;
  paint.fillStyle = getComputedStyle(element).color;
  paint.fillRect(0, 0, 1, 1);
  const [red, green, blue] = paint.getImageData(0, 0, 1, 1).data;
  return 0.299 * red! + 0.587 * green! + 0.114 * blue! > 128;
}

function followTheme(host: HTMLElement): () => void {
  const set = () => {
    host.dataset.theme = isDark(host.parentElement!) ? "dark" : "light";
  };
  set();
  const changed = new MutationObserver(set);
  for (const element of [document.documentElement, document.body]) changed.observe(element, { attributes: true });
  return () => changed.disconnect();
}

/** Keys that are typed here are no shortcuts of the notebook, which sees the shadow root and no text field. */
function keepKeys(host: HTMLElement): void {
  host.dataset.lmSuppressShortcuts = "true";
  for (const type of ["keydown", "keypress", "keyup"]) host.addEventListener(type, (event) => event.stopPropagation());
}

function draw({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const host = document.createElement("div");
  el.append(host);
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(style);
  root.adoptedStyleSheets = [sheet];
  const place = document.createElement("div");
  place.className = "embedded";
  root.append(place);
  keepKeys(host);

  const world = { ...(model.get("_world") as World), embedded: true };
  const kernel = new Kernel(model);
  const shared = newShared(world, model.get("_table") as RawTable, sourceOf(kernel, false));
  const row = model.get("_laid") as BenchRow;
  shared.bench.set({ prompt: row.prompt, answers: row.answers.map((one) => one.text), row });
  const stop = [synchronise(model, shared), followTheme(host), () => kernel.close(), () => render(null, place)];
  render(<EmbeddedBench shared={shared} kernel={kernel} />, place);
  return () => stop.forEach((end) => end());
}

export default { render: draw };
