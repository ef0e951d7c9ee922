// An app: the picture of now, what was done to it, and what can be done.

import { useEffect, useState } from "preact/hooks";
import { call, explain, look, sentence } from "./api";
import { askDecision, askDeploy, askRollback, askUndeploy, goesBackTo, images } from "./actions";
import { Ago, Badge, Columns, Decision, Pods, Trouble, Waiting, now } from "./parts";
import { useFollowed } from "./poll";
import { link, may, route, say } from "./state";
import { DataPlane } from "./dataplane";
import { Differences } from "./differences";
import { exact, outcomeOf, phaseOf, span, stateOf, versionName } from "./words";
import type { App, Deployment, Descriptor, HistoryEntry, Replicas, Version } from "./types";

export function AppView() {
  const { namespace, id: name } = route.value;
  const path = `apps/${encodeURIComponent(name)}`;
  const { data: app, error } = useFollowed(`app ${namespace} ${name}`, async () => (await look<App>(path, { namespace })).body, ({ upcoming }) => (upcoming ? 1000 : 2500));
  const history = useFollowed(`history ${namespace} ${name}`, async () => (await look<HistoryEntry[]>(`${path}/history`, { namespace, limit: "50" })).body, () => 2500);
  if (!app) return error ? <Missing error={error.status === 404 ? `There is no app ${name} in namespace ${namespace}.` : error.message} namespace={namespace} /> : <Waiting what={`app ${name}`} />;
  const state = stateOf(app);
  return (
    <>
      <header class="title">
        <h1>
          {app.appName} <Badge tone={state.tone}>{state.word}</Badge>
        </h1>
        <Buttons app={app} history={history.data ?? []} />
      </header>
      {app.hosts && app.hosts.length > 0 && (
        <p class="quiet">
          Served as{" "}
          {app.hosts.map((host) => (
            <b class="host" key={host}>
              {host}{" "}
            </b>
          ))}
        </p>
      )}
      <Trouble error={error} />
      {app.freezes?.map((freeze) => (
        <p class="banner warn" key={freeze.reason}>
          <b>Frozen{freeze.until ? ` until ${exact(freeze.until)}` : ""}.</b> {freeze.reason}
        </p>
      ))}
      {state.more && state.tone !== "busy" && <p class={`banner ${state.tone}`}>{state.more}</p>}
      <Now app={app} />
      {app.live && <DataPlane key={`${namespace} ${name}`} app={app} />}
      <History app={app} history={history.data} trouble={history.error} />
    </>
  );
}

export function Missing({ error, namespace }: { error: string; namespace: string }) {
  return (
    <section class="empty" role="alert">
      <h1>Not shown</h1>
      <p>{error}</p>
      <p>
        <a href={namespace ? link(namespace) : link()}>Go to the apps</a>
      </p>
    </section>
  );
}

function Buttons({ app, history }: { app: App; history: HistoryEntry[] }) {
  const { namespace, appName, live, upcoming } = app;
  const back = goesBackTo(app, history);
  const deploy = app.descriptors?.length && may(namespace, "deployments", "create");
  const run = (work: () => Promise<void>) => () => void work().catch((error: unknown) => say(explain(error)));
  return (
    <p class="tools">
      {deploy && (
        <button type="button" class="primary" onClick={run(() => deployNewest(app))}>
          Deploy …
        </button>
      )}
      {back && may(namespace, "deployments", "rollback") && (
        <button type="button" onClick={run(() => askRollback(app, back))}>
          Roll back to {back.version} …
        </button>
      )}
      {upcoming && may(namespace, "deployments", "delete") && (
        <button type="button" onClick={() => askUndeploy(namespace, appName, upcoming.deployment, upcoming.version, false)}>
          Cancel …
        </button>
      )}
      {live && may(namespace, "deployments", "delete") && (
        <button type="button" onClick={() => askUndeploy(namespace, appName, live.deployment, live.version, true)}>
          Undeploy …
        </button>
      )}
      {may(namespace, "descriptors", "list") && (
        <a class="button" href={`${link(namespace, "descriptors")}?app=${encodeURIComponent(appName)}`}>
          Descriptors
        </a>
      )}
    </p>
  );
}

async function deployNewest(app: App): Promise<void> {
  const { namespace, appName } = app;
  const newest = [...(app.descriptors ?? [])].sort((a, b) => b.lastModified.localeCompare(a.lastModified))[0]!;
  const { body } = await call<Descriptor>("GET", `descriptors/${newest.id}`, { query: { namespace } });
  askDeploy({
    namespace,
    app: appName,
    descriptor: newest.id,
    version: body.newVersion ?? "#",
    images: images(body),
    ...(app.freezes ? { frozen: app.freezes } : {}),
    mayOverride: may(namespace, "freezes", "override"),
  });
}

/** Old and new version side by side: pods, and where the traffic goes. */
function Now({ app }: { app: App }) {
  const { warm, live, upcoming } = app;
  const replaced = upcoming && ["WATCH", "DRAIN"].includes(upcoming.phase ?? "");
  return (
    <section aria-labelledby="now">
      <h2 id="now">Now</h2>
      <div class="versions">
        {warm && <Card app={app} version={warm} role="Before" replicas={warm.replicas} traffic="No traffic. Its pods still run: going back to it is one switch." />}
        {live ? (
          <Card app={app} version={live} role="Live" replicas={app.replicas} traffic={app.hosts?.length ? `Traffic of ${app.hosts.join(", ")} goes here.` : "The Service of the app selects it."} />
        ) : (
          <div class="card">
            <h3>Nothing is live</h3>
          </div>
        )}
        {upcoming && !replaced && <Card app={app} version={upcoming} role="Coming" replicas={upcoming.replicas} traffic={trafficOf(upcoming)} />}
      </div>
      {(app.queue?.length ?? 0) > 1 && <p class="quiet">Behind it: {app.queue!.slice(1).map(({ version }) => version || "the next version").join(", ")}.</p>}
      {app.previewHosts && app.previewHosts.length > 0 && <p class="quiet">Preview: {app.previewHosts.join(", ")}</p>}
    </section>
  );
}

function trafficOf({ phase, step = "" }: Version): string {
  if (phase === "UNDO") return "It is being undone.";
  const moves = step.startsWith("switch") || step.startsWith("gate:afterSwitch") || (phase === "CONFIRM" && !step.startsWith("gate:beforeSwitch"));
  return moves ? "Traffic is moving here." : "No traffic yet.";
}

function Card({ app, version, role, replicas, traffic }: { app: App; version: Version; role: string; replicas: Replicas | undefined; traffic: string }) {
  const gate = version.waitsForApproval;
  const decide = (approve: boolean) => () => askDecision(app.namespace, app.appName, version.deployment, version.version, { name: gate! }, approve);
  return (
    <div class={`card ${role.toLowerCase()}`}>
      <p class="role">{role}</p>
      <h3>
        <a href={link(app.namespace, "deployments", version.deployment)}>{version.version ? `Version ${version.version}` : "Next version"}</a>
      </h3>
      <p>
        <Pods replicas={replicas} />
      </p>
      <p>{traffic}</p>
      {version.phase && role === "Coming" && <p>{phaseOf(version.phase, version.step)}{version.waitingFor ? `: waits for ${version.waitingFor}` : ""}</p>}
      {version.deadline && role !== "Live" && <Left until={version.deadline} what={role === "Before" ? "Kept for" : ""} />}
      {version.held && <p class="trouble">{version.held}</p>}
      <p class="quiet">
        {{ Before: "Replaced ", Live: "Went live ", Coming: "Requested " }[role]}
        <Ago time={version.since} />
        {version.by && ` by ${version.by}`}
      </p>
      {gate && may(app.namespace, "deployments", "approve") && (
        <Decision ask={decide} />
      )}
    </div>
  );
}

/** How long something may still take. */
export function Left({ until, what = "" }: { until: string; what?: string }) {
  const left = (Date.parse(until) - now.value) / 1000;
  return (
    <p class="quiet">
      <time dateTime={until} title={exact(until)}>
        {left > 0 ? `${what ? `${what} at` : "At"} most ${span(Math.ceil(left))} more` : "Its time is up"}
      </time>
    </p>
  );
}

function History({ app, history, trouble }: { app: App; history: HistoryEntry[] | undefined; trouble: Parameters<typeof Trouble>[0]["error"] }) {
  if (!history) return <Trouble error={trouble} />;
  return (
    <section aria-labelledby="history">
      <h2 id="history">History</h2>
      {history.length === 0 && <p class="quiet">Nothing was done to it yet.</p>}
      {history.length > 0 && (
        <table class="history">
          <Columns labels={["Version", "What", "How it ended", "Who", "When", "Took"]} />
          <tbody>
            {history.map((entry, index) => {
              const outcome = outcomeOf(entry.outcome);
              return (
                <tr key={`${entry.deployment} ${entry.what} ${entry.asked} ${index}`}>
                  <th scope="row" data-label="Version">
                    <a href={link(app.namespace, "deployments", entry.deployment)}>{entry.version || "not decided"}</a>
                  </th>
                  <td data-label="What">{entry.what}</td>
                  <td data-label="How it ended">
                    <Badge tone={outcome.tone}>{outcome.word}</Badge>
                    {entry.failure && (
                      <small class="cut" title={entry.failure.message}>
                        {sentence(entry.failure.message)}
                      </small>
                    )}
                    {entry.cause && <small class="cut">{sentence(entry.cause)}</small>}
                  </td>
                  <td data-label="Who">{entry.by ?? (entry.cause ? "the Deployer" : "–")}</td>
                  <td data-label="When">
                    <Ago time={entry.asked} />
                  </td>
                  <td data-label="Took">{entry.seconds === undefined ? "–" : span(entry.seconds)}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      {may(app.namespace, "descriptors", "get") && <Compare app={app} history={history} />}
    </section>
  );
}

/** What differs between the descriptors of any two versions. */
function Compare({ app, history }: { app: App; history: HistoryEntry[] }) {
  const versions = [...new Map(history.filter(({ version }) => version).map(({ deployment, version }) => [deployment, version])).entries()];
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  const [pair, setPair] = useState<{ from: Deployment; to: Deployment } | undefined>(undefined);
  const [failed, setFailed] = useState("");
  const older = from || versions[1]?.[0] || "";
  const newer = to || versions[0]?.[0] || "";
  useEffect(() => setPair(undefined), [older, newer]);
  if (versions.length < 2) return null;
  const compare = async (): Promise<void> => {
    setFailed("");
    try {
      const get = async (id: string) => (await look<Deployment>(`deployments/${id}`, { namespace: app.namespace })).body;
      const [first, second] = await Promise.all([get(older), get(newer)]);
      setPair({ from: first, to: second });
    } catch (error) {
      setFailed(explain(error));
    }
  };
  const choice = (label: string, value: string, set: (id: string) => void) => (
    <label>
      {label}{" "}
      <select value={value} onChange={(event) => set(event.currentTarget.value)}>
        {versions.map(([id, version]) => (
          <option key={id} value={id}>
            {version} ({id.slice(0, 8)})
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <section aria-labelledby="compare">
      <h3 id="compare">What changed between two versions</h3>
      <p class="filters">
        {choice("From", older, setFrom)} {choice("to", newer, setTo)}{" "}
        <button type="button" onClick={() => void compare()}>
          Compare
        </button>
      </p>
      {failed && <p class="trouble">{failed}</p>}
      {pair && (
        <>
          {images(pair.from.descriptor) !== images(pair.to.descriptor) && (
            <p>
              Image: <code>{images(pair.from.descriptor)}</code> became <code>{images(pair.to.descriptor)}</code>
            </p>
          )}
          <Differences from={pair.from.descriptor} to={pair.to.descriptor} names={[versionName(pair.from.version), versionName(pair.to.version)]} />
        </>
      )}
    </section>
  );
}
