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

class Store<T> {
  private listeners = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    this.value = value;
    for (const listener of this.listeners) listener();
  }

  use(): T {
    const [, redraw] = useState(0);
    useEffect(() => {
      const listener = () => redraw((n) => n + 1);
      this.listeners.add(listener);
      return () => {
        this.listeners.delete(listener);
      };
    }, []);
    return this.value;
  }
}

export const edits = new Store<ReadonlyMap<number, Edit>>(new Map());
export const bench = new Store<Bench | null>(null);

export function setEdit(edit: Edit): void {
  edits.set(new Map(edits.get()).set(edit.latent, edit));
}

export function dropEdit(latent: number): void {
  const left = new Map(edits.get());
  left.delete(latent);
  edits.set(left);
}

export interface Shared {
  world: World;
  table: Table;
  source: Source;
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
