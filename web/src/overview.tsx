// Every app of the namespaces that we may see, and how each is doing.

import { useMemo, useRef, useState } from "preact/hooks";
import { ApiError, look, lookAtAll } from "./api";
import { askFreeze, askThaw } from "./actions";
import { Ago, Badge, Pods, Trouble, Waiting } from "./parts";
import { useFollowed } from "./poll";
import { go, link, may, route, whoami } from "./state";
import { changeOf, count, exact, stateOf, type State } from "./words";
import type { App, Freeze } from "./types";

const ROWS = 100;

interface Row {
  app: App;
  state: State;
  changed: string;
  by: string;
  text: string;
}

type Column = "app" | "state" | "live" | "pods" | "changed";
const COLUMNS: { id: Column | ""; label: string }[] = [
  { id: "app", label: "App" },
  { id: "state", label: "State" },
  { id: "live", label: "Live" },
  { id: "", label: "Coming" },
  { id: "", label: "Warm" },
  { id: "pods", label: "Pods" },
  { id: "", label: "Hosts" },
  { id: "changed", label: "Last change" },
];

const KEYS: Record<Column, (row: Row) => string | number> = {
  app: ({ app }) => `${app.appName}\n${app.namespace}`,
  state: ({ state }) => ["bad", "warn", "busy", "idle", "good"].indexOf(state.tone),
  live: ({ app }) => app.live?.version ?? "",
  pods: ({ app }) => (app.replicas?.wanted ? (app.replicas.ready ?? 0) / app.replicas.wanted : 2),
  changed: ({ changed }) => (changed ? -Date.parse(changed) : 0),
};

const SHOWN: Record<string, (row: Row) => boolean> = {
  all: () => true,
  person: ({ app, state }) => Boolean(app.upcoming?.waitsForApproval) || state.word === "Needs a person",
  moving: ({ app }) => app.upcoming !== undefined,
  trouble: ({ state }) => state.tone === "bad" || state.tone === "warn",
  live: ({ app }) => app.live !== undefined,
};

function rowOf(app: App): Row {
  const { time, by } = changeOf(app);
  const state = stateOf(app);
  return { app, state, changed: time, by, text: [app.appName, app.namespace, ...(app.hosts ?? []), app.live?.version, by, state.word].join(" ").toLowerCase() };
}

/** The apps of several namespaces, one after the other: a namespace that fails does not hide the others. */
async function appsOf(namespaces: string[], last: { apps: App[] }): Promise<App[]> {
  const found: App[] = [];
  let refused: unknown;
  for (const namespace of namespaces) {
    try {
      found.push(...(await lookAtAll<App>("apps/", { namespace, limit: "500" })));
    } catch (error) {
      if (namespaces.length === 1 || !(error instanceof ApiError) || error.status === 0 || error.status === 401) throw error;
      refused = error;
    }
  }
  if (refused && !found.length) throw refused;
  // Nothing is drawn anew while nothing has changed.
  const same = last.apps.length === found.length && found.every((app, index) => app === last.apps[index]);
  if (!same) last.apps = found;
  return last.apps;
}

export function Overview() {
  const { namespace } = route.value;
  const known = whoami.value?.namespaces;
  const namespaces = namespace ? [namespace] : known;
  const last = useRef({ apps: [] as App[] });
  const moving = (apps: App[]): number => Math.max(apps.some(({ upcoming }) => upcoming) ? 1500 : 3000, (namespaces?.length ?? 1) * 250);
  const { data, error, again } = useFollowed(`apps ${namespaces?.join(" ")}`, async () => (namespaces ? appsOf(namespaces, last.current) : undefined), (apps) => (apps ? moving(apps) : 500));
  const [filter, setFilter] = useState("");
  const [shown, setShown] = useState("all");
  const [sort, setSort] = useState<{ by: Column; down: boolean }>({ by: "app", down: false });
  const [from, setFrom] = useState(0);
  const rows = useMemo(() => (data ?? []).map(rowOf), [data]);
  const wanted = filter.trim().toLowerCase().split(/\s+/);
  const found = useMemo(() => {
    const key = KEYS[sort.by];
    const kept = rows.filter((row) => SHOWN[shown]!(row) && wanted.every((word) => row.text.includes(word)));
    const sorted = kept.map((row) => ({ row, key: key(row) })).sort((a, b) => order(a.key, b.key) || order(a.row.app.appName, b.row.app.appName));
    return (sort.down ? sorted.reverse() : sorted).map(({ row }) => row);
  }, [rows, filter, shown, sort]);
  const first = Math.min(from, Math.max(0, Math.floor((found.length - 1) / ROWS) * ROWS));
  const page = found.slice(first, first + ROWS);
  const people = rows.filter(SHOWN["person"]!).length;

  return (
    <>
      <header class="title">
        <h1>{namespace ? `Apps in ${namespace}` : "Apps"}</h1>
        {namespace && may(namespace, "descriptors", "create") && (
          <a class="button primary" href={link(namespace, "descriptors", "new")}>
            New app
          </a>
        )}
      </header>
      {namespace && <Freezes namespace={namespace} />}
      <Trouble error={error} />
      {!data && !error && <Waiting what="apps" />}
      {data && (
        <>
          <search class="filters">
            <label>
              Filter{" "}
              <input id="filter" type="search" value={filter} placeholder="app, host, version, person" onInput={(event) => (setFilter(event.currentTarget.value), setFrom(0))} onKeyDown={(event) => event.key === "ArrowDown" && step(event, 0)} />
            </label>
            <label>
              Show{" "}
              <select value={shown} onChange={(event) => (setShown(event.currentTarget.value), setFrom(0))}>
                <option value="all">all apps</option>
                <option value="person">waiting for a person{people ? ` (${people})` : ""}</option>
                <option value="moving">changing now</option>
                <option value="trouble">with trouble</option>
                <option value="live">live</option>
              </select>
            </label>
            <p role="status">{found.length === rows.length ? count(rows.length, "app") : `${count(found.length, "app")} of ${rows.length.toLocaleString("en")}`}</p>
          </search>
          {people > 0 && shown !== "person" && (
            <p class="banner warn">
              {count(people, "app waits", "apps wait")} for a person.{" "}
              <button type="button" class="plain" onClick={() => setShown("person")}>
                Show {people === 1 ? "it" : "them"}
              </button>
            </p>
          )}
          {rows.length === 0 && <Nothing namespace={namespace} />}
          {rows.length > 0 && (
            <table class="apps" onKeyDown={(event) => move(event)}>
              <thead>
                <tr>
                  {COLUMNS.map(({ id, label }) =>
                    id ? (
                      <th key={label} scope="col" aria-sort={sort.by === id ? (sort.down ? "descending" : "ascending") : "none"}>
                        <button type="button" class="plain" onClick={() => setSort({ by: id, down: sort.by === id && !sort.down })}>
                          {label}
                          <span aria-hidden="true">{sort.by === id ? (sort.down ? " ↓" : " ↑") : ""}</span>
                        </button>
                      </th>
                    ) : (
                      <th key={label} scope="col">
                        {label}
                      </th>
                    ),
                  )}
                </tr>
              </thead>
              <tbody>
                {page.map((row) => (
                  <AppRow key={`${row.app.namespace}/${row.app.appName}`} row={row} everywhere={!namespace} />
                ))}
              </tbody>
            </table>
          )}
          {found.length === 0 && rows.length > 0 && <p class="quiet">No app matches.</p>}
          {found.length > ROWS && (
            <nav class="pages" aria-label="Pages of apps">
              <button type="button" disabled={first === 0} onClick={() => setFrom(first - ROWS)}>
                Previous
              </button>
              <span>
                {(first + 1).toLocaleString("en")}–{(first + page.length).toLocaleString("en")} of {found.length.toLocaleString("en")}
              </span>
              <button type="button" disabled={first + ROWS >= found.length} onClick={() => setFrom(first + ROWS)}>
                Next
              </button>
            </nav>
          )}
        </>
      )}
      {error && data && (
        <p>
          <button type="button" onClick={again}>
            Try again
          </button>
        </p>
      )}
    </>
  );
}

function order(a: string | number, b: string | number): number {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function AppRow({ row: { app, state, changed, by }, everywhere }: { row: Row; everywhere: boolean }) {
  const { live, warm, upcoming } = app;
  return (
    <tr>
      <th scope="row" data-label="App">
        <a href={link(app.namespace, "apps", app.appName)}>{app.appName}</a>
        {everywhere && <small>{app.namespace}</small>}
      </th>
      <td data-label="State">
        <Badge tone={state.tone}>{state.word}</Badge>
        {app.freezes && <small>frozen</small>}
        {state.more && <small class="cut">{state.more}</small>}
      </td>
      <td data-label="Live">{live ? <b>{live.version}</b> : "–"}</td>
      <td data-label="Coming">
        {upcoming ? (
          <>
            <b>{upcoming.version || "next"}</b> <Pods replicas={upcoming.replicas} />
          </>
        ) : (
          "–"
        )}
      </td>
      <td data-label="Warm">{warm ? <b>{warm.version}</b> : "–"}</td>
      <td data-label="Pods">{live ? <Pods replicas={app.replicas} /> : "–"}</td>
      <td data-label="Hosts">{app.hosts?.length ? app.hosts.map((host) => <span class="host" key={host}>{host}</span>) : "–"}</td>
      <td data-label="Last change">
        <Ago time={changed} />
        {by && <small>by {by}</small>}
      </td>
    </tr>
  );
}

/** Arrow keys walk through the apps. */
function move(event: KeyboardEvent): void {
  const links = rowLinks();
  const at = links.indexOf(document.activeElement as HTMLAnchorElement);
  if (at < 0) return;
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (to !== undefined) step(event, to);
}

function step(event: KeyboardEvent, to: number): void {
  const target = to < 0 ? document.getElementById("filter") : rowLinks()[to];
  if (!target) return;
  event.preventDefault();
  target.focus();
}

function rowLinks(): HTMLAnchorElement[] {
  return [...document.querySelectorAll<HTMLAnchorElement>("table.apps tbody th a")];
}

function Nothing({ namespace }: { namespace: string }) {
  const allowed = !namespace || may(namespace, "descriptors", "create");
  return (
    <section class="empty">
      <h2>Nothing is deployed here yet</h2>
      <p>
        An app begins with a descriptor: which image, how many pods, on which host.{" "}
        {allowed ? "Write the first one here, or send it with the command line." : "You may look at this namespace, and not deploy in it."}
      </p>
      {allowed && (
        <p>
          <button type="button" class="primary" onClick={() => go(namespace || whoami.value?.namespaces[0] || "default", "descriptors", "new")}>
            Write a descriptor
          </button>
        </p>
      )}
      <pre>deployer deploy my-app.json --server {location.href.split(/ui\/?(?:[?#]|$)/)[0]}</pre>
    </section>
  );
}

/** What keeps the namespace from new deployments, and the buttons about it. */
function Freezes({ namespace }: { namespace: string }) {
  const sees = may(namespace, "freezes", "list");
  const { data, again } = useFollowed(
    `freezes ${namespace} ${sees}`,
    async () => (sees ? (await look<Freeze[]>("freezes/", { namespace })).body : []),
    () => 15_000,
  );
  const own = data?.find((freeze) => freeze.source === "request" && freeze.namespace === namespace);
  return (
    <>
      {data?.map((freeze) => (
        <p class="banner warn" key={`${freeze.source} ${freeze.namespace}`}>
          <b>Frozen{freeze.until ? ` until ${exact(freeze.until)}` : ""}.</b> {freeze.reason}
          {freeze.by ? `, put by ${freeze.by}` : ""}{" "}
          {freeze === own && may(namespace, "freezes", "delete") && (
            <button type="button" class="plain" onClick={() => askThaw(namespace, freeze, again)}>
              Lift
            </button>
          )}
        </p>
      ))}
      {data && !own && may(namespace, "freezes", "update") && (
        <p class="tools">
          <button type="button" onClick={() => askFreeze(namespace, again)}>
            Freeze {namespace} …
          </button>
        </p>
      )}
    </>
  );
}
