// The one client of the REST API: addresses relative to the page, the token, problems as sentences, and polling that
// costs a conditional request.

import { signal } from "@preact/signals";
import type { Problem } from "./types";

/** Where the service is: beside `ui/`, whatever prefix a proxy gave it. */
export const service = new URL("..", location.href.split(/[?#]/)[0]);

/** The bearer token. It is kept nowhere else, so that closing the page is logging out. */
export const token = signal("");

/** The service has asked for credentials that it takes: a dialog is open until somebody logs in. */
export const loginNeeded = signal("");

/** When the connection was lost; 0 while requests come through. */
export const lostSince = signal(0);

const PATIENCE = 20_000; // milliseconds that an answer may take

/** The service said no, or nothing. `message` is a sentence for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly problem?: Problem,
  ) {
    super(message);
  }
}

export interface Answer<T> {
  status: number;
  headers: Headers;
  body: T;
}

export interface Request {
  query?: Record<string, string>;
  body?: unknown;
  headers?: Record<string, string>;
  text?: boolean;
}

export function address(path: string, query: Record<string, string> = {}): string {
  const url = new URL(path.replace(/^\/+/, ""), service);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url.href;
}

/** One request. Throws an ApiError; a 304 is an answer with an empty body. */
export async function call<T>(method: string, path: string, request: Request = {}): Promise<Answer<T>> {
  const used = token.peek();
  const headers: Record<string, string> = { Accept: "application/json", ...(used ? { Authorization: `Bearer ${used}` } : {}), ...request.headers };
  let response: Response;
  let text: string;
  try {
    response = await fetch(address(path, request.query), {
      method,
      headers,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
      ...(request.body === undefined ? {} : { body: typeof request.body === "string" ? request.body : JSON.stringify(request.body) }),
    });
    text = response.status === 304 ? "" : await response.text();
  } catch (error) {
    lostSince.value ||= Date.now();
    const slow = error instanceof DOMException && error.name === "TimeoutError";
    throw new ApiError(0, slow ? "The service takes too long to answer." : "The service cannot be reached.");
  }
  lostSince.value = 0;
  if (response.status === 401 && used === token.peek()) {
    loginNeeded.value = used ? "Your login is no longer valid. Log in again; nothing that you typed is lost." : "Log in to see your apps.";
  }
  if (response.status >= 400) throw refused(response.status, text);
  return { status: response.status, headers: response.headers, body: (request.text || !text ? text : JSON.parse(text)) as T };
}

function refused(status: number, text: string): ApiError {
  try {
    const problem = JSON.parse(text) as Problem;
    return new ApiError(status, sentence(problem.detail || problem.title), problem);
  } catch {
    return new ApiError(status, `Something between this page and the service answered with HTTP ${status}.`);
  }
}

/** As a person writes it: with a capital and a full stop. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (!trimmed) return "";
  const first = /^[a-z]+(?=[\s,:]|$)/.test(trimmed) ? trimmed[0]!.toUpperCase() + trimmed.slice(1) : trimmed;
  return /[.!?)]$/.test(first) ? first : `${first}.`;
}

export function explain(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The address that a `Link` header leads to next; empty when there is none. */
export function nextPage(headers: Headers): string {
  return /<([^>]+)>;\s*rel="next"/.exec(headers.get("Link") ?? "")?.[1] ?? "";
}

const held = new Map<string, { tag: string; body: unknown; headers: Headers }>();

/** GET that asks only whether something has changed, where it can. The same object comes back while nothing has. */
export async function look<T>(path: string, query: Record<string, string> = {}): Promise<Answer<T>> {
  const key = `${token.peek()}\n${address(path, query)}`;
  const known = held.get(key);
  const answer = await call<T>("GET", path, { query, ...(known ? { headers: { "If-None-Match": known.tag } } : {}) });
  if (answer.status === 304 && known) return { ...answer, headers: known.headers, body: known.body as T };
  const tag = answer.headers.get("ETag");
  held.delete(key);
  if (tag) held.set(key, { tag, body: answer.body, headers: answer.headers });
  if (held.size > 200) held.delete(held.keys().next().value!);
  return answer;
}

/** A whole list, page by page; each page is asked for conditionally. One page is the same object while nothing changes. */
export async function lookAtAll<T>(path: string, query: Record<string, string>): Promise<T[]> {
  const found: T[] = [];
  let answer = await look<T[]>(path, query);
  for (;;) {
    const next = nextPage(answer.headers);
    if (!next && !found.length) return answer.body;
    found.push(...answer.body);
    if (!next) return found;
    const [way, rest] = next.split("?");
    answer = await look<T[]>(way!, Object.fromEntries(new URLSearchParams(rest)));
  }
}
