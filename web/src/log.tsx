// The log of a deployment as it is written: over a WebSocket that goes on where it broke off, or by asking again where
// something on the way lets none pass. Lines are added to the document by hand: there may be tens of thousands.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, address, call, explain, loginNeeded, lostSince, token } from "./api";
import { say } from "./state";

const PROTOCOL = "logs.kube-deployer";
const MOST = 20_000; // lines that are kept on the page
const LONG = 1000; // lines from which on those out of sight are not laid out
const LONGEST = 4000; // characters of a line that are shown; the download has all

interface Reader {
  line: (message: string) => void;
  state: (text: string) => void;
}

/** Follows until the log ends or the returned function is called. */
export function follow(namespace: string, id: string, reader: Reader): () => void {
  let after = 0;
  let over = false;
  let socket: WebSocket | undefined;
  let timer = 0;
  let tries = 0;
  let opened = false;

  const again = (): void => {
    if (over) return;
    tries += 1;
    // A socket that never opened may never do: then the lines are asked for.
    timer = window.setTimeout(!opened && tries > 2 ? () => void poll() : connect, Math.min(5000, 250 * 2 ** tries));
  };
  const connect = (): void => {
    const url = address(`stream/deployments/${encodeURIComponent(id)}/logs`, { namespace, after: String(after) }).replace(/^http/, "ws");
    const encoded = btoa(token.peek()).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    try {
      socket = new WebSocket(url, token.peek() ? [PROTOCOL, `base64url.bearer.authorization.kube-deployer.${encoded}`] : [PROTOCOL]);
    } catch (error) {
      reader.state(explain(error));
      return;
    }
    socket.onopen = () => {
      opened = true;
      reader.state("");
    };
    socket.onmessage = ({ data }) => {
      const message = String(data);
      if (message.startsWith("!!error")) return; // for clients of the original; the close code says the same
      tries = 0;
      after += 1;
      reader.line(message.replace(/\n$/, ""));
    };
    socket.onclose = ({ code, reason }) => {
      if (over) return;
      if (code === 1000) return reader.state(reason === "DELETED" ? "The deployment was deleted meanwhile." : "This is the whole log.");
      if (code === 4401) {
        loginNeeded.value = "Your login is no longer valid. Log in again; nothing that you typed is lost.";
        return reader.state("Log in to go on reading.");
      }
      if (code === 1008 || code === 4403 || code === 4404) return reader.state(reason || "The log cannot be shown.");
      reader.state("The connection was lost. It goes on where it broke off as soon as the service answers.");
      again();
    };
  };
  const poll = async (): Promise<void> => {
    try {
      const { body, headers } = await call<string>("GET", `deployments/${encodeURIComponent(id)}/logs`, { query: { namespace, after: String(after) }, text: true });
      for (const message of messages(body)) if (!over) reader.line(message);
      after = Number(headers.get("X-Next-After") ?? after);
      reader.state("");
      if (!over) timer = window.setTimeout(() => void poll(), 2000);
    } catch (error) {
      if (error instanceof ApiError && error.status !== 0 && error.status < 500) return reader.state(error.message);
      again();
    }
  };
  connect();
  return () => {
    over = true;
    clearTimeout(timer);
    socket?.close();
  };
}

/** Further lines of a message are indented. */
function messages(text: string): string[] {
  return text.replace(/\n$/, "").split(/\n(?! )/).filter(Boolean);
}

export function Log({ namespace, id, name }: { namespace: string; id: string; name: string }) {
  const box = useRef<HTMLDivElement>(null);
  const [state, setState] = useState("");
  const [lines, setLines] = useState(0);
  const [paused, setPaused] = useState(false);
  const [wrap, setWrap] = useState(true);
  const [search, setSearch] = useState("");
  const [matches, setMatches] = useState(0);
  const controls = useRef({ paused: false, search: "", flush: () => {}, find: () => {} });
  const bearer = token.value;

  useEffect(() => {
    const list = box.current!;
    list.replaceChildren();
    let waiting: string[] = [];
    let frame = 0;
    let total = 0;
    let found = 0;
    const flush = (): void => {
      frame = 0;
      if (controls.current.paused || !waiting.length) return;
      const bottom = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      const added = document.createDocumentFragment();
      for (const message of waiting.slice(-MOST)) {
        const row = rowOf(message);
        found += mark(row, controls.current.search) ? 1 : 0;
        added.append(row);
      }
      list.append(added);
      while (list.childElementCount > MOST) list.firstElementChild!.remove();
      waiting = [];
      setLines(total);
      if (controls.current.search) setMatches(found);
      if (total > LONG) list.dataset["long"] = "";
      // Twice, since lines that come into sight turn out to be higher than was guessed.
      const end = (): void => void (bottom && (list.scrollTop = list.scrollHeight));
      end();
      requestAnimationFrame(end);
    };
    controls.current.flush = flush;
    controls.current.find = () => {
      found = 0;
      for (const row of list.children) found += mark(row as HTMLElement, controls.current.search) ? 1 : 0;
      setMatches(found);
      list.querySelector(".match")?.scrollIntoView({ block: "nearest" });
    };
    const stop = follow(namespace, id, {
      line: (message) => {
        total += 1;
        waiting.push(message);
        frame ||= window.setTimeout(flush, 50);
      },
      state: setState,
    });
    return () => {
      stop();
      clearTimeout(frame);
    };
  }, [namespace, id, bearer]);

  const pause = (): void => {
    controls.current.paused = !paused;
    setPaused(!paused);
    controls.current.flush();
  };
  const find = (text: string): void => {
    controls.current.search = text.toLowerCase();
    setSearch(text);
    controls.current.find();
  };
  const download = async (): Promise<void> => {
    try {
      const { body } = await call<string>("GET", `deployments/${encodeURIComponent(id)}/logs`, { query: { namespace }, text: true });
      const anchor = document.createElement("a");
      anchor.href = URL.createObjectURL(new Blob([body], { type: "text/plain" }));
      anchor.download = `${name}.log`;
      anchor.click();
      URL.revokeObjectURL(anchor.href);
    } catch (error) {
      say(explain(error));
    }
  };
  return (
    <section aria-labelledby="log-title">
      <header class="title">
        <h2 id="log-title">Log</h2>
        <p class="tools">
          <label>
            Search <input type="search" value={search} onInput={(event) => find(event.currentTarget.value)} />
          </label>
          {search && <span role="status">{matches === 1 ? "1 line" : `${matches.toLocaleString("en")} lines`}</span>}
          <button type="button" aria-pressed={paused} onClick={pause}>
            {paused ? "Go on" : "Pause"}
          </button>
          <label class="check">
            <input type="checkbox" checked={wrap} onChange={() => setWrap(!wrap)} /> Wrap
          </label>
          <button type="button" onClick={() => void download()}>
            Download
          </button>
        </p>
      </header>
      <div ref={box} class={`log ${wrap ? "wrap" : ""}`} role="log" aria-labelledby="log-title" aria-live={paused ? "off" : "polite"} tabIndex={0} />
      <p class="quiet" role="status">
        Times are UTC. {lines > MOST ? `The last ${MOST.toLocaleString("en")} of ${lines.toLocaleString("en")} messages; the download has all. ` : ""}
        {paused ? "Paused: new lines wait. " : ""}
        {lostSince.value && !state ? "" : state}
      </p>
    </section>
  );
}

/** A line in the document. What it holds is text, whatever it looks like. */
function rowOf(message: string): HTMLElement {
  const row = document.createElement("div");
  const [, time, text] = /^(\d{4}-\d\d-\d\dT(?:\d\d:){2}\d\d(?:\.\d+)?Z) ([\s\S]*)$/.exec(message) ?? [undefined, "", message];
  if (time) {
    const stamp = document.createElement("time");
    stamp.dateTime = time;
    stamp.textContent = `${time.slice(11, 23)} `;
    row.append(stamp);
  }
  const shown = text!.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "�");
  row.append(shown.length > LONGEST ? `${shown.slice(0, LONGEST)} … (${(shown.length - LONGEST).toLocaleString("en")} more characters in the download)` : shown);
  return row;
}

function mark(row: HTMLElement, search: string): boolean {
  const matches = search !== "" && row.textContent.toLowerCase().includes(search);
  row.classList.toggle("match", matches);
  return matches;
}
