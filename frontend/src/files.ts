/**
 * Controls files: written for the library, and read back where no library is at hand.
 *
 * With a server or a kernel the library's own reader reads every file. An export reads two forms alone: what
 * `controlsFile` writes, and edits as JSON. Whatever is neither is refused, never guessed at.
 */
import { OPERATIONS, type Operation, check } from "./algebra";
import { Told } from "./source";
import type { Edit, Loaded, World } from "./types";

const LARGEST = 1 << 20;
const NO_READER = "Without sarm explore behind it, a page reads what its own download wrote, and edits as JSON";

/** A controls file: what `sarm train --controls` and `sarm probe --edits-file` read. */
export function controlsFile(edits: Iterable<Edit>, head: string, model: string): string {
  const lines = [...edits]
    .sort((one, other) => one.latent - other.latent)
    .map((edit) => {
      const fields = OPERATIONS.filter((name) => edit[name] !== undefined);
      return `    - {latent: ${edit.latent}, ${fields.map((name) => `${name}: ${yamlNumber(edit[name]!)}`).join(", ")}}`;
    });
  return [
    "# edits made in the explorer",
    `# model ${JSON.stringify(model)}`,
    "reward:",
    "  # another head is refused",
    `  fingerprint: "${head}"`,
    lines.length ? "  edits:" : "  edits: []",
    ...lines,
    "",
  ].join("\n");
}

/** YAML 1.1 reads 1e-7 as text, 1.0e-7 as a number. */
function yamlNumber(value: number): string {
  const text = String(value);
  if (!text.includes("e")) return text.includes(".") ? text : `${text}.0`;
  const [digits, power] = text.split("e") as [string, string];
  return `${digits.includes(".") ? digits : `${digits}.0`}e${/^[+-]/.test(power) ? power : `+${power}`}`;
}

/** The text of a file that was chosen, if it can be one of controls. */
export async function textOf(file: File): Promise<string> {
  if (file.size > LARGEST) {
    throw new Told(`${file.name} has ${Math.ceil(file.size / 1e5) / 10} MB`, "a controls file has a few lines, at most 1 MiB is read");
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Told(`${file.name} is not text`, "open a controls file: YAML or JSON");
  }
}

/** The edits of a file, read in the page. */
export function readHere(name: string, text: string, world: World): Loaded {
  const found = text.trimStart().match(/^[[{]/) ? fromJson(name, text) : fromOwnYaml(name, text);
  if (found.head !== null && found.head !== world.head) {
    throw new Told(`${name} was made for the head ${found.head}, this page shows ${world.head}`, "latent numbers mean nothing on another head");
  }
  const seen = new Set<number>();
  for (const edit of found.edits) {
    const problem = seen.has(edit.latent)
      ? `latent ${edit.latent} has two edits`
      : edit.latent >= world.latents
        ? `there is no latent ${edit.latent}: this model has 0..${world.latents - 1}`
        : check(edit);
    if (typeof problem === "string") throw new Told(`${name}: ${problem}`);
    seen.add(edit.latent);
  }
  return { edits: found.edits, left_out: [] };
}

interface Read {
  edits: Edit[];
  head: string | null;
}

function fromJson(name: string, text: string): Read {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new Told(`${name} is not JSON: ${(error as Error).message}`);
  }
  if (Array.isArray(content)) return { edits: content.map((one) => editOf(name, one)), head: null };
  const saved = content as { format?: unknown; head?: unknown; edits?: unknown };
  if (saved.format !== "sarm-edits-1" || !Array.isArray(saved.edits)) throw new Told(`${name} is no file of edits that can be read here`, NO_READER);
  return { edits: saved.edits.map((one) => editOf(name, one)), head: typeof saved.head === "string" ? saved.head : null };
}

function editOf(name: string, one: unknown): Edit {
  const edit = one as Record<string, unknown>;
  const fields = typeof one === "object" && one !== null ? Object.entries(edit) : [];
  const right = fields.every(([key, value]) => ["latent", ...OPERATIONS].includes(key) && typeof value === "number" && Number.isFinite(value));
  if (!right || !Number.isInteger(edit.latent) || (edit.latent as number) < 0) {
    throw new Told(`${name}: ${JSON.stringify(one)?.slice(0, 80)} is not an edit`, 'write {"latent": 12, "max": 2}');
  }
  return edit as unknown as Edit;
}

const NUMBER = /^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/;

function fromOwnYaml(name: string, text: string): Read {
  const read: Read = { edits: [], head: null };
  text.split(/\r?\n/).forEach((line, n) => {
    const head = /^ {2}fingerprint: "([^"\\]*)"$/.exec(line);
    const edit = /^ {4}- \{latent: (\d+), ([^{}]+)\}$/.exec(line);
    if (head) read.head = head[1]!;
    else if (edit) read.edits.push(ownEdit(name, n + 1, Number(edit[1]), edit[2]!));
    else if (!/^(\s*#.*|reward:| {2}edits:( \[\])?|\s*)$/.test(line)) {
      throw new Told(`${name}: line ${n + 1} cannot be read here`, NO_READER);
    }
  });
  if (read.head === null) throw new Told(`${name} is no controls file that can be read here`, NO_READER);
  return read;
}

function ownEdit(name: string, line: number, latent: number, fields: string): Edit {
  const edit: Edit = { latent };
  for (const field of fields.split(", ")) {
    const [key, value] = field.split(": ") as [string, string | undefined];
    if (!OPERATIONS.includes(key as Operation) || value === undefined || !NUMBER.test(value) || !Number.isFinite(Number(value)) || edit[key as Operation] !== undefined) {
      throw new Told(`${name}: line ${line} cannot be read here`, NO_READER);
    }
    edit[key as Operation] = Number(value);
  }
  return edit;
}
