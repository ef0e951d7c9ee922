// The descriptors of a namespace, and the editor of one.

import { useState } from "preact/hooks";
import { call, lookAtAll, explain } from "./api";
import { askDelete, askDeploy, images } from "./actions";
import { Ago, Columns, Trouble, Waiting } from "./parts";
import { useFollowed } from "./poll";
import { go, link, may, route, say } from "./state";
import { count } from "./words";
import type { App, Descriptor } from "./types";

const ROWS = 100;

export function Descriptors() {
  const { namespace, query } = route.value;
  const only = query.get("app") ?? "";
  const { data, error, again } = useFollowed(`descriptors ${namespace} ${only}`, () => lookAtAll<Descriptor>("descriptors/", { namespace, limit: "500", ...(only ? { appname: only } : {}) }), () => 5000);
  const [filter, setFilter] = useState("");
  const [rows, setRows] = useState(ROWS);
  const wanted = filter.trim().toLowerCase();
  const found = (data ?? []).filter((one) => `${one.appName} ${one.newVersion} ${images(one)}`.toLowerCase().includes(wanted));
  const deploy = async (descriptor: Descriptor): Promise<void> => {
    const { body: app } = await call<App>("GET", `apps/${encodeURIComponent(descriptor.appName)}`, { query: { namespace } });
    askDeploy({
      namespace,
      app: descriptor.appName,
      descriptor: descriptor.id!,
      version: descriptor.newVersion ?? "#",
      images: images(descriptor),
      ...(app.freezes ? { frozen: app.freezes } : {}),
      mayOverride: may(namespace, "freezes", "override"),
    });
  };
  return (
    <>
      <header class="title">
        <h1>{only ? `Descriptors of ${only}` : `Descriptors in ${namespace}`}</h1>
        {may(namespace, "descriptors", "create") && (
          <button type="button" class="primary" onClick={() => go(namespace, "descriptors", "new")}>
            New descriptor
          </button>
        )}
      </header>
      {only && (
        <p>
          <a href={link(namespace, "descriptors")}>All descriptors in {namespace}</a>
        </p>
      )}
      <Trouble error={error} />
      {!data && !error && <Waiting what="descriptors" />}
      {data && (
        <search class="filters">
          <label>
            Filter <input id="filter" type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
          </label>
          <p role="status">{count(found.length, "descriptor")}</p>
        </search>
      )}
      {found.length > 0 && (
        <table>
          <Columns labels={["App", "Version", "Image", "Changed", "Do"]} />
          <tbody>
            {found.slice(0, rows).map((one) => (
              <tr key={one.id}>
                <th scope="row" data-label="App">
                  <a href={link(namespace, "descriptors", one.id!)}>{one.appName}</a>
                </th>
                <td data-label="Version">{one.newVersion === "#" ? "next number" : one.newVersion}</td>
                <td data-label="Image">
                  <code>{images(one)}</code>
                </td>
                <td data-label="Changed">
                  <Ago time={one.lastModified} />
                </td>
                <td data-label="Do" class="tools">
                  {may(namespace, "deployments", "create") && (
                    <button type="button" onClick={() => void deploy(one).catch((failed: unknown) => say(explain(failed)))}>
                      Deploy …
                    </button>
                  )}
                  {may(namespace, "descriptors", "delete") && (
                    <button type="button" onClick={() => askDelete(one, again)}>
                      Delete …
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {found.length > rows && (
        <p>
          <button type="button" onClick={() => setRows(rows + ROWS)}>
            Show {Math.min(ROWS, found.length - rows)} more
          </button>
        </p>
      )}
      {data?.length === 0 && <p class="empty">There are no descriptors here.</p>}
    </>
  );
}
