/** What the server answers; the field names are those of the Python side. */

export interface World {
  model: string;
  about: string | null;
  head: string;
  latents: number;
  k: number | null;
  kind: "sarm" | "classifier" | "attached";
  constant: number;
  data: string | null;
  goal: string | null;
  whole: boolean;
  summary: {
    answers: number;
    rows?: number;
    prompts: number;
    mean: number | null;
    sd: number | null;
    accuracy: number | null;
  };
  scores: boolean;
  run: string | null;
  audit: boolean;
  notes: string | null;
  first: number;
  version: string;
  export?: boolean;
  embedded?: boolean;
  pages?: number[];
  opened?: number;
}

export interface LatentName {
  text: string;
  skill: number | null;
  measure: string | null;
  low: number | null;
  high: number | null;
}

export interface RawTable {
  count: number;
  weight: string;
  columns: Record<string, string>;
  kinds: string[];
  kind: string;
  names: Record<string, LatentName>;
  words: Record<string, string[]>;
  noted: number[];
}

export interface ShownAnswer {
  answer: number;
  row: number;
  role: string;
  prompt: string;
  text: string;
  reward: number;
  z?: number;
  contribution?: number;
}

export interface Sibling {
  latent: number;
  similarity: number;
}

export interface Interval {
  mean: number;
  low: number | null;
  high: number | null;
}

export interface LatentPage {
  latent: number;
  weight: number;
  kind: string;
  name: LatentName | null;
  words: string[];
  numbers: Record<string, number | null>;
  attributes: { name: string; words: string; edit: string; sd: number; of: number }[] | null;
  decoder: Sibling[] | null;
  firing: Sibling[] | null;
  histogram?: {
    edges: number[];
    sides: { name: string; answers: number; active: number; mean: number; counts: number[] }[];
  } | null;
  answers?: Record<"top" | "middle" | "random", ShownAnswer[]>;
  flips?: { prompts: number; answers: number; changed: Interval | null; examples: ShownAnswer[][] };
  note?: Note | null;
}

export interface Note {
  text: string;
  version: number;
}

export interface Parts {
  reward_model: number;
  edited: number;
  latents: number[];
  values: number[];
  weights: number[];
  residual: number;
  constant: number;
  tokens: number;
  truncated: number;
  ended: boolean;
}

export interface BenchRow {
  row: number;
  prompt: string;
  answers: (ShownAnswer & Parts)[];
}

export interface RowList {
  count: number;
  rows: { row: number; prompt: string; answers: number }[];
}

export interface Tokens {
  texts: string[];
  values: number[];
  read: number;
  answer: number;
}

export type MetricRow = Record<string, unknown> & { step: number };

export interface RunPart {
  name: string;
  steps: number | null;
  rows: Record<"metrics" | "samples" | "warnings" | "evaluation", MetricRow[]>;
  offsets: Record<string, number>;
  again: string[];
  more: boolean;
}

/** The edits of a controls file, and in words what else it holds. */
export interface Loaded {
  edits: Edit[];
  left_out: string[];
}

/** A change of one latent before the head, as in a controls file. */
export interface Edit {
  latent: number;
  set?: number;
  max?: number;
  min?: number;
  scale?: number;
  add?: number;
}
