// Which address of the data plane answers with which version of an app. Asking costs the ingress controller a request
// for each address, so it is done when somebody looks or says so, and again and again only while something moves.

import { useEffect, useRef } from "preact/hooks";
import { look, sentence } from "./api";
import { Ago, Badge, Columns, Trouble, Waiting } from "./parts";
import { useFollowed } from "./poll";
import { link } from "./state";
import { count, span } from "./words";
import type { AddressAnswer, App, RouteAnswers } from "./types";

const EVERY = 3000; // milliseconds between two questions while a deployment is running

export function DataPlane({ app }: { app: App }) {
  const { namespace, appName, live, upcoming } = app;
  const path = `apps/${encodeURIComponent(appName)}/dataplane`;
  const asked = useFollowed(`data plane ${namespace} ${appName}`, async () => (await look<RouteAnswers>(path, { namespace })).body, () => Infinity);
  const moves = upcoming !== undefined && upcoming.phase !== "QUEUED" && !upcoming.waitsForApproval && !upcoming.held;
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) asked.again();
    first.current = false;
    if (!moves) return;
    const timer = setInterval(asked.again, EVERY);
    return () => clearInterval(timer);
  }, [moves, live?.deployment, upcoming?.step]);
  const { data, error } = asked;
  return (
    <section aria-labelledby="data-plane">
      <div class="title">
        <h2 id="data-plane">Data plane</h2>
        <button type="button" onClick={asked.again}>
          Ask again
        </button>
      </div>
      <Trouble error={error} />
      {!data && !error && <Waiting what="what the data plane answers" />}
      {data && <Answers app={app} data={data} />}
    </section>
  );
}

function Answers({ app, data }: { app: App; data: RouteAnswers }) {
  const { addresses, askedAt, host, path, leftOut, unknown } = data;
  if (!addresses.length) return <p class="quiet">{sentence(unknown ?? "there are no addresses")}</p>;
  return (
    <>
      <p role="status">{summary(addresses)}</p>
      <table>
        <Columns labels={["Address", "Answers with", "HTTP", "Took"]} />
        <tbody>
          {addresses.map((answer) => (
            <tr key={answer.address}>
              <th scope="row" data-label="Address">
                {answer.address}
                {answer.tls && <small>TLS</small>}
              </th>
              <td data-label="Answers with">
                <Who app={app} answer={answer} />
              </td>
              <td data-label="HTTP">{answer.status ?? "–"}</td>
              <td data-label="Took">{span(answer.milliseconds / 1000)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="quiet">
        Asked <Ago time={askedAt} />
        {host && ` for ${host}${path ?? ""}`}.{leftOut ? ` ${count(leftOut, "more address was", "more addresses were")} not asked.` : ""}
      </p>
    </>
  );
}

function Who({ app, answer }: { app: App; answer: AddressAnswer }) {
  const { deployment, version, live, status, unknown } = answer;
  if (version === undefined)
    return (
      <span>
        <Badge tone={status ? "idle" : "bad"}>{status ? "Not known" : "No answer"}</Badge>
        {unknown && <small>{sentence(unknown)}</small>}
      </span>
    );
  const name = `Version ${version}`;
  const comes = deployment !== undefined && deployment === app.upcoming?.deployment;
  return (
    <span>
      {deployment ? <a href={link(app.namespace, "deployments", deployment)}>{name}</a> : name} <Badge tone={live ? "good" : comes ? "busy" : "warn"}>{live ? "Live" : comes ? "Coming" : "Not the live one"}</Badge>
    </span>
  );
}

/** In a sentence, which is read out when it changes. */
function summary(addresses: AddressAnswer[]): string {
  const all = addresses.length;
  const right = addresses.filter(({ live }) => live).length;
  if (right === all) return all === 1 ? "The one address answers with the live version." : `${all === 2 ? "Both" : `All ${all}`} addresses answer with the live version.`;
  const silent = addresses.filter(({ status }) => !status).length;
  const others = addresses.filter(({ live }) => live === false).length;
  const untold = all - right - silent - others;
  const parts = [`${right ? `${right} of ${all} addresses` : "No address"} ${right > 1 ? "answer" : "answers"} with the live version`];
  if (others) parts.push(`${others} with another one`);
  if (untold) parts.push(`${untold} without saying which version it is`);
  if (silent) parts.push(`${silent} not at all`);
  return `${parts.join(", ")}.`;
}
