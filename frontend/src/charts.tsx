/** Plain SVG charts. Every one has a sentence for those who do not see it. */
import { useEffect, useRef, useState } from "preact/hooks";
import { num, signed } from "./ui";

/** The width of an element in pixels, as it is laid out. */
export function useWidth(start = 600): [(element: HTMLElement | null) => void, number] {
  const [width, setWidth] = useState(start);
  const observer = useRef<ResizeObserver | null>(null);
  const attach = useRef((element: HTMLElement | null) => {
    observer.current?.disconnect();
    if (!element) return;
    setWidth(element.clientWidth || start);
    observer.current = new ResizeObserver(() => setWidth(element.clientWidth || start));
    observer.current.observe(element);
  });
  useEffect(() => () => observer.current?.disconnect(), []);
  return [attach.current, width];
}

/** Round steps for an axis. */
export function ticks(low: number, high: number, about = 4): number[] {
  const span = high - low || 1;
  const raw = span / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw) ?? raw;
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n++) found.push(n * step || 0);
  return found;
}

/** One bar from a common zero, with the bar of before behind it. */
export function Bar({ value, before, scale }: { value: number; before?: number; scale: number }) {
  const half = 50;
  const width = (amount: number) => Math.min(half, (Math.abs(amount) / (scale || 1)) * half);
  const left = (amount: number) => (amount < 0 ? half - width(amount) : half);
  const moved = before !== undefined && before !== value;
  return (
    <svg class="bar" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">
      {moved && <rect class="before" x={left(before)} y={1} width={width(before)} height={14} />}
      <rect class={value < 0 ? "neg" : "pos"} x={left(value)} y={moved ? 4 : 2} width={width(value)} height={moved ? 8 : 12} />
      <line x1={half} x2={half} y1={0} y2={16} />
    </svg>
  );
}

/** A value with the ends of its interval, on an axis that several of them share. */
export function Whisker(props: { value: number; low: number; high: number; scale: number; class?: string }) {
  const at = (amount: number) => 50 + 48 * Math.max(-1, Math.min(1, amount / (props.scale || 1)));
  const known = Number.isFinite(props.low) && Number.isFinite(props.high);
  return (
    <svg class={`whisker ${props.class ?? ""}`} viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">
      <line class="zero" x1={50} x2={50} y1={0} y2={16} />
      {known && <rect class="range" x={at(props.low)} y={6.5} width={Math.max(0.8, at(props.high) - at(props.low))} height={3} />}
      {Number.isFinite(props.value) && (
        <rect class={props.value < 0 ? "neg" : "pos"} x={at(props.value) - 0.9} y={2} width={1.8} height={12} />
      )}
    </svg>
  );
}

interface Side {
  name: string;
  answers: number;
  active: number;
  mean: number;
  counts: number[];
}

/** Contributions of two sides, one upwards and one downwards, each as a share of its answers. */
export function Histogram({ edges, sides }: { edges: number[]; sides: Side[] }) {
  const [attach, width] = useWidth(560);
  const two = sides.slice(0, 2);
  const height = two.length === 2 ? 220 : 140;
  const low = Math.min(0, edges[0]!);
  const high = Math.max(0, edges[edges.length - 1]!);
  const pad = (high - low || 1) * 0.03;
  const x = (value: number) => 12 + ((value - low + pad) / (high - low + 2 * pad || 1)) * (width - 24);
  const most = Math.max(1e-9, ...two.flatMap((side) => side.counts.map((n) => n / Math.max(1, side.answers))));
  const middle = two.length === 2 ? height / 2 - 4 : height - 24;
  const room = two.length === 2 ? height / 2 - 22 : height - 44;
  const said = two
    .map((side) => `${side.name}: active in ${side.active} of ${side.answers} answers, mean contribution ${num(side.mean)}`)
    .join("; ");
  return (
    <div ref={attach} class="chart">
      <svg width={width} height={height} role="img" aria-label={`Contributions where the latent is active. ${said}`}>
        {two.map((side, n) => (
          <g class={side.name}>
            {side.counts.map((count, bin) => {
              const size = (count / Math.max(1, side.answers) / most) * room;
              const left = x(edges[bin]!);
              return (
                <rect
                  x={left + 0.5}
                  width={Math.max(1, x(edges[bin + 1]!) - left - 1)}
                  y={n === 0 ? middle - size : middle + 1}
                  height={size}
                />
              );
            })}
            <text class="side" x={width - 12} y={n === 0 ? 12 : height - 20} text-anchor="end">
              {side.name}
            </text>
          </g>
        ))}
        <line class="axis" x1={8} x2={width - 8} y1={middle} y2={middle} />
        <line class="zero" x1={x(0)} x2={x(0)} y1={4} y2={height - 18} />
        {ticks(low, high, width < 420 ? 4 : 7).map((tick) => (
          <text class="tick" x={x(tick)} y={height - 4} text-anchor="middle">
            {signed(tick, 2)}
          </text>
        ))}
      </svg>
    </div>
  );
}

export interface Effect {
  name: string;
  value: number | null;
  low: number | null;
  high: number | null;
}

/** Several estimates of one effect under each other. */
export function Effects({ effects }: { effects: Effect[] }) {
  const [attach, width] = useWidth(420);
  const shown = effects.filter((one) => one.value !== null);
  const all = shown.flatMap((one) => [one.value!, one.low ?? one.value!, one.high ?? one.value!, 0]);
  const low = Math.min(...all);
  const high = Math.max(...all);
  const pad = (high - low || 1) * 0.08;
  const left = Math.min(150, width * 0.36);
  const x = (value: number) => left + ((value - low + pad) / (high - low + 2 * pad)) * (width - left - 12);
  const height = shown.length * 30 + 26;
  const said = shown.map((one) => `${one.name} ${signed(one.value)}`).join(", ");
  return (
    <div ref={attach} class="chart">
      <svg width={width} height={height} role="img" aria-label={`Effects in reward units: ${said}`}>
        <line class="zero" x1={x(0)} x2={x(0)} y1={0} y2={height - 20} />
        {shown.map((one, n) => (
          <g>
            <text x={0} y={n * 30 + 20}>
              {one.name}
            </text>
            {one.low !== null && one.high !== null && (
              <line class="range" x1={x(one.low)} x2={x(one.high)} y1={n * 30 + 16} y2={n * 30 + 16} />
            )}
            <circle class={one.value! < 0 ? "neg" : "pos"} cx={x(one.value!)} cy={n * 30 + 16} r={5} />
          </g>
        ))}
        {ticks(low, high, 3).map((tick) => (
          <text class="tick" x={x(tick)} y={height - 4} text-anchor="middle">
            {signed(tick, 2)}
          </text>
        ))}
      </svg>
    </div>
  );
}

export interface Line {
  name: string;
  values: (number | null)[];
  strong?: boolean;
}

/** Lines over steps, named at their ends; a pointer reads the values of a step. */
export function Lines({ steps, lines, of, last }: { steps: number[]; lines: Line[]; of: string; last: number | null }) {
  const [attach, width] = useWidth(480);
  const [at, setAt] = useState<number | null>(null);
  const height = 190;
  const right = lines.length > 1 ? Math.min(118, width * 0.3) : 14;
  const values = lines.flatMap((line) => line.values.filter((value): value is number => value !== null));
  if (!steps.length || !values.length) return <p class="quiet">nothing yet</p>;
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const pad = (high - low || 1) * 0.06;
  const first = steps[0]!;
  const end = Math.max(last ?? 0, steps[steps.length - 1]!, first + 1);
  const x = (step: number) => 46 + ((step - first) / (end - first)) * (width - 46 - right);
  const y = (value: number) => 10 + ((high + pad - value) / (high - low + 2 * pad)) * (height - 36);
  const ends = spread(
    lines.map((line) => y([...line.values].reverse().find((value) => value !== null) ?? 0)),
    13,
    height - 26,
  );
  const shown = at ?? steps.length - 1;
  const said = lines.map((line) => `${line.name} ${num(line.values[shown] ?? null)}`).join(", ");
  const move = (event: PointerEvent) => {
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    const step = first + ((event.clientX - box.left - 46) / (width - 46 - right)) * (end - first);
    let nearest = 0;
    steps.forEach((one, n) => {
      if (Math.abs(one - step) < Math.abs(steps[nearest]! - step)) nearest = n;
    });
    setAt(nearest);
  };
  return (
    <div ref={attach} class="chart lines">
      <svg
        width={width}
        height={height}
        role="img"
        aria-label={`${of}, step ${steps[shown]}: ${said}`}
        onPointerMove={move}
        onPointerLeave={() => setAt(null)}
      >
        {ticks(low - pad, high + pad, 5).map((tick) => (
          <g>
            <line class={tick === 0 ? "zero" : "grid"} x1={46} x2={width - right} y1={y(tick)} y2={y(tick)} />
            <text class="tick" x={40} y={y(tick) + 4} text-anchor="end">
              {num(tick, 2)}
            </text>
          </g>
        ))}
        {ticks(first, end, width < 420 ? 3 : 5)
          .filter(Number.isInteger)
          .map((tick) => (
            <text class="tick" x={x(tick)} y={height - 6} text-anchor="middle">
              {tick}
            </text>
          ))}
        {lines.map((line, n) => (
          <g class={`line c${n % 8} ${line.strong ? "strong" : ""}`}>
            <path d={path(steps, line.values, x, y)} />
            {lines.length > 1 && (
              <text class="end" x={width - right + 6} y={ends[n]! + 4}>
                {line.name}
              </text>
            )}
            {at !== null && line.values[at] !== null && line.values[at] !== undefined && (
              <circle cx={x(steps[at]!)} cy={y(line.values[at]!)} r={3} />
            )}
          </g>
        ))}
        {at !== null && <line class="cursor" x1={x(steps[at]!)} x2={x(steps[at]!)} y1={8} y2={height - 26} />}
      </svg>
      <p class="reading" aria-hidden="true">
        step {steps[shown]}:{" "}
        {lines.map((line, n) => (
          <span class={`value c${n % 8}`}>
            {line.name} {num(line.values[shown] ?? null)}
          </span>
        ))}
      </p>
    </div>
  );
}

function path(steps: number[], values: (number | null)[], x: (n: number) => number, y: (n: number) => number): string {
  let drawn = "";
  let pen = false;
  values.forEach((value, n) => {
    if (value === null || value === undefined) {
      pen = false;
      return;
    }
    drawn += `${pen ? "L" : "M"}${x(steps[n]!).toFixed(1)},${y(value).toFixed(1)}`;
    pen = true;
  });
  return drawn;
}

/** Moves labels apart that would lie on each other. */
function spread(wanted: number[], apart: number, most: number): number[] {
  const order = wanted.map((_, n) => n).sort((one, other) => wanted[one]! - wanted[other]!);
  const placed = [...wanted];
  let above = -Infinity;
  for (const n of order) {
    placed[n] = Math.max(wanted[n]!, above + apart);
    above = placed[n]!;
  }
  let below = most + apart;
  for (const n of [...order].reverse()) {
    placed[n] = Math.min(placed[n]!, below - apart);
    below = placed[n]!;
  }
  return placed;
}
