// Following something that changes: asked for again and again while it is on the screen, and never while it is not.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, lostSince, token } from "./api";

export interface Followed<T> {
  data: T | undefined;
  error: ApiError | undefined;
  /** Ask now, since something has just been done; when it is being asked already, once more after that. */
  again: () => void;
}

/**
 * What `ask` gives, asked anew every `every` milliseconds, or never for `Infinity`; `key` names it, and another key
 * begins anew. While the service cannot be reached the pauses grow to ten seconds.
 */
export function useFollowed<T>(key: string, ask: () => Promise<T>, every: (data: T) => number = () => 3000): Followed<T> {
  const [state, setState] = useState<{ key: string; data?: T; error?: ApiError }>({ key });
  const wake = useRef<() => void>(() => {});
  const bearer = token.value;
  useEffect(() => {
    let over = false;
    let timer = 0;
    let failures = 0;
    let busy = false;
    let onceMore = false;
    const run = async (): Promise<void> => {
      clearTimeout(timer);
      if (over || busy || document.hidden) return;
      busy = true;
      let pause: number;
      try {
        const data = await ask();
        failures = 0;
        pause = every(data);
        if (!over) setState((before) => (before.key === key && before.data === data && !before.error ? before : { key, data }));
      } catch (caught) {
        const error = caught instanceof ApiError ? caught : new ApiError(0, String(caught));
        failures += 1;
        pause = Math.min(10_000, 1000 * 2 ** failures);
        if (!over)
          setState((before) => {
            const kept = before.key === key && before.data !== undefined && ![403, 404].includes(error.status);
            return kept ? { key, data: before.data!, error } : { key, error };
          });
      }
      busy = false;
      if (onceMore) pause = 0;
      onceMore = false;
      if (!over && pause !== Infinity) timer = window.setTimeout(run, pause);
    };
    wake.current = () => {
      onceMore = busy;
      void run();
    };
    const visible = (): void => void run();
    document.addEventListener("visibilitychange", visible);
    window.addEventListener("online", visible);
    void run();
    return () => {
      over = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", visible);
      window.removeEventListener("online", visible);
    };
  }, [key, bearer]);
  const mine = state.key === key ? state : { key };
  return { data: mine.data, error: mine.error, again: () => wake.current() };
}

/** True when an error is worth a sentence of its own: a lost connection has its banner already. */
export function tells(error: ApiError | undefined): error is ApiError {
  return error !== undefined && error.status !== 401 && !(error.status === 0 && lostSince.value);
}
