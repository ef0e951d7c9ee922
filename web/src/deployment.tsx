// A deployment: how far it is, what it waits for, what became of it, and its log.

import { useEffect, useState } from "preact/hooks";
import { explain, look, sentence } from "./api";
import { askDeploy, askUndeploy, askRollback, images } from "./actions";
import { Left, Missing } from "./app";
import { Gates } from "./gates";
import { Log } from "./log";
import { Ago, Badge, Columns, Copy, Trouble, Waiting, now } from "./parts";
import { useFollowed } from "./poll";
import { link, may, route, say } from "./state";
import { Timeline } from "./timeline";
import { phaseOf, span, statusOf, type Tone } from "./words";
import type { App, Deployment, HealthAnswer, Step } from "./types";

const MARKS: Record<Step["state"], { tone: Tone; word: string }> = {
  pending: { tone: "idle", word: "to come" },
  running: { tone: "busy", word: "running" },
  done: { tone: "good", word: "done" },
  failed: { tone: "bad", word: "failed" },
  cancelled: { tone: "idle", word: "cancelled" },
  undone: { tone: "warn", word: "undone" },
};

function moves({ status, phase }: Deployment): boolean {
  return status === "DEPLOYING" || status === "UNDEPLOYING" || phase !== undefined;
}

export function DeploymentView() {
  const { namespace, id } = route.value;
  const path = `deployments/${encodeURIComponent(id)}`;
  const { data: deployment, error } = useFollowed(`deployment ${namespace} ${id}`, async () => (await look<Deployment>(path, { namespace })).body, (found) => (moves(found) ? 1000 : 5000));
  const name = deployment?.descriptor?.appName ?? deployment?.appName ?? "";
  const { data: app } = useFollowed(`app of ${namespace} ${name}`, async () => (name ? (await look<App>(`apps/${encodeURIComponent(name)}`, { namespace })).body : undefined), () => 3000);
  if (!deployment) return error ? <Missing error={error.status === 404 ? `There is no deployment ${id} in namespace ${namespace}. Its record may have been deleted.` : error.message} namespace={namespace} /> : <Waiting what="the deployment" />;
  const live = app?.live?.deployment === id;
  const status = statusOf(deployment.status);
  const shown = deployment.status === "DEPLOYED" && app && !live ? { word: "Replaced", tone: "idle" as Tone } : status;
  return (
    <>
      <nav aria-label="Where this is" class="quiet">
        <a href={link(namespace, "apps", name)}>{name}</a> in <a href={link(namespace)}>{namespace}</a>
      </nav>
      <header class="title">
        <h1>
          {name} {deployment.version && <>version {deployment.version}</>} <Badge tone={shown.tone}>{shown.word}</Badge>
        </h1>
        <p class="tools">
          <Buttons deployment={deployment} app={app} name={name} live={live} />
        </p>
      </header>
      <p class="quiet">
        Requested <Ago time={deployment.created} />
        {deployment.createdBy && ` by ${deployment.createdBy}`}
        {deployment.undeployedBy && `, ended by ${deployment.undeployedBy}`}
        {deployment.rollbackOf && (
          <>
            , goes back to{" "}
            <a href={link(namespace, "deployments", deployment.rollbackOf)}>an earlier deployment</a>
          </>
        )}
        {images(deployment.descriptor) && (
          <>
            , image <code>{images(deployment.descriptor)}</code>
          </>
        )}
      </p>
      <Trouble error={error} />
      {deployment.freezeOverride && <p class="banner warn">Deployed in spite of a freeze: {deployment.freezeOverride.reason}</p>}
      {deployment.held && (
        <p class="banner bad" role="alert">
          <b>A person has to look.</b> {sentence(deployment.held)}
        </p>
      )}
      {deployment.failure && <Failed deployment={deployment} />}
      {deployment.phase && (
        <p class="banner busy" role="status">
          <b>{phaseOf(deployment.phase, deployment.step)}</b>
          {deployment.waitingFor && `: waits for ${deployment.waitingFor}`}
          {deployment.deadline && <Left until={deployment.deadline} />}
        </p>
      )}
      <Timeline deployment={deployment} before={live && app?.warm ? { version: app.warm.version } : app?.live && !live && deployment.status === "DEPLOYING" ? { version: app.live.version } : undefined} />
      <Gates deployment={deployment} namespace={namespace} app={name} />
      <Steps deployment={deployment} />
      <Health namespace={namespace} id={id} moves={moves(deployment)} />
      <Log key={id} namespace={namespace} id={id} name={`${name}-${deployment.version || id}`} />
    </>
  );
}

function Buttons({ deployment, app, name, live }: { deployment: Deployment; app: App | undefined; name: string; live: boolean }) {
  const { namespace } = route.value;
  const { id, version, status, descriptor } = deployment;
  const wasLive = app?.live && !live && (app.warm?.deployment === id || status === "UNDEPLOYED") && version;
  return (
    <>
      {status === "DEPLOYING" && may(namespace, "deployments", "delete") && (
        <button type="button" onClick={() => askUndeploy(namespace, name, id, version, false)}>
          Cancel …
        </button>
      )}
      {live && may(namespace, "deployments", "delete") && (
        <button type="button" onClick={() => askUndeploy(namespace, name, id, version, true)}>
          Undeploy …
        </button>
      )}
      {app && wasLive && may(namespace, "deployments", "rollback") && (
        <button type="button" onClick={() => void askRollback(app, { deployment: id, version }).catch((error: unknown) => say(explain(error)))}>
          Roll back to this …
        </button>
      )}
      {status === "FAILURE" && descriptor?.id && may(namespace, "deployments", "create") && (
        <button
          type="button"
          onClick={() => askDeploy({ namespace, app: name, descriptor: descriptor.id!, version: descriptor.newVersion ?? "#", ...(app?.freezes ? { frozen: app.freezes } : {}), mayOverride: may(namespace, "freezes", "override") })}
        >
          Deploy again …
        </button>
      )}
      <Copy text={location.href} label="Copy link" />
    </>
  );
}

/** Why it failed, with the last words of the container, which follow in the message's further lines. */
function Failed({ deployment: { failure } }: { deployment: Deployment }) {
  const [first = "", ...rest] = failure!.message.split("\n");
  return (
    <section class="failure" aria-labelledby="failure">
      <h2 id="failure">Why it failed: {failure!.reason}</h2>
      <p>{sentence(first)}</p>
      {failure!.pod && <p class="quiet">Pod {failure!.pod}</p>}
      {rest.length > 0 && <pre tabIndex={0} aria-label="Last words">{rest.join("\n")}</pre>}
      {failure!.hint && (
        <p>
          <b>What to do:</b> {sentence(failure!.hint)}
        </p>
      )}
    </section>
  );
}

function Steps({ deployment: { steps = [], deadline, waitingFor } }: { deployment: Deployment }) {
  if (!steps.length) return null;
  return (
    <section aria-labelledby="steps">
      <h2 id="steps">Steps</h2>
      <table class="steps">
        <Columns labels={["Step", "Part of", "State", "Began", "Took"]} />
        <tbody>
          {steps.map((step, index) => {
            const { tone, word } = MARKS[step.state];
            const runs = step.state === "running";
            const end = step.ended ? Date.parse(step.ended) : runs ? now.value : Number.NaN;
            return (
              <tr key={`${index} ${step.id}`} aria-current={runs ? "step" : undefined}>
                <th scope="row" data-label="Step">
                  {step.id}
                </th>
                <td data-label="Part of">{phaseOf(step.phase, step.id)}</td>
                <td data-label="State">
                  <Badge tone={tone}>{word}</Badge>
                  {runs && waitingFor && <small class="cut">waits for {waitingFor}</small>}
                  {runs && deadline && <Left until={deadline} />}
                </td>
                <td data-label="Began">{step.began ? <Ago time={step.began} /> : "–"}</td>
                <td data-label="Took">{step.began && Number.isFinite(end) ? span(Math.max(0, end - Date.parse(step.began)) / 1000) : "–"}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

function Health({ namespace, id, moves }: { namespace: string; id: string; moves: boolean }) {
  const { data, error } = useFollowed(`health ${namespace} ${id}`, async () => (await look<HealthAnswer[]>(`deployments/${encodeURIComponent(id)}/healthcheckdata`, { namespace })).body, () => (moves ? 2000 : 10_000));
  if (!data?.length) return <Trouble error={error} />;
  return (
    <section aria-labelledby="health">
      <h2 id="health">Health answers</h2>
      <table>
        <Columns labels={["Pod", "Health", "Answer"]} />
        <tbody>
          {data.map((one) => (
            <tr key={one.podName}>
              <th scope="row" data-label="Pod">
                {one.podName}
              </th>
              <td data-label="Health">
                {one.healthy === undefined ? "–" : <Badge tone={one.healthy ? "good" : "bad"}>{one.healthy ? "healthy" : "not healthy"}</Badge>}
                {one.message && <small>{one.message}</small>}
              </td>
              <td data-label="Answer">
                <Body text={one.value} status={one.status} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Body({ text, status }: { text: string; status: number | undefined }) {
  const [pretty, setPretty] = useState(text);
  useEffect(() => {
    try {
      setPretty(JSON.stringify(JSON.parse(text), null, 2));
    } catch {
      setPretty(text);
    }
  }, [text]);
  const summary = `${status ? `HTTP ${status}, ` : ""}${text.length.toLocaleString("en")} characters`;
  return text.length > 200 ? (
    <details>
      <summary>{summary}</summary>
      <pre tabIndex={0} aria-label="Answer">{pretty}</pre>
    </details>
  ) : (
    <code>{text || summary}</code>
  );
}
