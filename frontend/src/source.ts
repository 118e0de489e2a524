/** Where the numbers come from: a server on this machine, or the files of an export. */
import { readHere } from "./files";
import type { BenchRow, Edit, LatentPage, Loaded, Note, Parts, RawTable, RowList, RunPart, Tokens, World } from "./types";

export class Told extends Error {
  constructor(
    message: string,
    readonly hint: string | null = null,
    readonly status = 0,
    readonly body: unknown = null,
  ) {
    super(message);
  }
}

export interface Asked {
  prompts?: string[];
  responses?: string[];
  row?: number;
  edits: Edit[];
}

export interface Source {
  readonly live: boolean;
  world(): Promise<World>;
  latents(): Promise<RawTable>;
  latent(latent: number): Promise<LatentPage>;
  rows(start: number, find: string): Promise<RowList>;
  row(row: number): Promise<BenchRow>;
  run(offsets: Record<string, number>): Promise<RunPart>;
  score(asked: Asked): Promise<{ head: string; results: Parts[] }>;
  /** The edits of a controls file, by the library's own reader where one is at hand. */
  controls(name: string, text: string, world: World): Promise<Loaded>;
  tokens(latent: number, answer: number): Promise<Tokens>;
  note(latent: number): Promise<Note>;
  saveNote(latent: number, note: Note): Promise<Note>;
}

const TOKEN = "sarm-token";

/** The token comes in the address behind `#token=`, which is never sent; the address is then cleaned. */
export function takeToken(): void {
  const found = /^#token=([^&]+)/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(TOKEN, decodeURIComponent(found[1]!));
  history.replaceState(null, "", location.pathname);
}

export function giveToken(token: string): void {
  sessionStorage.setItem(TOKEN, token);
}

type Listener = (reached: boolean) => void;
const listeners = new Set<Listener>();
let reached = true;

/** Tells whether the server answers; the page goes on by itself when it is back. */
export function onReached(listener: Listener): () => void {
  listeners.add(listener);
  listener(reached);
  return () => listeners.delete(listener);
}

function setReached(now: boolean): void {
  if (now === reached) return;
  reached = now;
  for (const listener of listeners) listener(now);
  if (!now) void waitForServer();
}

async function waitForServer(): Promise<void> {
  while (!reached) {
    await new Promise((wake) => setTimeout(wake, 1000));
    try {
      await fetch("api/world", { headers: authorization() });
      setReached(true);
    } catch {
      continue;
    }
  }
}

function authorization(): Record<string, string> {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function ask<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      headers: { ...authorization(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch {
    setReached(false);
    throw new Told("the server does not answer", "is sarm explore still running? This page goes on when it is back");
  }
  setReached(true);
  const given: unknown = await answer.json().catch(() => null);
  if (answer.ok) return given as T;
  const told = (given ?? {}) as { error?: string; hint?: string };
  throw new Told(told.error ?? `the server answered ${answer.status}`, told.hint ?? null, answer.status, given);
}

export const live: Source = {
  live: true,
  world: () => ask("api/world"),
  latents: () => ask("api/latents"),
  latent: (latent) => ask(`api/latents/${latent}`),
  rows: (start, find) => ask(`api/rows?start=${start}&count=50&find=${encodeURIComponent(find.slice(0, 200))}`),
  row: (row) => ask(`api/rows/${row}`),
  run: (offsets) => ask(`api/run?${new URLSearchParams(Object.entries(offsets).map(([k, v]) => [k, String(v)]))}`),
  score: (asked) => ask("v1/score", "POST", asked),
  controls: (name, text) => ask("api/controls", "POST", { name: name.slice(-200), text }),
  tokens: (latent, answer) => ask("api/tokens", "POST", { latent, answer }),
  note: (latent) => ask(`api/notes/${latent}`),
  saveNote: (latent, note) => ask(`api/notes/${latent}`, "PUT", note),
};

const waiting = new Map<string, (value: unknown) => void>();
const NO_SERVER = "this is an export: there is no model behind it";

/** Every file of an export is a script that hands over one value: pages opened from a disk may not read files. */
function load<T>(key: string): Promise<T> {
  return new Promise((resolve, reject) => {
    waiting.set(key, resolve as (value: unknown) => void);
    const script = document.createElement("script");
    script.src = `data/${key}.js`;
    script.onerror = () => reject(new Told(`this export has no ${key}`, "make a larger one: sarm explore --export DIR"));
    script.onload = () => script.remove();
    document.head.append(script);
  });
}

function refuse(): Promise<never> {
  return Promise.reject(new Told(NO_SERVER, "sarm explore opens it with one"));
}

export const exported: Source = {
  live: false,
  world: () => load("world"),
  latents: () => load("latents"),
  latent: (latent) => load(`latents/${latent}`),
  rows: async (start, find) => {
    const all = await load<RowList>("rows");
    const wanted = find.toLowerCase();
    const rows = all.rows.filter((row) => row.prompt.toLowerCase().includes(wanted));
    return { count: rows.length, rows: rows.slice(start, start + 50) };
  },
  row: (row) => load(`rows/${row}`),
  run: () => load("run"),
  score: refuse,
  controls: async (name, text, world) => readHere(name, text, world),
  tokens: refuse,
  note: async (latent) => (await load<LatentPage>(`latents/${latent}`)).note ?? { text: "", version: 0 },
  saveNote: refuse,
};

declare global {
  interface Window {
    sarmData: (key: string, value: unknown) => void;
  }
}

window.sarmData = (key, value) => {
  waiting.get(key)?.(value);
  waiting.delete(key);
};
