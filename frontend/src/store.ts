/** What pages share: the table, the edits, what lies on the bench. */
import { useEffect, useState } from "preact/hooks";
import { type Source, Told } from "./source";
import type { BenchRow, Edit, LatentName, RawTable, World } from "./types";

export class Table {
  readonly count: number;
  readonly weight: Float32Array;
  readonly columns: Record<string, Float32Array>;
  readonly kinds: string[];
  readonly kind: Uint8Array;
  readonly names: Record<string, LatentName>;
  readonly words: Record<string, string[]>;
  readonly noted: Set<number>;

  constructor(raw: RawTable) {
    this.count = raw.count;
    this.weight = floats(raw.weight);
    this.columns = Object.fromEntries(Object.entries(raw.columns).map(([name, text]) => [name, floats(text)]));
    this.kinds = raw.kinds;
    this.kind = bytes(raw.kind);
    this.names = raw.names;
    this.words = raw.words;
    this.noted = new Set(raw.noted);
  }

  kindOf(latent: number): string {
    return this.kinds[this.kind[latent] ?? 0] ?? "not tested";
  }

  at(column: string, latent: number): number {
    return this.columns[column]?.[latent] ?? NaN;
  }

  /** Whether words were looked for at all: without answers there are none. */
  get worded(): boolean {
    return Object.keys(this.words).length > 0;
  }

  /** The name, else the words that set its answers apart, else nothing. */
  label(latent: number): string {
    return this.names[latent]?.text ?? this.words[latent]?.join(" · ") ?? "";
  }
}

function bytes(text: string): Uint8Array {
  // a plain loop: a callback for each byte takes ten times as long
  const decoded = atob(text);
  const found = new Uint8Array(decoded.length);
  for (let n = 0; n < decoded.length; n++) found[n] = decoded.charCodeAt(n);
  return found;
}

function floats(text: string): Float32Array {
  return new Float32Array(bytes(text).buffer);
}

export interface Bench {
  prompt: string;
  answers: string[];
  row: BenchRow | null;
  told?: Told;
}

export class Store<T> {
  private listeners = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    this.value = value;
    for (const listener of this.listeners) listener();
  }

  /** Calls `listener` after every change, until what it returns is called. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  }

  use(): T {
    const [, redraw] = useState(0);
    useEffect(() => this.subscribe(() => redraw((n) => n + 1)), []);
    return this.value;
  }
}

/** The edits, by latent. */
export class Edits extends Store<ReadonlyMap<number, Edit>> {
  put(edit: Edit): void {
    this.set(new Map(this.get()).set(edit.latent, edit));
  }

  drop(latent: number): void {
    const left = new Map(this.get());
    left.delete(latent);
    this.set(left);
  }

  replace(edits: readonly Edit[]): void {
    this.set(new Map(edits.map((edit) => [edit.latent, edit])));
  }
}

/** What one page holds; a notebook may have several benches, each with its own. */
export interface Shared {
  world: World;
  table: Table;
  source: Source;
  edits: Edits;
  bench: Store<Bench | null>;
}

export function newShared(world: World, raw: RawTable, source: Source): Shared {
  return { world, table: new Table(raw), source, edits: new Edits(new Map()), bench: new Store<Bench | null>(null) };
}

/** Lays a row of the data on the bench. */
export async function toBench({ source, bench }: Shared, row: number): Promise<void> {
  try {
    const found = await source.row(row);
    bench.set({ prompt: found.prompt, answers: found.answers.map((one) => one.text), row: found });
  } catch (error) {
    bench.set({ prompt: "", answers: [], row: null, told: error instanceof Told ? error : new Told(String(error)) });
  }
}

export interface Asked<T> {
  value: T | null;
  told: Told | null;
}

/** Asks once for every key; again when `key` changes. */
export function useAsked<T>(key: string, asked: () => Promise<T>): Asked<T> {
  const [state, setState] = useState<Asked<T> & { key: string }>({ key, value: null, told: null });
  useEffect(() => {
    let wanted = true;
    setState({ key, value: null, told: null });
    asked().then(
      (value) => wanted && setState({ key, value, told: null }),
      (error: unknown) =>
        wanted && setState({ key, value: null, told: error instanceof Told ? error : new Told(String(error)) }),
    );
    return () => {
      wanted = false;
    };
  }, [key]);
  return state.key === key ? state : { value: null, told: null };
}
