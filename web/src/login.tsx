// Logging in: at an identity provider (authorization code with PKCE, RFC 7636, in a window of its own, so that this page
// and what was typed stay), or with a token that somebody has.

import { useEffect, useRef, useState } from "preact/hooks";
import { call, explain, loginNeeded, token } from "./api";
import { learnWhoami, start } from "./state";
import type { Issuer, Whoami } from "./types";

const CHANNEL = "kube-deployer-login";
const WAIT = 300_000; // milliseconds for logging in at the provider

interface Returned {
  state: string;
  code?: string;
  error?: string;
  iss?: string;
}

/** In the window that the provider sent back here: tell the page that waits, and go. True when this was that. */
export function returned(): boolean {
  const query = new URLSearchParams(location.search);
  const state = query.get("state");
  if (!state || !(query.has("code") || query.has("error"))) return false;
  history.replaceState(null, "", location.pathname);
  const answer: Returned = { state };
  for (const name of ["code", "iss"] as const) if (query.has(name)) answer[name] = query.get(name)!;
  if (query.has("error")) answer.error = query.get("error_description") || query.get("error")!;
  new BroadcastChannel(CHANNEL).postMessage(answer);
  setTimeout(() => window.close(), 50);
  return true;
}

function random(): string {
  return url64(crypto.getRandomValues(new Uint8Array(32)));
}

function url64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The claims of a token that the service will check; this page only looks which token is for it. */
function audiences(jwt: unknown): string[] {
  try {
    const part = String(jwt).split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/");
    const { aud } = JSON.parse(atob(part)) as { aud?: string | string[] };
    return Array.isArray(aud) ? aud : aud ? [aud] : [];
  } catch {
    return [];
  }
}

async function json(response: Promise<Response>, what: string): Promise<Record<string, unknown>> {
  let answer: Response;
  try {
    answer = await response;
  } catch {
    throw new Error(`${what} cannot be reached from this page. It has to allow requests of ${location.origin} (CORS), or a token can be pasted.`);
  }
  const found = (await answer.json().catch(() => ({}))) as Record<string, unknown>;
  if (!answer.ok) throw new Error(`${what} refused: ${String(found["error_description"] ?? found["error"] ?? `HTTP ${answer.status}`)}.`);
  return found;
}

async function logIn(issuer: Issuer): Promise<void> {
  if (!crypto.subtle) throw new Error("Browsers log in at an identity provider on HTTPS only; open this page by https://.");
  const verifier = random();
  const state = random();
  const redirect = new URL(".", location.href.split(/[?#]/)[0]).href;
  // At once, while the click counts: a window that opens later is stopped as a pop-up.
  const popup = window.open("", "", "popup,width=520,height=680");
  if (!popup) throw new Error("The browser has stopped the window of the identity provider; allow pop-ups of this page.");
  try {
    const what = `The identity provider ${issuer.name}`;
    const known = await json(fetch(`${issuer.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, { credentials: "omit" }), what);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
    const target = new URL(String(known["authorization_endpoint"]));
    if (!/^https?:$/.test(target.protocol)) throw new Error(`${what} names no address to log in at.`);
    const asked = { response_type: "code", client_id: issuer.clientId!, redirect_uri: redirect, scope: issuer.scopes || "openid", state, code_challenge: url64(digest), code_challenge_method: "S256" };
    for (const [name, value] of Object.entries(asked)) target.searchParams.set(name, value);
    popup.location.href = target.href;
    const answer = await comeBack(state);
    if (answer.error) throw new Error(`${what} refused: ${answer.error}.`);
    if (answer.iss && answer.iss !== issuer.issuer) throw new Error("The answer is of another identity provider; nothing was done with it.");
    const body = new URLSearchParams({ grant_type: "authorization_code", code: answer.code ?? "", redirect_uri: redirect, client_id: issuer.clientId!, code_verifier: verifier });
    const found = await json(fetch(String(known["token_endpoint"]), { method: "POST", body, credentials: "omit" }), what);
    const good = [found["access_token"], found["id_token"]].find((one) => audiences(one).includes(issuer.audience));
    if (!good) throw new Error(`${what} gave no token for ${issuer.audience}; its client has to add that audience.`);
    await use(String(good));
  } finally {
    popup.close();
  }
}

function comeBack(state: string): Promise<Returned> {
  return new Promise((resolve, reject) => {
    const channel = new BroadcastChannel(CHANNEL);
    const late = setTimeout(() => {
      channel.close();
      reject(new Error("Nobody logged in within five minutes."));
    }, WAIT);
    channel.onmessage = ({ data }: MessageEvent<Returned>) => {
      if (data.state !== state) return;
      clearTimeout(late);
      channel.close();
      resolve(data);
    };
  });
}

/** Take a token once the service has said that it is good. */
async function use(given: string): Promise<void> {
  await call<Whoami>("GET", "whoami", { headers: { Authorization: `Bearer ${given}` } });
  token.value = given;
  loginNeeded.value = "";
  await learnWhoami();
}

export function Login() {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState("");
  const [failed, setFailed] = useState("");
  const why = loginNeeded.value;
  const { method, issuers = [], audiences: wanted = [] } = start.value?.authentication ?? { method: "none" };
  useEffect(() => {
    if (why && !dialog.current?.open) dialog.current?.showModal();
    if (!why) dialog.current?.close();
  }, [why, start.value]);
  if (!why || !start.value) return null;
  const providers = issuers.filter(({ clientId }) => clientId);
  const run = async (what: string, work: () => Promise<void>): Promise<void> => {
    setBusy(what);
    setFailed("");
    try {
      await work();
    } catch (error) {
      setFailed(explain(error));
    }
    setBusy("");
  };
  const paste = (event: SubmitEvent): void => {
    event.preventDefault();
    const given = String(new FormData(event.currentTarget as HTMLFormElement).get("token") ?? "").trim().replace(/^Bearer\s+/i, "");
    void run("token", async () => {
      if (!/^[\x21-\x7e]+$/.test(given)) throw new Error("That is no token: it is empty, or has spaces in it.");
      await use(given);
    });
  };
  return (
    <dialog ref={dialog} class="login" aria-labelledby="login" onCancel={(event) => event.preventDefault()}>
      <h2 id="login">Log in</h2>
      <p>{why}</p>
      {providers.map((issuer) => (
        <p key={issuer.name}>
          <button type="button" class="primary" disabled={busy !== ""} onClick={() => void run(issuer.name, () => logIn(issuer))}>
            {busy === issuer.name ? "Waiting for the other window …" : `Log in with ${issuer.name}`}
          </button>
        </p>
      ))}
      {providers.length > 0 && <p class="quiet">You log in there, in a window of its own: authorization code flow with PKCE.</p>}
      <form onSubmit={paste}>
        <p class="field">
          <label for="token">Token</label>
          <input id="token" name="token" type="password" autocomplete="off" spellcheck={false} required aria-describedby="token-hint" />
          <small id="token-hint">
            {method === "kubernetes"
              ? `For example what "kubectl create token ACCOUNT${wanted[0] ? ` --audience=${wanted[0]}` : ""}" prints. `
              : "A bearer token of an issuer that this service trusts. "}
            It stays in the memory of this page: closing or reloading it logs you out.
          </small>
        </p>
        {failed && (
          <p class="trouble" role="alert">
            {failed}
          </p>
        )}
        <footer>
          <button type="submit" class="primary" disabled={busy !== ""}>
            {busy === "token" ? "One moment …" : "Use this token"}
          </button>
        </footer>
      </form>
    </dialog>
  );
}
