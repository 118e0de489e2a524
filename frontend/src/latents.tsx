/** All latents: a map of what they do, and a table to search, sort and filter. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Whisker, useWidth } from "./charts";
import type { Shared, Table } from "./store";
import { Kind, Label, count, interval, num, percent, signed, verdictOf } from "./ui";

const ROW = 52;
const HEAD = 39;
const MAPPED = 400;
const SHARED_COLUMNS = ["effect", "weight", "rate", "spread", "latent"] as const;
type SortBy = (typeof SHARED_COLUMNS)[number];

const FILTERS: Record<string, string> = {
  all: "all latents",
  promotes: "promotes",
  harms: "harms",
  "paid-for-good": "· paid for good",
  "charged-for-bad": "· charged for bad",
  "paid-for-bad": "· paid for bad",
  "charged-for-good": "· charged for good",
  "not significant": "not significant",
  "not replicated": "not replicated",
  "not tested": "not tested",
  always: "always on",
  dead: "dead",
  noted: "with a note",
};

function kept(table: Table, latent: number, filter: string): boolean {
  if (filter === "all") return true;
  if (filter === "promotes" || filter === "harms") return verdictOf(table.kindOf(latent)) === filter;
  if (filter === "always") return table.at("rate", latent) >= 0.999;
  if (filter === "dead") return table.at("rate", latent) === 0;
  if (filter === "noted") return table.noted.has(latent);
  return table.kindOf(latent) === filter;
}

/** Latents that match, in order. Numbers that were not measured come last, whichever way it is sorted. */
function chosen(table: Table, find: string, filter: string, by: SortBy, down: boolean): Uint32Array {
  const wanted = find.trim().toLowerCase();
  const id = /^#?\d+$/.test(wanted) ? wanted.replace("#", "") : null;
  const found: number[] = [];
  for (let latent = 0; latent < table.count; latent++) {
    if (!kept(table, latent, filter)) continue;
    if (wanted) {
      const hit = id !== null ? String(latent).startsWith(id) : table.label(latent).toLowerCase().includes(wanted);
      if (!hit) continue;
    }
    found.push(latent);
  }
  if (by === "latent") return Uint32Array.from(down ? found : found.reverse());
  const column = by === "weight" ? table.weight : table.columns[by];
  if (!column) return Uint32Array.from(found);
  // by size where the sign is a direction: the largest effects stand together, whichever way they point
  const size = by === "effect" || by === "weight" ? Math.abs : (value: number) => value;
  const key = (latent: number) => {
    const value = column[latent]!;
    return Number.isNaN(value) ? -Infinity : down ? size(value) : -size(value);
  };
  const keys = Float64Array.from(found, key);
  const known: number[] = [];
  const unknown: number[] = [];
  for (let place = 0; place < found.length; place++) (keys[place] === -Infinity ? unknown : known).push(place);
  known.sort((one, other) => keys[other]! - keys[one]! || one - other);
  return Uint32Array.from([...known, ...unknown], (place) => found[place]!);
}

export function Latents({ world, table }: Shared) {
  const tested = "effect" in table.columns;
  const [find, setFind] = useState("");
  const [filter, setFilter] = useState("all");
  const [by, setBy] = useState<SortBy>(tested ? "effect" : "weight");
  const [down, setDown] = useState(true);
  const found = useMemo(() => chosen(table, find, filter, by, down), [table, find, filter, by, down]);
  const sort = (column: SortBy) => {
    setDown(column === by ? !down : true);
    setBy(column);
  };
  return (
    <main id="main" class="latents">
      <Intro world={world} table={table} />
      <div class="tools">
        <label class="search">
          <span class="off">Search latents</span>
          <input
            type="search"
            placeholder="Search by number, name or word"
            value={find}
            onInput={(event) => setFind(event.currentTarget.value)}
          />
        </label>
        <label class="filter">
          <span class="off">Show</span>
          <select value={filter} onChange={(event) => setFilter(event.currentTarget.value)}>
            {Object.entries(FILTERS).map(([value, words]) => (
              <option value={value}>{words}</option>
            ))}
          </select>
        </label>
        <p class="count" role="status">
          {found.length === table.count ? `${count(found.length)} latents` : `${count(found.length)} of ${count(table.count)}`}
        </p>
      </div>
      <Key table={table} tested={tested} />
      <Rows table={table} found={found} by={by} down={down} sort={sort} tested={tested} />
    </main>
  );
}

function Intro({ world, table }: Pick<Shared, "world" | "table">) {
  const tested = "effect" in table.columns;
  const counts = useMemo(() => {
    const tally = { promotes: 0, harms: 0 };
    for (let latent = 0; latent < table.count; latent++) {
      const verdict = verdictOf(table.kindOf(latent));
      if (verdict) tally[verdict]++;
    }
    return tally;
  }, [table]);
  const { summary } = world;
  return (
    <div class={`intro ${tested ? "" : "alone"}`}>
      <div class="said">
        <h1>What does this reward model pay for?</h1>
        {world.about && <p class="quiet">{world.about}</p>}
        <p>
          Each <b>latent</b> is something that the model notices in an answer. Its <b>weight</b> is the reward per unit
          of it, and a reward is the sum of these <b>contributions</b>
          {world.kind === "sarm" ? ", nothing else" : ", a constant, and a residual that no latent explains"}.
        </p>
        {tested ? (
          <p>
            Its <b>effect</b> says what it did to the gap between better and worse answers in {world.data ?? "the data"}:{" "}
            <span class="kind promotes">▲ {counts.promotes} promote</span> what was preferred,{" "}
            <span class="kind harms">▼ {counts.harms} harm</span> it.
          </p>
        ) : (
          <p class="quiet">
            {world.summary.answers
              ? "There are too few pairs of a better and a worse answer to test what latents do to a preference."
              : "No scored answers were given, so there are weights alone: sarm explore --latents DIR adds the rest."}
          </p>
        )}
        <dl class="figures">
          <div>
            <dt>latents</dt>
            <dd>
              {count(world.latents)}
              {world.k !== null && <small> {world.k} active at a time</small>}
            </dd>
          </div>
          {summary.answers > 0 && (
            <div>
              <dt>answers scored</dt>
              <dd>
                {count(summary.answers)}
                <small> to {count(summary.prompts)} prompts</small>
              </dd>
            </div>
          )}
          {summary.accuracy !== null && (
            <div>
              <dt>pairs ranked right</dt>
              <dd>{percent(summary.accuracy, 1)}</dd>
            </div>
          )}
          {summary.sd !== null && (
            <div>
              <dt>reward</dt>
              <dd>
                {num(summary.mean)}
                <small> SD {num(summary.sd)}</small>
              </dd>
            </div>
          )}
        </dl>
        <p class="ways">
          Open a latent below, or <a href="#/bench">put answers on the bench</a> and change what is paid for.
        </p>
      </div>
      {tested && <Quadrants table={table} />}
    </div>
  );
}

/** What the marks of the table mean. */
function Key({ table, tested }: { table: Table; tested: boolean }) {
  const both = "rate_chosen" in table.columns;
  const named = Object.keys(table.names).length > 0;
  return (
    <p class="key quiet">
      {named && (
        <span>
          <b class="name">a name</b>, tested
        </span>
      )}
      {table.worded && <span>“words” that set its answers apart</span>}
      {tested && (
        <span>
          <svg viewBox="0 0 26 10" width="26" height="10" aria-hidden="true">
            <rect class="range" x="1" y="4" width="24" height="2.5" />
            <rect class="pos" x="12" y="0" width="2.5" height="10" />
          </svg>{" "}
          effect and its 95 % interval
        </span>
      )}
      {both && (
        <span>
          <i class="chosen" /> active in chosen, <i class="rejected" /> in rejected answers
        </span>
      )}
    </p>
  );
}

/** Weight against the side on which a latent fires more: the four quadrants are the four kinds. */
function Quadrants({ table }: { table: Table }) {
  const [attach, width] = useWidth(460);
  const height = Math.min(280, Math.max(240, width * 0.62));
  const points = useMemo(() => {
    const effect = table.columns.effect!;
    const all: { latent: number; weight: number; side: number; effect: number }[] = [];
    for (let latent = 0; latent < table.count; latent++) {
      const weight = table.weight[latent]!;
      const value = effect[latent]!;
      if (Number.isFinite(value) && value !== 0 && weight !== 0) {
        all.push({ latent, weight, side: value / weight, effect: value });
      }
    }
    return all.sort((one, other) => Math.abs(other.effect) - Math.abs(one.effect)).slice(0, MAPPED).reverse();
  }, [table]);
  const root = (value: number) => Math.sign(value) * Math.sqrt(Math.abs(value));
  const most = (pick: (point: (typeof points)[number]) => number) =>
    Math.max(1e-12, ...points.map((point) => Math.abs(root(pick(point)))));
  const far = { x: most((p) => p.weight), y: most((p) => p.side), r: most((p) => p.effect) };
  const x = (weight: number) => width / 2 + (root(weight) / far.x) * (width / 2 - 26);
  const y = (side: number) => height / 2 - (root(side) / far.y) * (height / 2 - 34);
  const named = new Set(points.filter((p) => verdictOf(table.kindOf(p.latent))).slice(-7).map((p) => p.latent));
  return (
    <figure class="quadrants" ref={attach}>
      <svg width={width} height={height} role="group" aria-label="Map of the latents: weight to the right, firing more on better answers upwards">
        <rect class="promotes" x={width / 2} y={0} width={width / 2} height={height / 2} />
        <rect class="promotes" x={0} y={height / 2} width={width / 2} height={height / 2} />
        <rect class="harms" x={0} y={0} width={width / 2} height={height / 2} />
        <rect class="harms" x={width / 2} y={height / 2} width={width / 2} height={height / 2} />
        <line class="axis" x1={0} x2={width} y1={height / 2} y2={height / 2} />
        <line class="axis" x1={width / 2} x2={width / 2} y1={0} y2={height} />
        <text class="corner promotes" x={width - 8} y={18} text-anchor="end">paid for good ▲</text>
        <text class="corner harms" x={8} y={18}>▼ charged for good</text>
        <text class="corner promotes" x={8} y={height - 9}>▲ charged for bad</text>
        <text class="corner harms" x={width - 8} y={height - 9} text-anchor="end">paid for bad ▼</text>
        {points.map((point) => {
          const verdict = verdictOf(table.kindOf(point.latent));
          const words = `latent ${point.latent} ${table.label(point.latent)}, effect ${signed(point.effect)}, ${table.kindOf(point.latent)}`;
          const radius = 3 + 11 * (Math.abs(root(point.effect)) / far.r);
          return (
            <a href={`#/latent/${point.latent}`} aria-label={words} tabIndex={-1}>
              <title>{words}</title>
              <circle class={verdict ?? "none"} cx={x(point.weight)} cy={y(point.side)} r={radius} />
              {named.has(point.latent) && (
                <text class="id" x={x(point.weight)} y={y(point.side) + 3.5} text-anchor="middle">
                  {point.latent}
                </text>
              )}
            </a>
          );
        })}
      </svg>
      <figcaption>
        <span>← takes reward away</span>
        <span>weight</span>
        <span>adds reward →</span>
        <span class="wide">
          upwards: fires more on better answers · size: the effect
        </span>
      </figcaption>
    </figure>
  );
}

interface RowsGiven {
  table: Table;
  found: Uint32Array;
  by: SortBy;
  down: boolean;
  sort: (column: SortBy) => void;
  tested: boolean;
}

/** Only the rows in view are in the page: the table is as smooth with 65,536 latents as with 24. */
function Rows({ table, found, by, down, sort, tested }: RowsGiven) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const wanted = useRef<number | null>(null);
  useEffect(() => {
    const element = box.current!;
    const measure = () => setHeight(element.clientHeight);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    box.current!.scrollTop = 0;
    setTop(0);
  }, [found]);
  const first = Math.max(0, Math.floor(top / ROW) - 6);
  const last = Math.min(found.length, Math.ceil((top + height) / ROW) + 6);
  const scale = useMemo(() => {
    const effect = table.columns.effect;
    if (!effect) return 1;
    let most = 0;
    for (const name of ["effect", "low", "high"]) {
      for (const value of table.columns[name] ?? []) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
    }
    return most || 1;
  }, [table]);
  useEffect(() => {
    if (wanted.current !== null && focusOn(box.current!, wanted.current)) wanted.current = null;
  });
  const keys = (event: KeyboardEvent) => {
    const row = (event.target as HTMLElement).closest<HTMLElement>("[data-place]");
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (step === undefined || !found.length) return;
    event.preventDefault();
    const place = Math.max(0, Math.min(found.length - 1, row ? Number(row.dataset.place) + step : first));
    const element = box.current!;
    const edge = place * ROW;
    if (edge < element.scrollTop) element.scrollTop = edge;
    else if (edge + ROW + HEAD > element.scrollTop + element.clientHeight) {
      element.scrollTop = edge + ROW + HEAD - element.clientHeight;
    }
    // a row that is in the page takes the focus at once, so that quick keys follow each other; else when it is drawn
    if (focusOn(element, place)) return;
    wanted.current = place;
    setTop(element.scrollTop);
  };
  const head = (column: SortBy, words: string, title: string, style: string) => (
    <div role="columnheader" class={style} aria-sort={by === column ? (down ? "descending" : "ascending") : "none"}>
      <button type="button" title={title} onClick={() => sort(column)}>
        {words}
        <span class="arrow" aria-hidden="true">
          {by === column ? (down ? "↓" : "↑") : ""}
        </span>
      </button>
    </div>
  );
  return (
    <div
      class="table"
      ref={box}
      role="table"
      aria-label="Latents; arrow keys move between rows, Enter opens one"
      aria-rowcount={found.length + 1}
      tabIndex={0}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      onKeyDown={keys}
    >
      <div role="rowgroup" class="top">
        <div class="head" role="row" aria-rowindex={1}>
          {head("latent", "latent", "number and name", "c-name")}
          <div role="columnheader" class="c-kind">
            <span>what it does</span>
          </div>
          {head("effect", "effect", "what it adds to the reward of better over worse answers, with its 95 % interval; sorted by size", "c-effect")}
          {head("weight", "weight", "reward per unit of the latent; sorted by size", "c-num")}
          {head("rate", "active in", "share of answers in which it is active; chosen and rejected apart where there are pairs", "c-rate")}
          {head("spread", "spread", "SD of its contribution over answers, the root of its variance, in reward units", "c-num c-spread")}
        </div>
      </div>
      <div role="rowgroup" class="body">
        <div class="space" style={{ height: `${found.length * ROW}px` }} role="presentation">
          {Array.from({ length: Math.max(0, last - first) }, (_, n) => (
            <Row key={first + n} table={table} latent={found[first + n]!} place={first + n} scale={scale} tested={tested} />
          ))}
        </div>
        {!found.length && <p class="quiet nothing">No latent matches. Try fewer letters, or show all latents.</p>}
      </div>
    </div>
  );
}

function focusOn(box: HTMLElement, place: number): boolean {
  const link = box.querySelector<HTMLElement>(`[data-place="${place}"] a`);
  link?.focus({ preventScroll: true });
  return link !== null;
}

function Row(props: { table: Table; latent: number; place: number; scale: number; tested: boolean }) {
  const { table, latent, place, scale } = props;
  const effect = table.at("effect", latent);
  const both = "rate_chosen" in table.columns;
  return (
    <div class="row" role="row" aria-rowindex={place + 2} data-place={place} style={{ top: `${place * ROW}px` }}>
      <div role="rowheader" class="c-name">
        <a href={`#/latent/${latent}`}>
          <span class="id">{latent}</span> <Label table={table} latent={latent} more />
          {table.noted.has(latent) && <span class="noted" title="you wrote a note"> ✎</span>}
        </a>
      </div>
      <div role="cell" class="c-kind">
        <Kind kind={table.kindOf(latent)} />
      </div>
      <div role="cell" class="c-effect">
        {Number.isFinite(effect) ? (
          <>
            <Whisker value={effect} low={table.at("low", latent)} high={table.at("high", latent)} scale={scale} />
            <span class="n" title={interval(table.at("low", latent), table.at("high", latent))}>
              {signed(effect)}
            </span>
          </>
        ) : (
          <span class="n quiet">–</span>
        )}
      </div>
      <div role="cell" class="c-num">{signed(table.weight[latent]!)}</div>
      <div role="cell" class="c-rate">
        {both ? <Rates chosen={table.at("rate_chosen", latent)} rejected={table.at("rate_rejected", latent)} /> : null}
        <span class="n">{percent(table.at("rate", latent))}</span>
      </div>
      <div role="cell" class="c-num c-spread">{num(table.at("spread", latent))}</div>
    </div>
  );
}

function Rates({ chosen: one, rejected: other }: { chosen: number; rejected: number }) {
  return (
    <svg class="rates" viewBox="0 0 100 16" preserveAspectRatio="none" role="img" aria-label={`${percent(one)} of chosen, ${percent(other)} of rejected answers`}>
      <rect class="chosen" x={0} y={2} width={100 * one} height={5.4} />
      <rect class="rejected" x={0} y={8.6} width={100 * other} height={5.4} />
    </svg>
  );
}
