/**
 * The reward under edits, as the library computes it.
 *
 * `reward = sum_i w_i z_i + constant + residual`; an edit changes z before the head. z and w are float32, sums are
 * float64 in ascending order of latents, and the result is rounded to float32 once.
 */
import type { Edit, Parts } from "./types";

export const OPERATIONS = ["scale", "max", "min", "set", "add"] as const;
export type Operation = (typeof OPERATIONS)[number];

/** `f(z)`: `set` alone; else scale, add, then the limits. */
export function applyEdit(edit: Edit, z: number): number {
  if (edit.set !== undefined) return edit.set;
  let value = z;
  if (edit.scale !== undefined) value *= edit.scale;
  if (edit.add !== undefined) value += edit.add;
  if (edit.min !== undefined) value = Math.max(value, edit.min);
  if (edit.max !== undefined) value = Math.min(value, edit.max);
  return value;
}

export interface Part {
  latent: number;
  z: number;
  edited: number;
  weight: number;
}

/** Every latent of an answer, and those that an edit moves off 0, ascending. */
export function partsOf(answer: Parts, edits: ReadonlyMap<number, Edit>, weight: Float32Array): Part[] {
  const parts: Part[] = answer.latents.map((latent, n) => {
    const z = answer.values[n]!;
    const edit = edits.get(latent);
    return { latent, z, weight: answer.weights[n]!, edited: edit ? Math.fround(applyEdit(edit, z)) : z };
  });
  const stored = new Set(answer.latents);
  for (const edit of edits.values()) {
    if (stored.has(edit.latent)) continue;
    const edited = Math.fround(applyEdit(edit, 0));
    if (edited !== 0) parts.push({ latent: edit.latent, z: 0, edited, weight: weight[edit.latent]! });
  }
  return parts.sort((one, other) => one.latent - other.latent);
}

/** The reward under edits; without edits the model's own, to the bit. */
export function rewardUnder(answer: Parts, edits: ReadonlyMap<number, Edit>, weight: Float32Array): number {
  if (!edits.size) return answer.reward_model;
  let sum = 0;
  for (const part of partsOf(answer, edits, weight)) sum += part.edited * part.weight;
  return Math.fround(sum + answer.constant + answer.residual);
}

export function parseEdit(text: string, latents: number): Edit | string {
  const found = /^\s*(\d+)\s*([:=])\s*(.+)$/.exec(text);
  if (!found) return "write it like 12:max=2, 12:*0.5, 12:+1 or 12=0";
  const edit: Edit = { latent: Number(found[1]) };
  if (edit.latent >= latents) return `there is no latent ${edit.latent}: this model has 0..${latents - 1}`;
  if (found[2] === "=") return setNumber(edit, "set", found[3]!);
  for (const part of found[3]!.split(",").map((one) => one.trim())) {
    const named = /^(set|max|min|scale|add)\s*=\s*(.+)$/.exec(part);
    const problem = named
      ? setNumber(edit, named[1] as Operation, named[2]!)
      : part.startsWith("*")
        ? setNumber(edit, "scale", part.slice(1))
        : /^[+-]/.test(part)
          ? setNumber(edit, "add", part)
          : `${part}: write max=, min=, set=, scale= or add=`;
    if (typeof problem === "string") return problem;
  }
  return check(edit);
}

function setNumber(edit: Edit, name: Operation, text: string): Edit | string {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) return `${text} is no number`;
  edit[name] = value;
  return edit;
}

export function check(edit: Edit): Edit | string {
  const given = OPERATIONS.filter((name) => edit[name] !== undefined);
  if (!given.length) return "an edit changes something";
  if (edit.set !== undefined && given.length > 1) return "set stands alone";
  if (edit.min !== undefined && edit.max !== undefined && edit.min > edit.max) return "the floor is above the cap";
  return edit;
}

/** `max=2, min=0`, as the command line spells it. */
export function spelled(edit: Edit): string {
  return OPERATIONS.filter((name) => edit[name] !== undefined)
    .map((name) => `${name}=${edit[name]}`)
    .join(", ");
}
