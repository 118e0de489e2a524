/** The bench: answers taken apart, and edits that move their rewards at once, by exact algebra. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { OPERATIONS, type Operation, controlsFile, parseEdit, partsOf, rewardUnder, spelled } from "./algebra";
import { Bar } from "./charts";
import { toBench } from "./latent";
import { Told } from "./source";
import { type Bench, type Shared, type Table, bench, dropEdit, edits, setEdit, useAsked } from "./store";
import type { BenchRow, Edit, Parts } from "./types";
import { AnswerText, Card, Label, Problem, count, num, reward, signed } from "./ui";

const SHOWN = 12;
const LONGEST = 200_000;
const LETTERS = "ABCDEFGHIJKLMNOP";

interface Scored {
  prompt: string;
  texts: string[];
  parts: Parts[];
  row: BenchRow | null;
  roles: string[];
}

export function BenchPage(shared: Shared) {
  const { world, table, source } = shared;
  const laid = bench.use();
  const changed = edits.use();
  const [scored, setScored] = useState<Scored | null>(null);
  const [told, setTold] = useState<Told | null>(null);
  useEffect(() => {
    if (laid?.told) setTold(laid.told);
    else if (laid?.row) setScored(ofRow(laid.row));
    else if (laid && world.scores && !isOf(scored, laid)) void score(laid.prompt, laid.answers);
  }, [laid]);
  useEffect(() => {
    if (!laid && (world.opened ?? world.summary.rows ?? 0) > 0) void toBench(source, world.first ?? 0);
  }, []);
  const score = async (prompt: string, texts: string[]) => {
    setTold(null);
    try {
      const { results } = await source.score({ prompts: texts.map(() => prompt), responses: texts, edits: [] });
      setScored({ prompt, texts, parts: results, row: null, roles: [] });
      bench.set({ prompt, answers: texts, row: null });
    } catch (error) {
      setTold(error instanceof Told ? error : new Told(String(error)));
    }
  };
  return (
    <main id="main" class="bench">
      <div class="title">
        <h1>Bench</h1>
        <p class="sentence">
          Take a reward apart, change what is paid for, and see at once which answer wins. Edits become a file that{" "}
          <code>sarm train</code> reads.
        </p>
      </div>
      <div class="columns">
        <div class="work">
          <Texts shared={shared} scored={scored} score={score} />
          {told && <Problem told={told} />}
          {scored && <Apart {...shared} scored={scored} changed={changed} />}
        </div>
        <Controls world={world} table={table} source={source} changed={changed} />
      </div>
    </main>
  );
}

function isOf(scored: Scored | null, laid: Bench): boolean {
  return scored !== null && scored.prompt === laid.prompt && scored.texts.join("\0") === laid.answers.join("\0");
}

function ofRow(row: BenchRow): Scored {
  return {
    prompt: row.prompt,
    texts: row.answers.map((one) => one.text),
    parts: row.answers,
    row,
    roles: row.answers.map((one) => one.role),
  };
}

function Texts(props: { shared: Shared; scored: Scored | null; score: (prompt: string, texts: string[]) => Promise<void> }) {
  const { world, source } = props.shared;
  const laid = bench.use();
  const [prompt, setPrompt] = useState("");
  const [one, setOne] = useState("");
  const [two, setTwo] = useState("");
  const [busy, setBusy] = useState(false);
  const [picking, setPicking] = useState(false);
  useEffect(() => {
    if (!laid) return;
    setPrompt(laid.prompt);
    setOne(laid.answers[0] ?? "");
    setTwo(laid.answers[1] ?? "");
  }, [laid]);
  const many = (laid?.row?.answers.length ?? 0) > 2;
  const longest = Math.max(prompt.length, one.length, two.length);
  const changed =
    !props.scored || prompt !== props.scored.prompt || one !== (props.scored.texts[0] ?? "") || two !== (props.scored.texts[1] ?? "");
  const go = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    await props.score(prompt, two === "" ? [one] : [one, two]);
    setBusy(false);
  };
  const rows = world.opened ?? world.summary.rows ?? 0;
  return (
    <form class="texts" onSubmit={(event) => void go(event)}>
      <div class="field">
        <label for="prompt">Prompt</label>
        <textarea id="prompt" rows={2} value={prompt} readOnly={!world.scores} onInput={(event) => setPrompt(event.currentTarget.value)} />
      </div>
      <div class="pair">
        <div class="field">
          <label for="one">Answer A</label>
          <textarea id="one" rows={3} value={one} readOnly={!world.scores} onInput={(event) => setOne(event.currentTarget.value)} />
        </div>
        <div class="field">
          <label for="two">
            Answer B <span class="quiet">(may be left empty)</span>
          </label>
          <textarea id="two" rows={3} placeholder={laid?.row && (laid.row.answers.length ?? 0) > 1 ? "(an empty answer)" : ""} value={two} readOnly={!world.scores} onInput={(event) => setTwo(event.currentTarget.value)} />
        </div>
      </div>
      {many && <p class="quiet">This row has {laid!.row!.answers.length} answers; all of them are taken apart below.</p>}
      <p class="actions">
        {world.scores ? (
          <button disabled={busy || !changed || longest > LONGEST} class="main">
            {busy ? "Scoring…" : "Score"}
          </button>
        ) : (
          <span class="quiet">Rows of the data can be opened; new texts need the model.</span>
        )}
        {rows > 0 && (
          <>
            <button type="button" aria-expanded={picking} onClick={() => setPicking(!picking)}>
              Open a row of {world.data ?? "the data"}
            </button>
            <button type="button" onClick={() => void toBench(source, Math.floor(Math.random() * rows))}>
              Any row
            </button>
          </>
        )}
        {longest > LONGEST && (
          <span class="problem" role="alert">
            {count(longest)} characters: at most {count(LONGEST)} are scored. Tokens beyond the context are not read anyway.
          </span>
        )}
      </p>
      {picking && <Picker shared={props.shared} done={() => setPicking(false)} />}
    </form>
  );
}

function Picker({ shared, done }: { shared: Shared; done: () => void }) {
  const [find, setFind] = useState("");
  const [start, setStart] = useState(0);
  const { value, told } = useAsked(`rows ${start} ${find}`, () => shared.source.rows(start, find));
  return (
    <div class="picker">
      <label>
        <span class="off">Search rows</span>
        <input
          type="search"
          placeholder="Search prompts and answers"
          value={find}
          onInput={(event) => {
            setStart(0);
            setFind(event.currentTarget.value);
          }}
          onKeyDown={(event) => event.key === "Enter" && event.preventDefault()}
        />
      </label>
      {told && <Problem told={told} />}
      <ul>
        {value?.rows.map((row) => (
          <li>
            <button
              type="button"
              onClick={() => {
                void toBench(shared.source, row.row);
                done();
              }}
            >
              <span class="id">{row.row + 1}</span> {row.prompt}
            </button>
          </li>
        ))}
      </ul>
      {value && (
        <p class="actions quiet">
          {value.count ? `${start + 1}–${start + value.rows.length} of ${count(value.count)}` : "no row matches"}
          <button type="button" disabled={start === 0} onClick={() => setStart(Math.max(0, start - 50))}>
            earlier
          </button>
          <button type="button" disabled={start + 50 >= value.count} onClick={() => setStart(start + 50)}>
            later
          </button>
        </p>
      )}
    </div>
  );
}

type Edits = ReadonlyMap<number, Edit>;
type Check = { words: string; right: boolean } | null;

function Apart({ scored, changed, table, world, source }: Shared & { scored: Scored; changed: Edits }) {
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
                <a href={`#/latent/${latent}`}>
                  <span class="id">{latent}</span> <Label table={table} latent={latent} />
                </a>
              </span>
              {scored.parts.map((part, n) => {
                const now = edited[n]!.get(latent);
                const place = part.latents.indexOf(latent);
                const before = place < 0 ? 0 : part.values[place]! * part.weights[place]!;
                const value = now ? now.edited * now.weight : 0;
                return (
                  <span role="cell" class="c-bar">
                    <Bar value={value} before={before} scale={scale} />
                    <span class={`n ${value === 0 ? "quiet" : ""}`}>{place < 0 && value === 0 ? "·" : reward(value, true)}</span>
                  </span>
                );
              })}
              <span role="cell" class="c-edit">
                <Slider latent={latent} edit={changed.get(latent)} reach={reachOf(scored.parts, latent, table)} released={() => void verify()} />
              </span>
            </div>
          ))}
          {world.kind !== "sarm" &&
            (["residual", "constant"] as const).map((name) => (
              <div class="prow own" role="row">
                <span role="rowheader" class="c-name">
                  {name} <span class="quiet">{name === "residual" ? "what no latent explains" : "what every answer gets"}</span>
                </span>
                {scored.parts.map((part) => (
                  <span role="cell" class="c-bar">
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
                  <span role="cell" class="c-bar">
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

function Slider(props: { latent: number; edit: Edit | undefined; reach: number; released: () => void }) {
  const { latent, edit, reach, released } = props;
  const [wanted, setWanted] = useState<Operation>("scale");
  // what is being typed: a page that draws itself anew must not take it away
  const [draft, setDraft] = useState<string | null>(null);
  const now = operationOf(edit);
  if (now === "several") {
    return (
      <span class="slider several">
        <code>{spelled(edit!)}</code>
        <button type="button" class="small" onClick={() => { dropEdit(latent); released(); }}>
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
    if (Number.isFinite(number)) setEdit({ latent, [operation]: number });
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
            setEdit({ latent, [other]: other === "scale" ? 1 : other === "max" ? reach : 0 });
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
      <button type="button" class="undo" aria-label={`Undo the edit of latent ${latent}`} disabled={!now} onClick={() => { dropEdit(latent); released(); }}>
        ✕
      </button>
    </span>
  );
}

function Controls({ world, table, changed }: Shared & { changed: Edits }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const file = controlsFile(changed.values(), world.head, world.model);
  const add = (event: Event) => {
    event.preventDefault();
    const edit = parseEdit(text, world.latents);
    if (typeof edit === "string") {
      setProblem(edit);
      return;
    }
    setProblem(null);
    setText("");
    setEdit(edit);
  };
  const download = () => {
    const address = URL.createObjectURL(new Blob([file], { type: "application/yaml" }));
    const link = document.createElement("a");
    link.href = address;
    link.download = "controls.yaml";
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  };
  return (
    <aside class="controls" aria-label="Your controls">
      <h2>Your controls</h2>
      {changed.size ? (
        <ul>
          {[...changed.values()].map((edit) => (
            <li>
              <a href={`#/latent/${edit.latent}`}>
                <span class="id">{edit.latent}</span> <Label table={table} latent={edit.latent} />
              </a>
              <code>{spelled(edit)}</code>
              <button type="button" class="undo" aria-label={`Remove the edit of latent ${edit.latent}`} onClick={() => dropEdit(edit.latent)}>
                ✕
              </button>
            </li>
          ))}
        </ul>
      ) : (
        <p class="quiet">None yet. Move a slider, or write an edit: 12:max=2 caps latent 12 at 2.</p>
      )}
      <form onSubmit={add} class="add">
        <label class="off" for="edit">
          Write an edit
        </label>
        <input id="edit" placeholder="12:max=2" value={text} onInput={(event) => setText(event.currentTarget.value)} aria-invalid={problem !== null} />
        <button>Add</button>
      </form>
      {problem && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <p class="actions">
        <button type="button" class="main" disabled={!changed.size} onClick={download}>
          Download controls.yaml
        </button>
        <button type="button" disabled={!changed.size} onClick={() => edits.set(new Map())}>
          Undo all
        </button>
      </p>
      {changed.size > 0 && (
        <>
          <pre>{file}</pre>
          <p class="quiet">
            Train under it: <code>sarm train --controls controls.yaml</code>. Try it on many answers:{" "}
            <code>sarm probe --edits-file controls.yaml</code>.
          </p>
        </>
      )}
    </aside>
  );
}
