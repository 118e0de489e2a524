/** A run as it trains: what it is paid, how far it went, what the monitors say, and samples. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Bar, type Line, Lines } from "./charts";
import type { Told } from "./source";
import type { Shared, Table } from "./store";
import type { MetricRow, RunPart } from "./types";
import { AnswerText, Card, Problem, Waiting, num, reward } from "./ui";

const EVERY = 2000;
const MOST = 500;

interface Run {
  name: string;
  steps: number | null;
  rows: RunPart["rows"];
}

const NONE: RunPart["rows"] = { metrics: [], samples: [], warnings: [], evaluation: [] };

/** Reads what was added every two seconds; rows that a resumed run wrote anew replace the old ones. */
function useRun({ source }: Shared): { run: Run | null; told: Told | null } {
  const [run, setRun] = useState<Run | null>(null);
  const [told, setTold] = useState<Told | null>(null);
  const offsets = useRef<Record<string, number>>({});
  useEffect(() => {
    let wanted = true;
    let timer = 0;
    const look = async () => {
      try {
        const part = await source.run(offsets.current);
        if (!wanted) return;
        offsets.current = part.offsets;
        setTold(null);
        setRun((before) => joined(before, part));
        if (part.more) return void look();
      } catch (error) {
        if (wanted) setTold(error as Told);
      }
      if (source.live && wanted) timer = window.setTimeout(() => void look(), EVERY);
    };
    void look();
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, []);
  return { run, told };
}

function joined(before: Run | null, part: RunPart): Run {
  const rows = { ...(before?.rows ?? NONE) };
  let fresh = before === null || part.again.length > 0 || before.steps !== part.steps;
  for (const log of Object.keys(part.rows) as (keyof RunPart["rows"])[]) {
    const kept = part.again.includes(log) ? [] : rows[log];
    if (part.rows[log].length) fresh = true;
    rows[log] = part.rows[log].length || part.again.includes(log) ? [...kept, ...part.rows[log]] : kept;
  }
  return fresh || !before ? { name: part.name, steps: part.steps, rows } : before;
}

export function RunPage(shared: Shared) {
  if (!shared.world.run) return <NoRun />;
  return <Following {...shared} />;
}

function NoRun() {
  return (
    <main id="main" class="run">
      <h1>No run is followed</h1>
      <p class="sentence">This page follows a training run: what the policy is paid, how far it moves, what the monitors find, and its answers.</p>
      <pre>
        {"sarm train --controls controls.yaml -o runs/first\nsarm explore --run runs/first"}
      </pre>
      <p class="quiet">The second command may be given while the first still works.</p>
    </main>
  );
}

function Following(shared: Shared) {
  const { run, told } = useRun(shared);
  const metrics = run?.rows.metrics ?? [];
  const done = metrics.length ? metrics[metrics.length - 1]!.step : 0;
  const finished = run?.steps !== null && done >= (run?.steps ?? Infinity);
  return (
    <main id="main" class="run">
      <div class="title">
        <h1>{shared.world.run}</h1>
        <p class="progress" role="status">
          {run ? `step ${done}${run.steps ? ` of ${run.steps}` : ""}` : ""}
          {run && <progress max={run.steps ?? Math.max(1, done)} value={done} aria-label="Steps done" />}
          {run && (finished ? "finished" : shared.source.live ? "followed as it is written" : "as it was exported")}
        </p>
      </div>
      {told && <Problem told={told} />}
      {!run && !told && <Waiting what="Opening the run" />}
      {run && !metrics.length && <p class="quiet">No step is done yet; this page shows the first one when it is.</p>}
      {run && metrics.length > 0 && <Charts run={run} table={shared.table} />}
      {run && metrics.length > 0 && <Monitors run={run} />}
      {run && run.rows.samples.length > 0 && <Samples run={run} shared={shared} />}
    </main>
  );
}

function thinned(rows: MetricRow[]): MetricRow[] {
  const every = Math.ceil(rows.length / MOST);
  return every < 2 ? rows : rows.filter((_, n) => n % every === 0 || n === rows.length - 1);
}

function column(rows: MetricRow[], name: string): (number | null)[] {
  return rows.map((row) => (typeof row[name] === "number" ? (row[name] as number) : null));
}

function moves(values: (number | null)[]): boolean {
  return values.some((value) => value !== null && value !== 0);
}

const REWARDS: Record<string, string> = {
  "reward/total": "total",
  "reward/model": "model",
  "reward/edits": "edits",
  "reward/human_kl": "human KL",
  "reward/missing_end": "missing end",
  "reward/shaping": "shaping",
};

function named(rows: MetricRow[], pick: (name: string) => string | null): Line[] {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return names
    .map((name) => ({ name: pick(name), values: column(rows, name) }))
    .filter((line): line is Line => line.name !== null && moves(line.values));
}

function Charts({ run, table }: { run: Run; table: Table }) {
  const rows = thinned(run.rows.metrics);
  const steps = rows.map((row) => row.step);
  const parts = named(rows, (name) => REWARDS[name] ?? (name.startsWith("reward/penalty/") ? `penalty ${name.slice(15)}` : null));
  parts.sort((one, other) => Number(other.name === "total") - Number(one.name === "total"));
  for (const line of parts) line.strong = line.name === "total";
  const called = (latent: string) => {
    const words = table.names[latent]?.text ?? "";
    return words && words.length <= 11 ? `${latent} ${words}` : `latent ${latent}`;
  };
  const rates = named(rows, (name) => (/^latent\/\d+\/rate$/.test(name) ? called(name.split("/")[1]!) : null));
  const human = named(rows, (name) => (name === "human_kl/kl" ? "from demonstrations" : null));
  const kl = [...named(rows, (name) => (name === "objective/kl" ? "from the start" : null)), ...human];
  const length = named(rows, (name) => (name === "answers/length" ? "tokens" : null));
  const seen = run.rows.evaluation;
  const judged = named(seen, (name) => ({ "evaluation/change": "reward", "evaluation/gold_change": "gold reward" })[name] ?? null);
  const chart = (title: string, lead: string, lines: Line[], at = steps) =>
    lines.length > 0 && (
      <Card title={title} lead={lead}>
        <Lines steps={at} lines={lines} of={title} last={run.steps} />
      </Card>
    );
  return (
    <div class="cards">
      {chart("Reward and its parts", "Mean over the answers of a step. The parts add up to the total, which the policy trains on.", parts)}
      {chart("Distance", "KL divergence per answer, in nats: how far the policy has moved.", kl)}
      {chart("Controlled latents", "Share of answers in which a controlled latent is active.", rates)}
      {chart("Length", "Tokens of an answer, on average.", length)}
      {chart(
        "Held-out prompts",
        "Change since the untrained policy. Gold is a judge that the policy never trains on: reward that grows without it is gamed.",
        judged,
        seen.map((row) => row.step),
      )}
    </div>
  );
}

function Monitors({ run }: { run: Run }) {
  const fired = run.rows.warnings;
  const checks = new Set(
    [...run.rows.metrics.slice(-1), ...run.rows.evaluation.slice(-1)]
      .flatMap((row) => Object.keys(row))
      .filter((name) => name.startsWith("monitor/"))
      .map((name) => name.split("/")[1]!),
  );
  return (
    <Card
      title="Monitors"
      class="wide"
      lead={checks.size ? `Watched: ${[...checks].map((name) => name.replaceAll("-", " ")).join(", ")}.` : "Ways in which a policy gets around its controls."}
    >
      {fired.length ? (
        <ol class="fired">
          {[...fired].reverse().map((row) => (
            <li>
              <span class="when">step {row.step}</span>
              <b>{String(row.check ?? "").replaceAll("-", " ")}</b>
              {row.latent !== undefined && (
                <a href={`#/latent/${row.latent}`}>
                  {" "}latent <span class="id">{String(row.latent)}</span>
                </a>
              )}
              <p>{String(row.text ?? "")}</p>
            </li>
          ))}
        </ol>
      ) : (
        <p class="quiet">None has fired.</p>
      )}
    </Card>
  );
}

function Samples({ run, shared }: { run: Run; shared: Shared }) {
  const steps = [...new Set(run.rows.samples.map((row) => row.step))];
  const [chosen, setChosen] = useState<number | null>(null);
  const step = chosen ?? steps[steps.length - 1]!;
  const shown = run.rows.samples.filter((row) => row.step === step).slice(0, 8);
  const paid = (row: MetricRow) =>
    Object.entries(row).filter(
      ([name, value]) => name.startsWith("reward/") && name !== "reward/total" && typeof value === "number" && value !== 0,
    ) as [string, number][];
  const scale = Math.max(1e-9, ...shown.flatMap((row) => paid(row).map(([, value]) => Math.abs(value))));
  return (
    <Card title="Answers, and what paid for them" class="wide">
      <label class="step">
        Step {step}
        <input
          type="range"
          min={0}
          max={steps.length - 1}
          value={steps.indexOf(step)}
          aria-valuetext={`step ${step}`}
          onInput={(event) => {
            const place = Number(event.currentTarget.value);
            setChosen(place === steps.length - 1 ? null : steps[place]!);
          }}
        />
      </label>
      <ul class="samples">
        {shown.map((row) => (
          <li>
            <div>
              <p class="prompt">{String(row.prompt ?? "")}</p>
              <AnswerText text={String(row.response ?? "")} />
              {shared.world.scores && typeof row.prompt === "string" && (
                <a
                  class="small"
                  href="#/bench"
                  onClick={() => shared.bench.set({ prompt: String(row.prompt), answers: [String(row.response ?? "")], row: null })}
                >
                  on the bench
                </a>
              )}
            </div>
            <dl class="paid">
              {paid(row).map(([name, value]) => (
                <div>
                  <dt>{REWARDS[name] ?? name.slice(7).replace("/", " ")}</dt>
                  <dd>
                    <Bar value={value} scale={scale} /> <span class="n">{reward(value, true)}</span>
                  </dd>
                </div>
              ))}
              <div class="total">
                <dt>total</dt>
                <dd>
                  <span class="n">{typeof row["reward/total"] === "number" ? reward(row["reward/total"] as number) : num(null)}</span>
                </dd>
              </div>
            </dl>
          </li>
        ))}
      </ul>
    </Card>
  );
}
