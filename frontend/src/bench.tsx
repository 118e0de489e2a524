/** The bench: answers taken apart, and edits that move their rewards at once, by exact algebra. */
import { useEffect, useState } from "preact/hooks";
import { Apart } from "./apart";
import { Controls } from "./controls";
import { Told } from "./source";
import { type Bench, type Shared, toBench, useAsked } from "./store";
import type { BenchRow, Parts } from "./types";
import { Problem, count } from "./ui";

const LONGEST = 200_000;

/** Answers as they were scored. */
export interface Scored {
  prompt: string;
  texts: string[];
  parts: Parts[];
  row: BenchRow | null;
  roles: string[];
}

export function BenchPage(shared: Shared) {
  const { world, source, bench } = shared;
  const laid = bench.use();
  const [scored, setScored] = useState<Scored | null>(null);
  const [told, setTold] = useState<Told | null>(null);
  useEffect(() => {
    if (laid?.told) setTold(laid.told);
    else if (laid?.row) setScored(ofRow(laid.row));
    else if (laid && world.scores && !isOf(scored, laid)) void score(laid.prompt, laid.answers);
  }, [laid]);
  useEffect(() => {
    if (!laid && (world.opened ?? world.summary.rows ?? 0) > 0) void toBench(shared, world.first ?? 0);
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
  const Part = world.embedded ? "section" : "main"; // a notebook has a main part of its own
  return (
    <Part id="main" class="bench" aria-label="Bench">
      {!world.embedded && (
        <div class="title">
          <h1>Bench</h1>
          <p class="sentence">
            Take a reward apart, change what is paid for, and see at once which answer wins. Edits become a file that{" "}
            <code>sarm train</code> reads.
          </p>
        </div>
      )}
      <div class="columns">
        <div class="work">
          <Texts shared={shared} scored={scored} score={score} />
          {told && <Problem told={told} />}
          {scored && <Apart shared={shared} scored={scored} />}
        </div>
        <Controls shared={shared} />
      </div>
    </Part>
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
  const { world, bench } = props.shared;
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
          <span class="quiet">
            {world.embedded
              ? "New texts need the kernel: run the cell again to score them."
              : "Rows of the data can be opened; new texts need the model."}
          </span>
        )}
        {rows > 0 && (
          <>
            <button type="button" aria-expanded={picking} onClick={() => setPicking(!picking)}>
              Open a row of {world.data ?? "the data"}
            </button>
            <button type="button" onClick={() => void toBench(props.shared, Math.floor(Math.random() * rows))}>
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
                void toBench(shared, row.row);
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
