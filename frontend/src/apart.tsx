/** Answers taken apart: bars that sum to each reward, a slider for every latent, and the ranking. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { OPERATIONS, type Operation, partsOf, rewardUnder, spelled } from "./algebra";
import type { Scored } from "./bench";
import { Bar } from "./charts";
import { Told } from "./source";
import type { Edits, Shared, Table } from "./store";
import type { Edit, Parts } from "./types";
import { AnswerText, Card, LatentLink, num, reward, signed } from "./ui";

const SHOWN = 12;
const LETTERS = "ABCDEFGHIJKLMNOP";

type Check = { words: string; right: boolean } | null;

export function Apart({ scored, shared }: { scored: Scored; shared: Shared }) {
  const { table, world, source, edits } = shared;
  const changed = edits.use();
  const [all, setAll] = useState(false);
  const [check, setCheck] = useState<Check>(null);
  const rewards = scored.parts.map((part) => rewardUnder(part, changed, table.weight));
  const asking = useRef(0);
  useEffect(() => setCheck(null), [changed, scored]);
  const latents = useMemo(() => ordered(scored.parts), [scored]);
  // a latent with an edit stays in view; the order is that of the unedited rewards, so no row jumps under a hand
  const shown = all ? latents : latents.filter((latent, n) => n < SHOWN || changed.has(latent));
  const extra = [...changed.keys()].filter((latent) => !latents.includes(latent));
  const verify = async () => {
    if (!source.live || !world.scores) return;
    const number = ++asking.current;
    const now = edits.get();
    const own = scored.parts.map((part) => rewardUnder(part, now, table.weight));
    const texts = { prompts: scored.texts.map(() => scored.prompt), responses: scored.texts };
    try {
      const asked = scored.row ? { row: scored.row.row } : texts;
      const { results } = await source.score({ ...asked, edits: [...now.values()] });
      if (number !== asking.current) return;
      const far = Math.max(...results.map((one, n) => Math.abs(one.edited - own[n]!)));
      const words = far <= 1e-6 ? `The model scored them again: the same rewards (difference ${num(far, 2)})` : `The model gives rewards that differ by ${num(far, 3)}`;
      setCheck({ words, right: far <= 1e-6 });
    } catch (error) {
      if (number === asking.current) setCheck({ words: (error as Told).message, right: false });
    }
  };
  const scale = Math.max(
    1e-12,
    ...scored.parts.flatMap((part) => part.latents.map((_, n) => Math.abs(part.values[n]! * part.weights[n]!))),
    ...scored.parts.flatMap((part) => (world.kind === "sarm" ? [] : [Math.abs(part.residual), Math.abs(part.constant)])),
  );
  const edited = scored.parts.map((part) => new Map(partsOf(part, changed, table.weight).map((one) => [one.latent, one])));
  const two = scored.parts.length > 1;
  return (
    <>
      <Verdict scored={scored} rewards={rewards} changed={changed.size > 0} />
      <Card
        title="What the reward is made of"
        lead={
          <>
            Every bar is a contribution, weight × value; {two ? "each column" : "they"} add{two ? "s" : ""} up to the reward. Drag a slider:
            the outline stays where the bar was.
          </>
        }
        class="apart"
      >
        <div class="parts" role="table" aria-label="Contributions to the reward" style={{ "--answers": String(Math.min(4, scored.parts.length)) }}>
          <div class="prow phead" role="row">
            <span role="columnheader">latent</span>
            {scored.parts.map((_, n) => (
              <span role="columnheader">{two ? `answer ${LETTERS[n]}` : "contribution"}</span>
            ))}
            <span role="columnheader">edit</span>
          </div>
          {[...shown, ...extra].map((latent) => (
            <div class={`prow ${changed.has(latent) ? "edited" : ""}`} role="row" key={latent}>
              <span role="rowheader" class="c-name">
                <LatentLink latent={latent} shared={shared} />
              </span>
              {scored.parts.map((part, n) => {
                const now = edited[n]!.get(latent);
                const place = part.latents.indexOf(latent);
                const before = place < 0 ? 0 : part.values[place]! * part.weights[place]!;
                const value = now ? now.edited * now.weight : 0;
                return (
                  <span role="cell" class="c-bar" data-part={n} data-value={value}>
                    <Bar value={value} before={before} scale={scale} />
                    <span class={`n ${value === 0 ? "quiet" : ""}`}>{place < 0 && value === 0 ? "·" : reward(value, true)}</span>
                  </span>
                );
              })}
              <span role="cell" class="c-edit">
                <Slider latent={latent} edits={edits} reach={reachOf(scored.parts, latent, table)} released={() => void verify()} />
              </span>
            </div>
          ))}
          {world.kind !== "sarm" &&
            (["residual", "constant"] as const).map((name) => (
              <div class="prow own" role="row">
                <span role="rowheader" class="c-name">
                  {name} <span class="quiet">{name === "residual" ? "what no latent explains" : "what every answer gets"}</span>
                </span>
                {scored.parts.map((part, n) => (
                  <span role="cell" class="c-bar" data-part={n} data-value={part[name]}>
                    <Bar value={part[name]} scale={scale} />
                    <span class="n">{reward(part[name], true)}</span>
                  </span>
                ))}
                <span role="cell" class="c-edit quiet">
                  edits leave it alone
                </span>
              </div>
            ))}
          {!all && latents.length > shown.length && (
            <div class="prow rest" role="row">
              <span role="rowheader" class="c-name">
                <button type="button" class="small" onClick={() => setAll(true)}>
                  {latents.length - shown.length} smaller ones
                </button>
              </span>
              {scored.parts.map((_, n) => {
                const rest = latents
                  .filter((latent) => !shown.includes(latent))
                  .reduce((sum, latent) => sum + (edited[n]!.get(latent)?.edited ?? 0) * (edited[n]!.get(latent)?.weight ?? 0), 0);
                return (
                  <span role="cell" class="c-bar" data-part={n} data-value={rest}>
                    <Bar value={rest} scale={scale} />
                    <span class="n">{reward(rest, true)}</span>
                  </span>
                );
              })}
              <span role="cell" class="c-edit" />
            </div>
          )}
          <div class="prow sum" role="row">
            <span role="rowheader" class="c-name">
              reward
            </span>
            {rewards.map((value, n) => (
              <span role="cell" class="c-bar">
                <b class="n" data-reward={n} data-value={value}>
                  {reward(value)}
                </b>
                {value !== scored.parts[n]!.reward_model && <span class="quiet was">was {reward(scored.parts[n]!.reward_model)}</span>}
              </span>
            ))}
            <span role="cell" class="c-edit" />
          </div>
        </div>
        <p class={`check ${check ? (check.right ? "right" : "wrong") : ""}`} role="status">
          {check ? (check.right ? "✓ " : "! ") + check.words : source.live && world.scores ? "" : "Computed in this page, exactly; there is no model here to ask again."}
        </p>
        {scored.parts.some((part) => part.truncated > 0) && (
          <p class="quiet">{Math.max(...scored.parts.map((part) => part.truncated))} tokens were cut from the left to fit the context.</p>
        )}
      </Card>
    </>
  );
}

/** Latents by the largest contribution in any answer. */
function ordered(parts: Parts[]): number[] {
  const size = new Map<number, number>();
  for (const part of parts) {
    part.latents.forEach((latent, n) => {
      size.set(latent, Math.max(size.get(latent) ?? 0, Math.abs(part.values[n]! * part.weights[n]!)));
    });
  }
  return [...size.keys()].sort((one, other) => size.get(other)! - size.get(one)! || one - other);
}

/** How far a slider goes: the largest z that is known of the latent. */
function reachOf(parts: Parts[], latent: number, table: Table): number {
  const known = table.at("top", latent);
  const here = parts.map((part) => Math.abs(part.values[part.latents.indexOf(latent)] ?? 0));
  const most = Math.max(Number.isFinite(known) ? Math.abs(known) : 0, ...here);
  return most > 0 ? Number((most * 1.25).toPrecision(2)) : 1;
}

function Verdict({ scored, rewards, changed }: { scored: Scored; rewards: number[]; changed: boolean }) {
  const before = scored.parts.map((part) => part.reward_model);
  const winner = (of: number[]) => of.indexOf(Math.max(...of));
  const order = rewards.map((_, n) => n);
  const told = (of: number[]) => {
    const best = winner(of);
    const second = Math.max(...of.filter((_, n) => n !== best));
    return of[best] === second ? "a tie" : `${LETTERS[best]} wins by ${reward(of[best]! - second)}`;
  };
  return (
    <section class="verdict" aria-label="Rewards">
      {order.map((n) => (
        <div class={`score ${rewards.length > 1 && n === winner(rewards) ? "wins" : ""}`}>
          <p class="which">
            {rewards.length > 1 && <b>{LETTERS[n]}</b>} {scored.roles[n] && <span class={`role ${scored.roles[n]}`}>{scored.roles[n]}</span>}
          </p>
          <p class="big" data-big={n}>
            {reward(rewards[n]!)}
          </p>
          {rewards[n] !== before[n] ? (
            <p class="quiet">
              was {reward(before[n]!)}, {signed(rewards[n]! - before[n]!)}
            </p>
          ) : (
            <p class="quiet">{changed ? "unchanged by the edits" : "reward"}</p>
          )}
          {rewards.length > 2 && <AnswerText text={scored.texts[n]!} />}
        </div>
      ))}
      {rewards.length > 1 && (
        <p class="outcome" role="status">
          {told(rewards)}
          {changed && told(before) !== told(rewards) && <span class="quiet"> · before the edits: {told(before)}</span>}
          {changed && winner(before) !== winner(rewards) && <b class="flip"> the ranking has changed</b>}
        </p>
      )}
    </section>
  );
}

const WORDS: Record<Operation, string> = { scale: "scale ×", max: "cap ≤", min: "floor ≥", set: "set =", add: "add +" };

function operationOf(edit: Edit | undefined): Operation | "several" | null {
  if (!edit) return null;
  const given = OPERATIONS.filter((name) => edit[name] !== undefined);
  return given.length === 1 ? given[0]! : "several";
}

function Slider(props: { latent: number; edits: Edits; reach: number; released: () => void }) {
  const { latent, edits, reach, released } = props;
  const edit = edits.get().get(latent);
  const [wanted, setWanted] = useState<Operation>("scale");
  // what is being typed: a page that draws itself anew must not take it away
  const [draft, setDraft] = useState<string | null>(null);
  const now = operationOf(edit);
  const undo = () => {
    edits.drop(latent);
    released();
  };
  if (now === "several") {
    return (
      <span class="slider several">
        <code>{spelled(edit!)}</code>
        <button type="button" class="small" onClick={undo}>
          undo
        </button>
      </span>
    );
  }
  const operation = now ?? wanted;
  const [low, high, neutral] = operation === "scale" ? [0, 2, 1] : operation === "add" ? [-reach, reach, 0] : operation === "max" ? [0, reach, reach] : operation === "min" ? [0, reach, 0] : [0, reach, 0];
  const value = now ? edit![now]! : neutral;
  const step = (high - low) / 200;
  const give = (number: number) => {
    if (Number.isFinite(number)) edits.put({ latent, [operation]: number });
  };
  return (
    <span class="slider">
      <select
        aria-label={`Kind of edit of latent ${latent}`}
        value={operation}
        onChange={(event) => {
          const other = event.currentTarget.value as Operation;
          setWanted(other);
          if (now) {
            edits.put({ latent, [other]: other === "scale" ? 1 : other === "max" ? reach : 0 });
            released();
          }
        }}
      >
        {OPERATIONS.map((name) => (
          <option value={name}>{WORDS[name]}</option>
        ))}
      </select>
      <input
        type="range"
        aria-label={`Edit of latent ${latent}: ${operation}`}
        min={Math.min(low, value)}
        max={Math.max(high, value)}
        step={Number(step.toPrecision(3))}
        value={value}
        onInput={(event) => give(Number(event.currentTarget.value))}
        onChange={released}
      />
      <input
        type="number"
        aria-label={`Amount of the edit of latent ${latent}`}
        step="any"
        value={draft ?? String(Number(value.toPrecision(6)))}
        class={now ? "" : "quiet"}
        onInput={(event) => setDraft(event.currentTarget.value)}
        onChange={(event) => {
          setDraft(null);
          if (event.currentTarget.value !== "") give(Number(event.currentTarget.value));
          released();
        }}
      />
      <button type="button" class="undo" aria-label={`Undo the edit of latent ${latent}`} disabled={!now} onClick={undo}>
        ✕
      </button>
    </span>
  );
}
