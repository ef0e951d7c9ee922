// The one store: where we are, who we are, what we may do, and what the page has to say or to ask.

import { computed, effect, signal } from "@preact/signals";
import { call, look, token } from "./api";
import type { Start, Whoami } from "./types";

// --- where we are: everything is in the hash, so that every view is a link -----------------------------------------

export interface Route {
  namespace: string;
  view: "apps" | "app" | "deployment" | "descriptors" | "descriptor";
  id: string;
  query: URLSearchParams;
}

function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [namespace = "", kind = "", id = ""] = path.split("/").map(plain);
  const view = kind === "apps" && id ? "app" : kind === "deployments" && id ? "deployment" : kind === "descriptors" ? (id ? "descriptor" : "descriptors") : "apps";
  return { namespace, view, id, query: new URLSearchParams(query) };
}

function plain(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = signal(parse(location.hash));
addEventListener("hashchange", () => {
  route.value = parse(location.hash);
  scrollTo(0, 0);
});

export function link(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export function go(...parts: string[]): void {
  location.hash = link(...parts);
}

// --- who we are -----------------------------------------------------------------------------------------------------

export const start = signal<Start | undefined>(undefined);
export const whoami = signal<Whoami | undefined>(undefined);
const rights = signal<Record<string, Record<string, string[]>>>({});

export async function learnStart(): Promise<void> {
  start.value = (await call<Start>("GET", "")).body;
}

/** Learn anew who we are, and what we may do in the namespace that is shown. */
export async function learnWhoami(): Promise<void> {
  const namespace = route.peek().namespace;
  const { body } = await look<Whoami>("whoami", namespace ? { namespace } : {});
  whoami.value = body;
  if (body.namespace && body.may) rights.value = { ...rights.peek(), [body.namespace]: body.may };
}

/** May we do that there? While the service has not said, no. */
export function may(namespace: string, resource: string, verb: string): boolean {
  return rights.value[namespace]?.[resource]?.includes(verb) ?? false;
}

export const loggedIn = computed(() => start.value?.authentication.method === "none" || token.value !== "");
effect(() => {
  if (!token.value) rights.value = {};
});

// --- what the page says and asks ------------------------------------------------------------------------------------

/** Said once, and read out: what was done. */
export const notice = signal("");

let silence = 0;
export function say(text: string): void {
  notice.value = text;
  clearTimeout(silence);
  silence = window.setTimeout(() => (notice.value = ""), 8000);
}

export interface Field {
  name: string;
  label: string;
  hint?: string;
  required?: boolean;
  most?: number;
  type?: "text" | "datetime-local";
  options?: { value: string; label: string }[];
}

export interface Question {
  title: string;
  /** What will happen, naming app, namespace and version. */
  text: string;
  more?: string[];
  action: string;
  dangerous?: boolean;
  fields?: Field[];
  run: (values: Record<string, string>) => Promise<void>;
}

export const question = signal<Question | undefined>(undefined);

/** Ask once; what goes wrong is shown in the question, which then stays with what was typed. */
export function ask(asked: Question): void {
  question.value = asked;
}

/** What was typed and is not stored yet, by descriptor: it survives leaving the view, and logging in again. */
export const drafts = signal<Record<string, { text: string; format: "json" | "yaml"; tag: string }>>({});
addEventListener("beforeunload", (event) => {
  if (Object.keys(drafts.peek()).length) event.preventDefault();
});
