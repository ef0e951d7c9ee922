// The page: its frame, and the view that the address names.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { FunctionComponent } from "preact";
import { explain, loginNeeded, lostSince, service, token } from "./api";
import { AppView } from "./app";
import { DeploymentView } from "./deployment";
import { Descriptors } from "./descriptors";
import { Login, returned } from "./login";
import { Overview } from "./overview";
import { Asking, Waiting, now } from "./parts";
import { drafts, go, learnStart, learnWhoami, link, loggedIn, notice, route, start, whoami } from "./state";
import { ago, exact } from "./words";

const REFRESH = 300_000; // milliseconds after which rights and namespaces are looked at again

function Page() {
  const { namespace, view, id } = route.value;
  const [failed, setFailed] = useState("");
  const bearer = token.value;
  useEffect(() => {
    let over = false;
    let timer = 0;
    const learn = async (): Promise<void> => {
      try {
        if (!start.peek()) await learnStart();
        if (loggedIn.peek()) await learnWhoami();
        else loginNeeded.value ||= "Log in to see your apps.";
        if (!over) setFailed("");
      } catch (error) {
        if (!over) setFailed(explain(error));
      }
      if (!over) timer = window.setTimeout(() => void learn(), start.peek() && (whoami.peek() || !loggedIn.peek()) ? REFRESH : 2000);
    };
    void learn();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [namespace, bearer]);
  useEffect(() => {
    document.title = [id && view !== "descriptor" ? id.slice(0, 40) : "", namespace, "Deployer"].filter(Boolean).join(" · ");
    if (document.activeElement === document.body) document.querySelector<HTMLElement>("main")?.focus({ preventScroll: true });
  }, [namespace, view, id]);
  // What a namespace has need not wait until the service has said what we may do there.
  const known = start.value && loggedIn.value && (whoami.value || namespace);
  const trouble = failed && !lostSince.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.querySelector<HTMLElement>("main")?.focus())}>
        Skip to the content
      </a>
      <Top />
      <Lost />
      <main id="main" tabIndex={-1}>
        {trouble && <p class="trouble" role="alert">{failed}</p>}
        {known ? <View /> : trouble || loginNeeded.value ? null : <Waiting what="the page" />}
      </main>
      <footer class="page">
        <p>
          Deployer {start.value?.version} · <a href={new URL("docs", service).href}>REST API</a> · <a href={new URL("openapi.json", service).href}>OpenAPI</a> · Keys: <kbd>/</kbd> filter, <kbd>↑</kbd> <kbd>↓</kbd> walk through apps
        </p>
      </footer>
      <p class={`notice ${notice.value ? "said" : ""}`} role="status">
        {notice.value}
      </p>
      <Asking />
      <Login />
    </>
  );
}

function View() {
  const { view } = route.value;
  if (view === "app") return <AppView />;
  if (view === "deployment") return <DeploymentView />;
  if (view === "descriptors") return <Descriptors />;
  if (view === "descriptor") return <LateEditor />;
  return <Overview />;
}

/** The editor is loaded when it is opened first: most people never do. */
function LateEditor() {
  const [Editor, setEditor] = useState<FunctionComponent | undefined>(undefined);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    import("./editor").then(
      ({ default: loaded }) => setEditor(() => loaded),
      () => setFailed(true),
    );
  }, []);
  if (failed) return <p class="trouble" role="alert">The editor could not be loaded. Reload the page: the service may have been updated.</p>;
  return Editor ? <Editor /> : <Waiting what="the editor" />;
}

function Top() {
  const { namespace, view } = route.value;
  const namespaces = whoami.value?.namespaces ?? [];
  const shown = namespace && !namespaces.includes(namespace) ? [namespace, ...namespaces] : namespaces;
  const here = (is: boolean) => (is ? ({ "aria-current": "page" } as const) : {});
  return (
    <header class="top">
      <a class="brand" href={link()}>
        <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
          <rect x="2" y="4" width="12" height="12" rx="3" class="blue" />
          <rect x="10" y="8" width="12" height="12" rx="3" class="green" />
        </svg>
        Deployer
      </a>
      {loggedIn.value && (
        <nav aria-label="Main">
          <label>
            <span class="hidden">Namespace</span>
            <select value={namespace} onChange={(event) => go(...(event.currentTarget.value ? [event.currentTarget.value] : []))}>
              <option value="">All namespaces</option>
              {shown.map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <a href={namespace ? link(namespace) : link()} {...here(view === "apps")}>
            Apps
          </a>
          {namespace && (
            <a href={link(namespace, "descriptors")} {...here(view === "descriptors")}>
              Descriptors
            </a>
          )}
        </nav>
      )}
      <Me />
    </header>
  );
}

function Me() {
  const me = whoami.value;
  if (!token.value || !me) return null;
  const soon = me.expires && Date.parse(me.expires) - now.value < 120_000;
  return (
    <p class="me">
      {me.name}
      {soon && <small title={exact(me.expires!)}> login ends {ago(me.expires!, now.value)}</small>}{" "}
      {soon && (
        <button type="button" class="plain" onClick={() => (loginNeeded.value = "Your login ends soon. Log in again; nothing that you typed is lost.")}>
          Log in again
        </button>
      )}
      <button
        type="button"
        class="plain"
        onClick={() => {
          drafts.value = {};
          token.value = "";
          whoami.value = undefined;
          loginNeeded.value = "You are logged out.";
        }}
      >
        Log out
      </button>
    </p>
  );
}

function Lost() {
  const since = lostSince.value;
  if (!since) return null;
  return (
    <p class="banner bad lost" role="alert">
      <b>The service does not answer.</b> The last answer came {ago(new Date(since).toISOString(), now.value)}. The page tries again by itself.
    </p>
  );
}

addEventListener("keydown", (event) => {
  const typing = event.target instanceof Element && event.target.closest("input, textarea, select, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const filter = document.getElementById("filter");
  if (!filter) return;
  event.preventDefault();
  filter.focus();
});

if (!returned()) render(<Page />, document.getElementById("page")!);
