/** The controls that are being built: edits listed, written, opened from a file, and downloaded as one. */
import { useRef, useState } from "preact/hooks";
import { parseEdit, spelled } from "./algebra";
import { controlsFile, textOf } from "./files";
import { Told } from "./source";
import type { Shared } from "./store";
import type { Loaded } from "./types";
import { LatentLink, Problem, plural } from "./ui";

export function Controls({ shared }: { shared: Shared }) {
  const { world, edits } = shared;
  const changed = edits.use();
  const [told, setTold] = useState<Told | null>(null);
  const [opened, setOpened] = useState<string | null>(null);
  const file = controlsFile(changed.values(), world.head, world.model);
  const open = async (chosen: File) => {
    setTold(null);
    setOpened(null);
    try {
      const loaded = await shared.source.controls(chosen.name, await textOf(chosen), world);
      setOpened(openedWords(chosen.name, loaded, edits.get().size));
      if (loaded.edits.length) edits.replace(loaded.edits);
    } catch (error) {
      setTold(error instanceof Told ? error : new Told(String(error)));
    }
  };
  const undoAll = () => {
    setOpened(null);
    setTold(null);
    edits.replace([]);
  };
  return (
    <aside class="controls" aria-label="Your controls">
      <h2>Your controls</h2>
      {changed.size ? (
        <ul>
          {[...changed.values()].map((edit) => (
            <li>
              <LatentLink latent={edit.latent} shared={shared} />
              <code>{spelled(edit)}</code>
              <button type="button" class="undo" aria-label={`Remove the edit of latent ${edit.latent}`} onClick={() => edits.drop(edit.latent)}>
                ✕
              </button>
            </li>
          ))}
        </ul>
      ) : (
        <p class="quiet">None yet. Move a slider, open a file, or write an edit: 12:max=2 caps latent 12 at 2.</p>
      )}
      <Written shared={shared} />
      <p class="actions">
        <button type="button" class="main" disabled={!changed.size} onClick={() => download(file)}>
          Download controls.yaml
        </button>
        <Opener open={open} />
        <button type="button" disabled={!changed.size} onClick={undoAll}>
          Undo all
        </button>
      </p>
      <p class="opened quiet" role="status">
        {opened}
      </p>
      {told && <Problem told={told} />}
      {changed.size > 0 && (
        <>
          <pre tabIndex={0} role="group" aria-label="The controls file">
            {file}
          </pre>
          <p class="quiet">
            Train under it: <Command words="sarm train --controls controls.yaml" />. Try it on many answers:{" "}
            <Command words="sarm probe --edits-file controls.yaml" />.
          </p>
        </>
      )}
    </aside>
  );
}

/** A command that breaks between its words alone. */
function Command({ words }: { words: string }) {
  return (
    <code>
      {words.split(" ").map((word, n) => (
        <>
          {n > 0 && " "}
          <span class="whole">{word}</span>
        </>
      ))}
    </code>
  );
}

function openedWords(name: string, { edits, left_out }: Loaded, before: number): string {
  const rest = left_out.length ? ` It also has ${left_out.join(" and ")}, which a download from here will not have.` : "";
  if (!edits.length) return `${name} has no edits, so nothing has changed.${rest}`;
  return `${plural(edits.length, "edit")} from ${name}${before ? `, in place of the ${before} before` : ""}.${rest}`;
}

/** An edit as the command line spells it. */
function Written({ shared }: { shared: Shared }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const add = (event: Event) => {
    event.preventDefault();
    const edit = parseEdit(text, shared.world.latents);
    if (typeof edit === "string") {
      setProblem(edit);
      return;
    }
    setProblem(null);
    setText("");
    shared.edits.put(edit);
  };
  return (
    <>
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
    </>
  );
}

/** A button that lets a file be chosen; the input itself cannot be made to look like one. */
function Opener({ open }: { open: (file: File) => Promise<void> }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button type="button" onClick={() => input.current?.click()}>
        Open a file…
      </button>
      <input
        ref={input}
        type="file"
        hidden
        accept=".yaml,.yml,.json"
        aria-label="Controls file"
        onChange={(event) => {
          const chosen = event.currentTarget.files?.[0];
          if (chosen) void open(chosen);
          event.currentTarget.value = ""; // the same file may be chosen again after it was mended
        }}
      />
    </>
  );
}

function download(file: string): void {
  const address = URL.createObjectURL(new Blob([file], { type: "application/yaml" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = "controls.yaml";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
