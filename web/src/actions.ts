// What can be done, each with the one question that is asked before. Requests that make something new carry a key, so
// that sending one again does nothing twice.

import { call } from "./api";
import { ask, go, say } from "./state";
import { exact, versionName } from "./words";
import type { App, Deployment, Descriptor, Freeze, Gate, HistoryEntry } from "./types";

function once(): Record<string, string> {
  // Not randomUUID, which browsers have on TLS and loopback only.
  return { "Idempotency-Key": [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
}

function images(descriptor: Descriptor | undefined): string {
  return (descriptor?.podspec?.containers ?? []).map(({ image }) => image).filter(Boolean).join(", ");
}

function place(app: string, namespace: string): string {
  return `app ${app} in namespace ${namespace}`;
}

export interface Deployed {
  namespace: string;
  app: string;
  descriptor: string;
  version: string;
  images?: string;
  frozen?: Freeze[];
  mayOverride?: boolean;
}

function frozenField(frozen: Freeze[] | undefined, mayOverride: boolean | undefined) {
  return frozen?.length && mayOverride
    ? [{ name: "override", label: "Why it is deployed in spite of the freeze", required: true, most: 500, hint: `The namespace is frozen: ${frozen[0]!.reason}. What you write is kept with the deployment.` }]
    : [];
}

export function askDeploy(what: Deployed): void {
  const version = what.version === "#" ? "the next free version" : `version ${what.version}`;
  ask({
    title: `Deploy ${what.app}?`,
    text: `This deploys ${version} of ${place(what.app, what.namespace)}. Traffic moves to it once it is ready and healthy.`,
    more: what.images ? [`Image: ${what.images}`] : [],
    action: "Deploy",
    fields: frozenField(what.frozen, what.mayOverride),
    run: async ({ override }) => {
      const query = { namespace: what.namespace, descriptorId: what.descriptor, ...(override ? { override } : {}) };
      const { body } = await call<Deployment>("POST", "deployments/", { query, headers: once() });
      say(`The deployment of ${what.app} has been accepted.`);
      go(what.namespace, "deployments", body.id);
    },
  });
}

/** `entry`: what it goes back to, which the question names and the request asks for. */
export async function askRollback(app: App, entry: { deployment: string; version: string }): Promise<void> {
  const { namespace, appName } = app;
  const warm = app.warm?.deployment === entry.deployment;
  const { body: target } = await call<Deployment>("GET", `deployments/${entry.deployment}`, { query: { namespace } });
  const image = images(target.descriptor);
  ask({
    title: `Roll back ${appName}?`,
    text: `${place(appName, namespace).replace(/^app/, "App")} goes back from ${versionName(app.live?.version)} to version ${entry.version}.`,
    more: [
      ...(image ? [`Image: ${image}`] : []),
      warm ? "Its pods still run, so this is one switch of the traffic." : "Its pods are gone, so it is deployed once more, as it was.",
      ...(app.upcoming ? [`The deployment of ${versionName(app.upcoming.version)}, which is under way, is cancelled.`] : []),
    ],
    action: `Roll back to version ${entry.version}`,
    dangerous: true,
    run: async () => {
      const query = { namespace, appname: appName, to: entry.deployment };
      const { body } = await call<Deployment>("POST", "rollbacks/", { query, headers: once() });
      say(`The rollback of ${appName} to version ${entry.version} has been accepted.`);
      go(namespace, "deployments", body.id);
    },
  });
}

/** What a rollback would return to when nobody names a version: the warm one, else the last one that was replaced. */
export function goesBackTo(app: App, history: HistoryEntry[]): { deployment: string; version: string } | undefined {
  if (!app.live) return undefined;
  if (app.warm) return app.warm;
  const gone = new Set(history.filter(({ failure }) => failure).map(({ deployment }) => deployment));
  const live = ["deployed", "upgraded", "rolledback", "replaced"];
  return history.find((entry) => entry.what !== "undeployment" && entry.deployment !== app.live?.deployment && live.includes(entry.outcome ?? "") && !gone.has(entry.deployment));
}

export function askUndeploy(namespace: string, app: string, deployment: string, version: string, live: boolean): void {
  ask({
    title: live ? `Undeploy ${app}?` : `Cancel the deployment of ${app}?`,
    text: live
      ? `${place(app, namespace).replace(/^app/, "App")}, ${versionName(version)}, is removed: its route, its Services and its pods. Users get errors from then on.`
      : `The deployment of ${versionName(version)} of ${place(app, namespace)} is cancelled and undone. What is live stays live.`,
    action: live ? `Undeploy ${app}` : "Cancel the deployment",
    dangerous: true,
    run: async () => {
      await call("DELETE", `deployments/${deployment}/`, { query: { namespace } });
      say(live ? `${app} is being undeployed.` : `The deployment of ${app} is being cancelled.`);
    },
  });
}

export function askDecision(namespace: string, app: string, deployment: string, version: string, gate: Pick<Gate, "name"> & Partial<Gate>, approve: boolean): void {
  ask({
    title: approve ? `Approve ${gate.name}?` : `Reject ${gate.name}?`,
    text: approve
      ? `The deployment of ${versionName(version)} of ${place(app, namespace)} goes on past gate ${gate.name}.`
      : `The deployment of ${versionName(version)} of ${place(app, namespace)} fails at gate ${gate.name}, and is undone.`,
    action: approve ? "Approve" : "Reject",
    dangerous: !approve,
    fields: [{ name: "comment", label: "Comment", hint: "Kept and shown with your decision." }],
    run: async ({ comment }) => {
      const body = { approve, gate: gate.name, ...(comment ? { comment } : {}), ...(gate.point ? { point: gate.point, forced: gate.forced } : {}) };
      await call("POST", `deployments/${deployment}/approval/`, { query: { namespace }, body });
      say(approve ? `Gate ${gate.name} is approved.` : `Gate ${gate.name} is rejected.`);
    },
  });
}

export function askFreeze(namespace: string, done: () => void): void {
  ask({
    title: `Freeze ${namespace}?`,
    text: `Nothing new can be deployed in namespace ${namespace} until the freeze is lifted or ends. Rollbacks and what is under way go on.`,
    action: `Freeze ${namespace}`,
    fields: [
      { name: "reason", label: "Reason", required: true, most: 500, hint: "Everybody who tries to deploy sees it." },
      { name: "until", label: "Until", type: "datetime-local", hint: "In your time zone. Empty: until somebody lifts it." },
    ],
    run: async ({ reason, until }) => {
      const body = { reason, ...(until ? { until: new Date(until).toISOString() } : {}) };
      await call("PUT", `freezes/${namespace}/`, { query: { namespace }, body });
      say(`Namespace ${namespace} is frozen.`);
      done();
    },
  });
}

export function askThaw(namespace: string, freeze: Freeze, done: () => void): void {
  ask({
    title: `Lift the freeze of ${namespace}?`,
    text: `New versions can be deployed in namespace ${namespace} again. The freeze says: ${freeze.reason}${freeze.until ? ` (until ${exact(freeze.until)})` : ""}.`,
    action: "Lift the freeze",
    run: async () => {
      await call("DELETE", `freezes/${namespace}/`, { query: { namespace } });
      say(`The freeze of namespace ${namespace} is lifted.`);
      done();
    },
  });
}

export function askDelete(descriptor: Descriptor, done: () => void): void {
  const { id, namespace, appName } = descriptor;
  ask({
    title: "Delete this descriptor?",
    text: `The descriptor of ${place(appName, namespace)} is deleted. What was deployed from it stays as it is.`,
    action: "Delete the descriptor",
    dangerous: true,
    run: async () => {
      await call("DELETE", `descriptors/${id}/`, { query: { namespace } });
      say(`The descriptor of ${appName} is deleted.`);
      done();
    },
  });
}

export { images };
