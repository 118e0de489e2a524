/** Small pieces that every page uses. */
import type { ComponentChildren } from "preact";
import type { Told } from "./source";
import type { Shared, Table } from "./store";
import type { LatentName } from "./types";

const MINUS = "\u2212";

export function num(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1000 ? Math.round(size).toLocaleString("en") : size < 1e-4 ? size.toExponential(1) : significant(size, digits);
  return (value < 0 ? MINUS : "") + text;
}

/** A number of things. */
export function count(value: number): string {
  return value.toLocaleString("en");
}

/** "1 edit", "3 edits". */
export function plural(value: number, thing: string): string {
  return `${count(value)} ${thing}${value === 1 ? "" : "s"}`;
}

function significant(value: number, digits: number): string {
  const places = Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(value))));
  return value.toFixed(places);
}

/** With a sign in front. */
export function signed(value: number | null | undefined, digits = 3): string {
  const text = num(value, digits);
  return value !== null && value !== undefined && value > 0 ? `+${text}` : text;
}

/** A reward: always four decimals, so that columns line up. */
export function reward(value: number, sign = false): string {
  const text = Math.abs(value).toFixed(4);
  const zero = Number(text) === 0;
  return (value < 0 && !zero ? MINUS : sign && !zero ? "+" : "") + text;
}

export function percent(value: number | null | undefined, digits = 0): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const share = 100 * value;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  return `${share.toFixed(share < 10 ? Math.max(1, digits) : digits)} %`;
}

export function interval(low: number | null | undefined, high: number | null | undefined): string {
  if (low === null || low === undefined || high === null || high === undefined) return "";
  if (!Number.isFinite(low) || !Number.isFinite(high)) return "";
  return `[${signed(low)}, ${signed(high)}]`;
}

export type Verdict = "promotes" | "harms" | null;

export function verdictOf(kind: string): Verdict {
  if (kind === "paid-for-good" || kind === "charged-for-bad") return "promotes";
  if (kind === "paid-for-bad" || kind === "charged-for-good") return "harms";
  return null;
}

export const KIND_WORDS: Record<string, string> = {
  "paid-for-good": "it adds reward, and fires more on the better answers",
  "charged-for-bad": "it takes reward away, and fires more on the worse answers",
  "paid-for-bad": "it adds reward, and fires more on the worse answers",
  "charged-for-good": "it takes reward away, and fires more on the better answers",
  "not significant": "its effect could be chance",
  "not replicated": "its effect was seen on half of the prompts and not confirmed on the other half",
  "not tested": "it fires in too few prompts to be tested",
};

export function Kind({ kind, long = false }: { kind: string; long?: boolean }) {
  const verdict = verdictOf(kind);
  if (!verdict) return <span class="kind none">{kind}</span>;
  return (
    <span class={`kind ${verdict}`} title={KIND_WORDS[kind]}>
      <span aria-hidden="true">{verdict === "promotes" ? "▲" : "▼"}</span> {verdict}
      {long && <span class="of"> · {kind}</span>}
    </span>
  );
}

export function Label({ table, latent, more = false }: { table: Table; latent: number; more?: boolean }) {
  const name = table.names[latent];
  const words = table.words[latent];
  if (name) {
    const quoted = more ? (words ?? []).map((word) => `“${word}”`).join(" ") : "";
    return (
      <>
        <span class="name">{name.text}</span>
        {quoted && <span class="words"> {quoted}</span>}
      </>
    );
  }
  if (words?.length) {
    return (
      <span class="words" title="words that set apart the answers in which it is active">
        {words.map((word) => `“${word}”`).join(" ")}
      </span>
    );
  }
  return table.worded ? <span class="words">no distinctive words</span> : null;
}

/** Number and name of a latent, as a link to its page where there is one. */
export function LatentLink({ latent, shared: { table, world } }: { latent: number; shared: Shared }) {
  const words = (
    <>
      <span class="id">{latent}</span> <Label table={table} latent={latent} />
    </>
  );
  return world.embedded ? <span class="latent">{words}</span> : <a class="latent" href={`#/latent/${latent}`}>{words}</a>;
}

export function skillWords(name: LatentName): string {
  if (name.skill === null) return "named by the words of its answers";
  const ends = name.low !== null && name.high !== null ? ` [${num(name.low, 2)}, ${num(name.high, 2)}]` : "";
  const chance = name.low !== null && name.low <= 0.5 ? ", no better than chance" : "";
  return `name tested: ${name.measure} ${num(name.skill, 2)}${ends}${chance}`;
}

export function Card(props: { title: string; lead?: ComponentChildren; children: ComponentChildren; class?: string }) {
  return (
    <section class={`card ${props.class ?? ""}`} aria-label={props.title}>
      <h2>{props.title}</h2>
      {props.lead && <p class="lead">{props.lead}</p>}
      {props.children}
    </section>
  );
}

export function Problem({ told }: { told: Told }) {
  return (
    <p class="problem" role="alert">
      {told.message}
      {told.hint && <span class="hint"> — {told.hint}</span>}
    </p>
  );
}

export function Waiting({ what }: { what: string }) {
  return (
    <p class="loading" role="status">
      {what}…
    </p>
  );
}

/** Text of an answer, as text whatever it holds; long ones are folded by the style sheet. */
export function AnswerText({ text }: { text: string }) {
  if (text === "") return <p class="text empty">(an empty answer)</p>;
  return <p class="text">{text}</p>;
}
