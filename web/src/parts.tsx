// Small pieces that several views are put together from.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, explain } from "./api";
import { tells } from "./poll";
import { question, type Field } from "./state";
import { ago, exact, podsOf, type Tone } from "./words";
import type { Replicas } from "./types";

/** The present, which moves every second while the page is looked at. */
export const now = signal(Date.now());
setInterval(() => document.hidden || (now.value = Date.now()), 1000);

/** "3 minutes ago"; the exact time is there for those who point at it. */
export function Ago({ time }: { time: string | undefined }) {
  if (!time) return null;
  return (
    <time dateTime={time} title={exact(time)}>
      {ago(time, now.value)}
    </time>
  );
}

const MARKS: Record<Tone, string> = { good: "✓", busy: "◐", warn: "!", bad: "✕", idle: "–" };

/** A state as a word with a mark, so that colour is never all that tells. */
export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return (
    <span class={`badge ${tone}`}>
      <span aria-hidden="true">{MARKS[tone]}</span> {children}
    </span>
  );
}

/** One dot for each pod, as long as they can be counted at a glance. */
export function Pods({ replicas }: { replicas: Replicas | undefined }) {
  const text = podsOf(replicas);
  if (!text || !replicas) return null;
  const { wanted = 0, ready = 0, unknown } = replicas;
  if (unknown !== undefined) return <span title={unknown}>not known</span>;
  return (
    <span class="pods">
      {Math.max(wanted, ready) <= 12 && (
        <span aria-hidden="true">
          {Array.from({ length: Math.max(wanted, ready) }, (_, index) => (
            <i key={index} class={index < ready ? "pod ready" : "pod"} />
          ))}
        </span>
      )}
      {text} ready
    </span>
  );
}

/** The head of a table. */
export function Columns({ labels }: { labels: string[] }) {
  return (
    <thead>
      <tr>
        {labels.map((label) => (
          <th scope="col" key={label}>
            {label}
          </th>
        ))}
      </tr>
    </thead>
  );
}

/** What a person can say at a gate; `ask` makes the handler that asks once more. */
export function Decision({ ask }: { ask: (approve: boolean) => () => void }) {
  return (
    <p class="tools">
      <button type="button" class="primary" onClick={ask(true)}>
        Approve …
      </button>
      <button type="button" onClick={ask(false)}>
        Reject …
      </button>
    </p>
  );
}

export function Waiting({ what }: { what: string }) {
  return (
    <p class="quiet" role="status">
      Loading {what} …
    </p>
  );
}

/** Why something is not shown; nothing while the banner about the connection says it. */
export function Trouble({ error }: { error: ApiError | undefined }) {
  return tells(error) ? (
    <p class="trouble" role="alert">
      {error.message}
    </p>
  ) : null;
}

export function Copy({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  if (!navigator.clipboard) return null;
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 2000);
  };
  return (
    <button type="button" class="plain" onClick={() => void copy()}>
      {done ? "Copied" : label}
    </button>
  );
}

/** The question that is asked before anything is changed. */
export function Asking() {
  const asked = question.value;
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  useEffect(() => {
    setFailed("");
    setBusy(false);
    if (asked && !dialog.current?.open) dialog.current?.showModal();
  }, [asked]);
  if (!asked) return null;
  const close = (): void => {
    dialog.current?.close();
    question.value = undefined;
  };
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const values: Record<string, string> = {};
    for (const [name, value] of new FormData(event.currentTarget as HTMLFormElement)) values[name] = String(value).trim();
    setBusy(true);
    setFailed("");
    try {
      await asked.run(values);
      if (question.peek() === asked) close();
    } catch (error) {
      setFailed(explain(error));
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} aria-labelledby="question" onClose={() => (question.value = undefined)}>
      <form onSubmit={(event) => void submit(event)}>
        <h2 id="question">{asked.title}</h2>
        <p>{asked.text}</p>
        {asked.more?.map((line) => <p key={line}>{line}</p>)}
        {asked.fields?.map((field) => <Input key={field.name} field={field} />)}
        {failed && (
          <p class="trouble" role="alert">
            {failed}
          </p>
        )}
        <footer>
          <button type="button" onClick={close}>
            Keep things as they are
          </button>
          <button type="submit" class={asked.dangerous ? "danger" : "primary"} disabled={busy}>
            {busy ? "One moment …" : asked.action}
          </button>
        </footer>
      </form>
    </dialog>
  );
}

function Input({ field }: { field: Field }) {
  const id = `field-${field.name}`;
  const hint = field.hint ? { "aria-describedby": `${id}-hint` } : {};
  return (
    <p class="field">
      <label for={id}>{field.label}</label>
      {field.options ? (
        <select id={id} name={field.name} {...hint}>
          {field.options.map(({ value, label }) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </select>
      ) : (
        <input id={id} name={field.name} type={field.type ?? "text"} required={field.required ?? false} maxLength={field.most ?? 1000} autocomplete="off" {...hint} />
      )}
      {field.hint && <small id={`${id}-hint`}>{field.hint}</small>}
    </p>
  );
}
