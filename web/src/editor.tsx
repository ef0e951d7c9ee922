// Writing a descriptor in JSON or YAML: what is wrong stands beside the line that it is about, as one types.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { LineCounter, isNode, parseDocument, stringify, type Document } from "yaml";
import { ApiError, call, explain, look, sentence } from "./api";
import { askDeploy, images } from "./actions";
import { Differences } from "./differences";
import { Missing } from "./app";
import { Waiting } from "./parts";
import { drafts, go, link, may, route, say } from "./state";
import type { Deployment, Descriptor, Validation } from "./types";

const PAUSE = 500; // milliseconds after the last key

type Format = "json" | "yaml";

interface Finding {
  line: number;
  path: string;
  message: string;
  grave: boolean;
}

const NEW = (namespace: string): Descriptor => ({
  namespace,
  appName: "my-app",
  newVersion: "#",
  replicas: 2,
  podspec: { containers: [{ name: "web", image: "registry.example.com/my-app:1", ports: [{ containerPort: 8080 }] }] },
});

function written(value: unknown, format: Format): string {
  return format === "json" ? `${JSON.stringify(value, null, 2)}\n` : stringify(value, { lineWidth: 0 });
}

interface Read {
  value: unknown;
  findings: Finding[];
  lineOf: (path: string) => number;
}

/** Reads what was typed. JSON is YAML, too, which also knows where each field stands. */
function read(text: string, format: Format): Read {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const findings = document.errors.map(({ message, pos }): Finding => ({ line: lines.linePos(pos[0]).line, path: "", message: sentence(message), grave: true }));
  let value: unknown;
  if (format === "json") {
    try {
      value = JSON.parse(text);
    } catch (error) {
      if (!findings.length) findings.push({ line: 1, path: "", message: `This is not JSON: ${explain(error)}.`, grave: true });
    }
  } else if (!findings.length) {
    try {
      value = document.toJS({ maxAliasCount: 100 });
    } catch (error) {
      findings.push({ line: 1, path: "", message: sentence(explain(error)), grave: true });
    }
  }
  if (!findings.length && (typeof value !== "object" || value === null || Array.isArray(value))) findings.push({ line: 1, path: "", message: "A descriptor is an object with fields.", grave: true });
  return { value, findings, lineOf: (path) => lineOf(document, lines, path) };
}

/** The line of a field such as `podspec.containers[0].image`, or of what comes closest to it. */
function lineOf(document: Document, lines: LineCounter, path: string): number {
  const keys = [...path.matchAll(/\[(\d+)\]|([^.[\]]+)/g)].map(([, index, name]) => (index === undefined ? name! : Number(index)));
  for (; keys.length; keys.pop()) {
    const parent = document.getIn(keys.slice(0, -1), true) as { items?: { key?: unknown }[] } | undefined;
    const pair = parent?.items?.find(({ key }) => isNode(key) && String(key) === String(keys.at(-1)));
    const node = pair?.key ?? document.getIn(keys, true);
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
  }
  return 1;
}

export default function Editor() {
  const { namespace, id } = route.value;
  const key = `${namespace}/${id}`;
  const [failed, setFailed] = useState("");
  const [stored, setStored] = useState<{ text: string; tag: string; descriptor: Descriptor } | undefined>(undefined);
  const draft = drafts.value[key];

  useEffect(() => {
    let over = false;
    if (id === "new") {
      const descriptor = NEW(namespace);
      setStored({ text: written(descriptor, "json"), tag: "", descriptor });
      return;
    }
    look<Descriptor>(`descriptors/${encodeURIComponent(id)}`, { namespace }).then(
      ({ body, headers }) => {
        const { id: _, created: __, lastModified: ___, ...fields } = body as Descriptor & { created?: string };
        if (!over) setStored({ text: written(fields, "json"), tag: headers.get("ETag") ?? "", descriptor: body });
      },
      (error: unknown) => over || setFailed(explain(error)),
    );
    return () => void (over = true);
  }, [key]);

  if (failed) return <Missing error={failed} namespace={namespace} />;
  if (!stored) return <Waiting what="the descriptor" />;
  const format: Format = draft?.format ?? "json";
  const text = draft?.text ?? stored.text;
  const edit = (changed: string, as: Format): void => {
    drafts.value = { ...drafts.peek(), [key]: { text: changed, format: as, tag: draft?.tag ?? stored.tag } };
  };
  const forget = (): void => {
    const { [key]: _, ...rest } = drafts.peek();
    drafts.value = rest;
  };
  return <Form key={key} text={text} format={format} edited={draft !== undefined} tag={draft?.tag ?? stored.tag} edit={edit} forget={forget} />;
}

interface FormProps {
  text: string;
  format: Format;
  edited: boolean;
  tag: string;
  edit: (text: string, format: Format) => void;
  forget: () => void;
}

function Form({ text, format, edited, tag, edit, forget }: FormProps) {
  const { namespace, id } = route.value;
  const area = useRef<HTMLTextAreaElement>(null);
  const gutter = useRef<HTMLDivElement>(null);
  const made = useMemo(() => read(text, format), [text, format]);
  const [checked, setChecked] = useState<{ text: string; findings: Finding[]; normal?: Descriptor; said: string }>({ text: "", findings: [], said: "" });
  const [live, setLive] = useState<Deployment | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const value = made.value as Descriptor | undefined;
  const name = typeof value?.appName === "string" ? value.appName : "";

  useEffect(() => {
    if (made.findings.length) return;
    let over = false;
    const timer = setTimeout(() => {
      void validate(namespace, made).then((found) => over || setChecked({ text, ...found }));
    }, PAUSE);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [text, format]);

  useEffect(() => {
    let over = false;
    setLive(undefined);
    const timer = setTimeout(() => void liveOf(namespace, name).then((found) => over || setLive(found)), PAUSE);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [namespace, name]);

  const current = checked.text === text && !made.findings.length;
  const findings = made.findings.length ? made.findings : current ? checked.findings : [];
  const grave = findings.some((finding) => finding.grave);
  const count = text.split("\n").length;
  const marks = new Map(findings.map((finding) => [finding.line, finding.grave]));

  const convert = (to: Format): void => {
    if (!made.findings.length && to !== format) edit(written(made.value, to), to);
  };
  const show = (line: number): void => {
    const begin = text.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    const end = text.indexOf("\n", begin);
    area.current?.focus();
    area.current?.setSelectionRange(begin, end < 0 ? text.length : end);
    if (area.current) area.current.scrollTop = (line - 4) * 20;
  };
  const save = async (): Promise<string> => {
    if (id !== "new") {
      await call("PUT", `descriptors/${encodeURIComponent(id)}/`, { query: { namespace }, body: JSON.stringify(value), headers: tag ? { "If-Match": tag } : {} });
      forget();
      return id;
    }
    const where = String(value?.namespace ?? namespace);
    const { body } = await call<Descriptor>("POST", "descriptors/", { query: { namespace: where }, body: JSON.stringify(value) });
    forget();
    return body.id!;
  };
  const run = async (then: (id: string) => void): Promise<void> => {
    setBusy(true);
    setFailed("");
    try {
      then(edited || id === "new" ? await save() : id);
    } catch (error) {
      setFailed(error instanceof ApiError && error.status === 412 ? "Somebody has changed this descriptor since you opened it. Copy what you typed, and open it anew." : explain(error));
    }
    setBusy(false);
  };
  const mayWrite = may(namespace, "descriptors", id === "new" ? "create" : "update");
  const deploy = (saved: string): void => {
    const where = String(value?.namespace ?? namespace);
    if (id === "new") go(where, "descriptors", saved);
    askDeploy({ namespace: where, app: name, descriptor: saved, version: String(value?.newVersion ?? "#"), images: images(value) });
  };
  return (
    <>
      <nav aria-label="Where this is" class="quiet">
        <a href={link(namespace, "descriptors")}>Descriptors</a> in <a href={link(namespace)}>{namespace}</a>
      </nav>
      <header class="title">
        <h1>{id === "new" ? "New descriptor" : name || "Descriptor"}</h1>
        <p class="tools">
          <label>
            As{" "}
            <select value={format} onChange={(event) => convert(event.currentTarget.value as Format)} disabled={made.findings.length > 0}>
              <option value="json">JSON</option>
              <option value="yaml">YAML</option>
            </select>
          </label>
          {edited && (
            <button type="button" onClick={forget}>
              Undo all changes
            </button>
          )}
          {mayWrite && (
            <button type="button" disabled={busy || grave || (!edited && id !== "new")} onClick={() => void run((saved) => (say("The descriptor is saved."), id === "new" && go(String(value?.namespace ?? namespace), "descriptors", saved)))}>
              Save
            </button>
          )}
          {may(namespace, "deployments", "create") && (mayWrite || !edited) && (
            <button type="button" class="primary" disabled={busy || grave} onClick={() => void run(deploy)}>
              {edited || id === "new" ? "Save and deploy …" : "Deploy this …"}
            </button>
          )}
        </p>
      </header>
      {failed && (
        <p class="trouble" role="alert">
          {failed}
        </p>
      )}
      <div class="editor">
        <div class="text">
          <div class="gutter" ref={gutter} aria-hidden="true">
            {Array.from({ length: count }, (_, index) => {
              const mark = marks.get(index + 1);
              return (
                <div key={index} class={mark === undefined ? "" : mark ? "bad" : "warn"}>
                  {index + 1}
                </div>
              );
            })}
          </div>
          <textarea
            ref={area}
            aria-label={`Descriptor in ${format.toUpperCase()}`}
            aria-describedby="findings"
            aria-invalid={grave}
            spellcheck={false}
            wrap="off"
            readOnly={!mayWrite}
            value={text}
            rows={Math.min(40, Math.max(16, count + 1))}
            onInput={(event) => edit(event.currentTarget.value, format)}
            onScroll={(event) => gutter.current && (gutter.current.scrollTop = event.currentTarget.scrollTop)}
          />
        </div>
        <div class="findings" id="findings" role="status">
          {findings.map((finding, index) => (
            <button type="button" key={index} class={`finding ${finding.grave ? "bad" : "warn"}`} onClick={() => show(finding.line)}>
              <b>
                Line {finding.line}
                {finding.path && `, ${finding.path}`}
              </b>
              <span>{finding.message}</span>
            </button>
          ))}
          {!findings.length && <p class="quiet">{current ? checked.said : "Checking …"}</p>}
        </div>
      </div>
      {live?.descriptor && current && checked.normal && (
        <section aria-labelledby="live-diff">
          <h2 id="live-diff">What changes compared to what is live</h2>
          <Differences from={live.descriptor} to={checked.normal} names={[`live, version ${live.version}`, "this descriptor"]} />
        </section>
      )}
      {!live && name && current && <p class="quiet">Nothing of {name} is live, so there is nothing to compare with.</p>}
    </>
  );
}

async function validate(namespace: string, { value, lineOf }: Read): Promise<{ findings: Finding[]; normal?: Descriptor; said: string }> {
  const finding = (grave: boolean) => ({ path, message }: { path: string; message: string }): Finding => ({ line: lineOf(path), path, message: sentence(message), grave });
  try {
    const { body } = await call<Descriptor & { validation?: Validation }>("POST", "descriptors/validate", { query: { namespace: String((value as Descriptor).namespace ?? namespace) }, body: JSON.stringify(value) });
    const { validation, ...normal } = body;
    const remarks = (validation?.remarks ?? []).map(finding(false));
    const warnings = (validation?.warnings ?? []).map((message) => finding(false)({ path: "", message }));
    const unchecked = validation?.notChecked.map(({ what, reason }) => `${what}: ${reason}`) ?? [];
    return { findings: [...remarks, ...warnings], normal, said: unchecked.length ? `No mistakes found. Not checked: ${unchecked.join("; ")}.` : "No mistakes found." };
  } catch (error) {
    const errors = error instanceof ApiError ? error.problem?.errors : undefined;
    return errors?.length ? { findings: errors.map(finding(true)), said: "" } : { findings: [], said: `It could not be checked: ${explain(error)}` };
  }
}

async function liveOf(namespace: string, name: string): Promise<Deployment | undefined> {
  if (!name) return undefined;
  try {
    const { body } = await call<Deployment[]>("GET", "deployments/", { query: { namespace, appname: name, status: "DEPLOYED", limit: "1" } });
    return body[0];
  } catch {
    return undefined; // there is nothing to be seen of it
  }
}
