/** One latent: what it is, what it did, where it fires, what resembles it. */
import { useEffect, useState } from "preact/hooks";
import { Effects, Histogram } from "./charts";
import { type Source, Told } from "./source";
import { type Asked, type Edits, type Shared, type Table, toBench, useAsked } from "./store";
import type { LatentPage, Note, ShownAnswer, Sibling, Tokens } from "./types";
import { AnswerText, Card, KIND_WORDS, Kind, Label, Problem, Waiting, count, interval, num, percent, reward, signed, skillWords, verdictOf } from "./ui";

export function LatentView({ latent, ...shared }: Shared & { latent: number }) {
  const { world, table, source } = shared;
  const { value: page, told } = useAsked(`latent ${latent}`, () => source.latent(latent));
  const name = table.names[latent];
  return (
    <main id="main" class="one">
      <p class="back">
        <a href="#/latents">← all latents</a>
      </p>
      <div class="title">
        <h1>
          <span class="id">Latent {latent}</span> <Label table={table} latent={latent} />
        </h1>
        <p>
          <Kind kind={table.kindOf(latent)} long />
          {name && <span class="skill"> {skillWords(name)}</span>}
        </p>
      </div>
      <Sentence table={table} latent={latent} goal={world.goal} />
      <Actions latent={latent} edits={shared.edits} />
      {told && <Problem told={told} />}
      {!page && !told && <Waiting what="Looking at its answers" />}
      {page && <Details page={page} shared={shared} />}
    </main>
  );
}

/** Weight, side and effect in one sentence. */
function Sentence({ table, latent, goal }: { table: Table; latent: number; goal: string | null }) {
  const weight = table.weight[latent]!;
  const rate = table.at("rate", latent);
  const effect = table.at("effect", latent);
  const verdict = verdictOf(table.kindOf(latent));
  const share = table.at("share_of_margin", latent);
  const [chosen, rejected] = [table.at("rate_chosen", latent), table.at("rate_rejected", latent)];
  return (
    <p class="sentence">
      Each unit of it {weight > 0 ? "adds" : weight < 0 ? "takes" : "changes nothing:"}{" "}
      <b class={weight < 0 ? "neg" : "pos"}>{num(Math.abs(weight))}</b> {weight < 0 ? "of reward away" : "reward"}.
      {Number.isFinite(rate) && (
        <>
          {" "}
          It is active in {percent(rate)} of the answers
          {Number.isFinite(chosen) && `: ${percent(chosen)} of the chosen and ${percent(rejected)} of the rejected ones`}.
        </>
      )}
      {Number.isFinite(effect) && verdict && (
        <>
          {" "}
          It <b class={verdict}>{verdict}</b> the preference{goal && ` (${goal})`}: {KIND_WORDS[table.kindOf(latent)]}. On average it moves the gap by{" "}
          <b>{signed(effect)}</b> {interval(table.at("low", latent), table.at("high", latent))}
          {Number.isFinite(share) && `, ${signed(100 * share, 2)} % of it`}.
        </>
      )}
      {!verdict && <> {capital(KIND_WORDS[table.kindOf(latent)] ?? "")}.</>}
    </p>
  );
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function Actions({ latent, edits }: { latent: number; edits: Edits }) {
  const now = edits.use().get(latent);
  return (
    <p class="actions">
      <button type="button" onClick={() => edits.put({ latent, set: 0 })} disabled={now?.set === 0}>
        Switch it off on the bench
      </button>
      <a class="button" href="#/bench">
        {now ? "See the edit on the bench" : "Open the bench"}
      </a>
    </p>
  );
}

function Details({ page, shared }: { page: LatentPage; shared: Shared }) {
  const { world, table, source } = shared;
  const numbers = page.numbers;
  return (
    <div class="cards">
      {page.histogram && (
        <Card
          title="What it contributes"
          lead={
            page.histogram.sides.length > 1
              ? "Contributions to the reward where it is active: better answers above, worse ones below, each as a share of its side."
              : "Contributions to the reward where it is active."
          }
        >
          <Histogram edges={page.histogram.edges} sides={page.histogram.sides} />
        </Card>
      )}
      {numbers.effect !== null && numbers.effect !== undefined && <EffectCard page={page} />}
      {page.answers && <Answers page={page} shared={shared} />}
      {page.flips && page.flips.prompts > 0 && <FlipsCard page={page} />}
      <div class="stack">
        <Siblings page={page} table={table} />
        <Carried page={page} audit={world.audit} />
        <Notes latent={page.latent} source={source} table={table} note={page.note} kept={world.notes} />
      </div>
    </div>
  );
}

function EffectCard({ page }: { page: LatentPage }) {
  const n = page.numbers;
  const rows = [
    { name: "selection half", value: n.selection_effect ?? null, low: null, high: null },
    { name: "confirmation half", value: n.effect ?? null, low: n.low ?? null, high: n.high ?? null },
    {
      name: "at equal length",
      value: n.effect_equal_length ?? null,
      low: n.equal_length_low ?? null,
      high: n.equal_length_high ?? null,
    },
  ];
  const confirmed = n.q_confirm;
  return (
    <Card
      title="Its effect, and whether it holds"
      lead="What it adds to the reward of better over worse answers, per prompt. Latents are chosen on one half of the prompts and measured on the other."
    >
      <Effects effects={rows} />
      <p class="quiet">
        {n.q !== null && n.q !== undefined && `q = ${num(n.q, 2)} on the selection half`}
        {confirmed !== null && confirmed !== undefined
          ? `, ${num(confirmed, 2)} on the other: ${confirmed <= 0.05 ? "confirmed" : "not confirmed"}.`
          : n.q !== null && n.q !== undefined
            ? ": not selected, so it was not tested again."
            : ""}
        {n.auroc !== null && n.auroc !== undefined && ` It is larger in the better answer with probability ${num(n.auroc, 2)}.`}
      </p>
    </Card>
  );
}

const PARTS = { top: "strongest", middle: "in the middle", random: "at random" } as const;

function Answers({ page, shared }: { page: LatentPage; shared: Shared }) {
  const [part, setPart] = useState<keyof typeof PARTS>("top");
  const shown = page.answers![part];
  return (
    <Card title="Answers in which it is active" class="wide">
      <div class="choices" role="group" aria-label="Which answers">
        {(Object.keys(PARTS) as (keyof typeof PARTS)[]).map((key) => (
          <button type="button" aria-pressed={part === key} onClick={() => setPart(key)}>
            {PARTS[key]}
          </button>
        ))}
      </div>
      {!shown.length && <p class="quiet">It is active in none of these answers.</p>}
      <ul class="answers">
        {shown.map((answer) => (
          <Answer key={`${part} ${answer.answer}`} answer={answer} latent={page.latent} shared={shared} />
        ))}
      </ul>
    </Card>
  );
}

function Answer({ answer, latent, shared }: { answer: ShownAnswer; latent: number; shared: Shared }) {
  const [tokens, setTokens] = useState<Asked<Tokens> | null>(null);
  const show = async () => {
    setTokens({ value: null, told: null });
    try {
      setTokens({ value: await shared.source.tokens(latent, answer.answer), told: null });
    } catch (error) {
      setTokens({ value: null, told: error instanceof Told ? error : new Told(String(error)) });
    }
  };
  return (
    <li>
      <p class="prompt">{answer.prompt}</p>
      {tokens?.value ? <Marked tokens={tokens.value} weight={(answer.contribution ?? 0) / (answer.z || 1)} /> : <AnswerText text={answer.text} />}
      <p class="facts">
        <span class={`role ${answer.role}`}>{answer.role}</span>
        <span>
          contributes <b class={(answer.contribution ?? 0) < 0 ? "neg" : "pos"}>{signed(answer.contribution)}</b>
        </span>
        <span>z {num(answer.z)}</span>
        <span>reward {reward(answer.reward)}</span>
        {shared.world.scores && !tokens?.value && (
          <button type="button" class="small" onClick={show} disabled={tokens !== null && !tokens.told}>
            {tokens && !tokens.told ? "reading…" : "token by token"}
          </button>
        )}
        <a class="small" href="#/bench" onClick={() => void toBench(shared, answer.row)}>
          on the bench
        </a>
      </p>
      {tokens?.told && <Problem told={tokens.told} />}
    </li>
  );
}

/** The answer with the latent at every token; only the marked place makes the reward. */
function Marked({ tokens, weight }: { tokens: Tokens; weight: number }) {
  const most = Math.max(1e-9, ...tokens.values.map(Math.abs));
  return (
    <>
      <p class="text tokens">
        {tokens.texts.map((text, n) => {
          if (n < tokens.answer) return null;
          const value = tokens.values[n]!;
          const level = Math.round((Math.abs(value) / most) * 5);
          const adds = value * weight;
          const style = value === 0 ? "" : `${adds < 0 ? "neg" : "pos"} l${level}`;
          return (
            <span
              class={`${style} ${n === tokens.read ? "read" : ""}`}
              title={`z ${num(value)}${n === tokens.read ? ": the token that is read for the reward" : ""}`}
            >
              {text}
            </span>
          );
        })}
      </p>
      <p class="quiet">
        Colour: the latent at each token. The reward reads it at the framed token alone, here z ={" "}
        {num(tokens.values[tokens.read])}.
      </p>
    </>
  );
}

function FlipsCard({ page }: { page: LatentPage }) {
  const { flips } = page;
  const changed = flips!.changed;
  return (
    <Card
      title="Choices that it decides"
      lead={
        <>
          Best of {num(flips!.answers, 2)} answers to {count(flips!.prompts)} prompts: without this latent another answer wins in{" "}
          <b>{percent(changed?.mean ?? 0, 1)}</b>
          {changed && changed.low !== null && changed.high !== null && ` [${num(100 * changed.low, 2)}, ${num(100 * changed.high, 2)}]`}.
        </>
      }
    >
      <ul class="flips">
        {flips!.examples.slice(0, 4).map(([before, after]) => (
          <li>
            <p class="prompt">{before!.prompt}</p>
            <p class="text">
              <span class={`role ${before!.role}`}>{before!.role}</span> <s>{before!.text || "(an empty answer)"}</s>
            </p>
            <p class="text">
              <span class={`role ${after!.role}`}>{after!.role}</span> {after!.text || "(an empty answer)"}
            </p>
          </li>
        ))}
      </ul>
      {!flips!.examples.length && <p class="quiet">It decides no choice among these answers.</p>}
    </Card>
  );
}

function Siblings({ page, table }: { page: LatentPage; table: Table }) {
  const list = (title: string, what: string, found: Sibling[] | null) =>
    found && (
      <div>
        <h3>{title}</h3>
        <ol class="siblings">
          {found.slice(0, 6).map((one) => (
            <li>
              <a href={`#/latent/${one.latent}`}>
                <span class="id">{one.latent}</span> <Label table={table} latent={one.latent} />
              </a>
              <span class="n" title={what}>
                {signed(one.similarity, 2)}
              </span>
            </li>
          ))}
        </ol>
        {!found.length && <p class="quiet">none</p>}
      </div>
    );
  if (!page.decoder && !page.firing) return null;
  return (
    <Card title="Latents like it">
      <div class="two">
        {list("similar direction", "cosine of the decoder directions", page.decoder)}
        {list("fire together", "phi, the correlation of firing over answers", page.firing)}
      </div>
    </Card>
  );
}

function Carried({ page, audit }: { page: LatentPage; audit: boolean }) {
  if (!audit) {
    return (
      <Card title="Attributes that it carries">
        <p class="quiet">
          No audit was given. <code>sarm audit -o audit</code> measures what praise, length, closings and more are paid, and{" "}
          <code>sarm explore --audit audit</code> shows here which of it this latent carries.
        </p>
      </Card>
    );
  }
  return (
    <Card title="Attributes that it carries" lead="By the audit: when a text is changed in one attribute alone, how much of the change of the reward this latent makes.">
      {page.attributes!.length ? (
        <ul class="carried">
          {page.attributes!.map((one) => (
            <li>
              <b>{one.name}</b> <span class="quiet">{one.words}</span>
              <br />
              {signed(one.sd)} of {signed(one.of)} SD, by {one.edit}
            </li>
          ))}
        </ul>
      ) : (
        <p class="quiet">None that the audit measured.</p>
      )}
    </Card>
  );
}

interface NotesGiven {
  latent: number;
  source: Source;
  table: Table;
  note: Note | null | undefined;
  kept: string | null;
}

function Notes({ latent, source, table, note, kept }: NotesGiven) {
  const [saved, setSaved] = useState<Note | null>(note ?? null);
  const [text, setText] = useState(note?.text ?? "");
  const [state, setState] = useState("");
  const [told, setTold] = useState<Told | null>(null);
  const [other, setOther] = useState<Note | null>(null);
  useEffect(() => {
    if (!source.live || !kept) return;
    source.note(latent).then(
      (found) => {
        setSaved(found);
        setText(found.text);
      },
      (error: unknown) => setTold(error as Told),
    );
  }, [latent]);
  if (!source.live) {
    return text ? (
      <Card title="Note">
        <p class="text">{text}</p>
      </Card>
    ) : null;
  }
  if (!kept) return null;
  const save = async (version: number) => {
    setTold(null);
    setState("saving…");
    try {
      const now = await source.saveNote(latent, { text, version });
      setSaved(now);
      setOther(null);
      setState("saved");
      if (now.text) table.noted.add(latent);
      else table.noted.delete(latent);
    } catch (error) {
      setState("");
      const problem = error instanceof Told ? error : new Told(String(error));
      if (problem.status === 409) setOther((problem.body as { current: Note }).current);
      else setTold(problem);
    }
  };
  return (
    <Card title="Your note" lead={<>Kept in {kept}, a file of yours.</>}>
      <textarea
        aria-label={`Note on latent ${latent}`}
        rows={4}
        value={text}
        maxLength={20000}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setState("");
        }}
      />
      {other && (
        <div class="problem" role="alert">
          <p>This note was saved elsewhere in the meantime:</p>
          <p class="text">{other.text || "(empty)"}</p>
          <button type="button" onClick={() => void save(other.version)}>
            keep mine
          </button>{" "}
          <button
            type="button"
            onClick={() => {
              setText(other.text);
              setSaved(other);
              setOther(null);
            }}
          >
            take theirs
          </button>
        </div>
      )}
      {told && <Problem told={told} />}
      <p class="actions">
        <button type="button" disabled={!saved || text === saved.text} onClick={() => void save(saved!.version)}>
          Save note
        </button>
        <span role="status" class="quiet">
          {state}
        </span>
      </p>
    </Card>
  );
}
