/** The page: its head, the way to each part, and what is said when the server is gone. */
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { BenchPage } from "./bench";
import { LatentView } from "./latent";
import { Latents } from "./latents";
import { RunPage } from "./run";
import { type Source, Told, exported, giveToken, live, onReached, takeToken } from "./source";
import { type Shared, newShared } from "./store";
import "./style.css";
import { Problem } from "./ui";

function place(): [string, string] {
  const [page = "", detail = ""] = location.hash.replace(/^#\/?/, "").split("/");
  return [page || "latents", detail];
}

function usePlace(): [string, string] {
  const [at, setAt] = useState(place);
  useEffect(() => {
    const listen = () => setAt(place());
    addEventListener("hashchange", listen);
    return () => removeEventListener("hashchange", listen);
  }, []);
  return at;
}

function App({ shared }: { shared: Shared }) {
  const [page, detail] = usePlace();
  const { world } = shared;
  const title = { latents: "Latents", latent: `Latent ${detail}`, bench: "Bench", run: "Run" }[page] ?? "Latents";
  useEffect(() => {
    document.title = `${title} · ${world.model} · sarm explore`;
    if (page !== "latents") scrollTo(0, 0);
  }, [title]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById("main")?.querySelector<HTMLElement>("a, button, input, textarea, [tabindex]")?.focus();
      }}>
        Skip to the content
      </a>
      <Head shared={shared} page={page} />
      <Reached />
      <Page shared={shared} page={page} detail={detail} />
      <footer>
        <span>
          sarm-control {world.version} · head {world.head} · <a href="LICENSES.txt">licences</a>
        </span>
        {world.export && <span>an export: exact algebra works, nothing new can be scored</span>}
      </footer>
    </>
  );
}

function Page({ shared, page, detail }: { shared: Shared; page: string; detail: string }) {
  const latent = Number(detail);
  if (page === "latent" && /^\d+$/.test(detail) && latent < shared.world.latents) {
    return <LatentView key={latent} latent={latent} {...shared} />;
  }
  if (page === "bench") return <BenchPage {...shared} />;
  if (page === "run") return <RunPage {...shared} />;
  return <Latents {...shared} />;
}

function Head({ shared, page }: { shared: Shared; page: string }) {
  const changed = shared.edits.use().size;
  const link = (name: string, words: string, here: boolean, extra?: number) => (
    <a href={`#/${name}`} aria-current={here ? "page" : undefined}>
      {words}
      {extra ? <span class="badge" title={`${extra} edits`}>{extra}</span> : null}
    </a>
  );
  return (
    <header>
      <div class="brand">
        <svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true">
          <path d="M8 1v14" class="stem" />
          <path d="M8 3h6v3H8zM8 11h4v3H8z" class="pos" />
          <path d="M2 7h6v3H2z" class="neg" />
        </svg>
        <span class="model" title={`head ${shared.world.head}`}>
          {shared.world.model}
        </span>
      </div>
      <nav aria-label="Pages">
        {link("latents", "Latents", page === "latents" || page === "latent")}
        {link("bench", "Bench", page === "bench", changed)}
        {link("run", "Run", page === "run")}
      </nav>
      <Theme />
    </header>
  );
}

const THEMES = ["system", "light", "dark"] as const;

function Theme() {
  const [theme, setTheme] = useState(() => localStorage.getItem("sarm-theme") ?? "system");
  useEffect(() => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("sarm-theme", theme);
  }, [theme]);
  return (
    <label class="theme">
      <span class="off">Colours</span>
      <select value={theme} onChange={(event) => setTheme(event.currentTarget.value)}>
        {THEMES.map((name) => (
          <option value={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}

function Reached() {
  const [reached, setReached] = useState(true);
  useEffect(() => onReached(setReached), []);
  return (
    <div class="reached" role="status">
      {!reached && (
        <p>
          <b>The server has stopped.</b> What is on the page still works; it goes on by itself when <code>sarm explore</code> is
          back.
        </p>
      )}
    </div>
  );
}

function AskToken({ retry }: { retry: () => void }) {
  return (
    <main class="asked">
      <h1>This explorer asks for a token</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          giveToken(new FormData(event.currentTarget).get("token") as string);
          retry();
        }}
      >
        <label>
          Token <input name="token" type="password" autocomplete="off" required />
        </label>
        <button>Open</button>
      </form>
      <p class="quiet">It stands in the file that was given as --token-file.</p>
    </main>
  );
}

const root = document.getElementById("app")!;
const source: Source = "export" in document.documentElement.dataset ? exported : live;

async function open(): Promise<void> {
  try {
    const [world, table] = await Promise.all([source.world(), source.latents()]);
    render(null, root);
    root.textContent = "";
    render(<App shared={newShared(world, table, source)} />, root);
  } catch (error) {
    const told = error instanceof Told ? error : new Told(String(error));
    render(null, root);
    root.textContent = "";
    if (told.status === 401) render(<AskToken retry={() => void open()} />, root);
    else render(<main><Problem told={told} /></main>, root);
  }
}

takeToken();
void open();
