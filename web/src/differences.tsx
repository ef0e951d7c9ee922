// What differs between two descriptors, line by line. The library comes when it is needed first.

import { useEffect, useState } from "preact/hooks";

interface Line {
  sign: " " | "+" | "-";
  text: string;
}

const AROUND = 3; // lines that are shown around a change

/** Text in which equal descriptors are equal: fields in one order, without what the service notes itself. */
export function canonical(descriptor: unknown): string {
  const noted = new Set(["id", "created", "lastModified", "deployedVersion", "deploymentTs"]);
  const sorted = (value: unknown, top: boolean): unknown => {
    if (Array.isArray(value)) return value.map((one) => sorted(one, false));
    if (typeof value !== "object" || value === null) return value;
    const entries = Object.entries(value).filter(([name, one]) => one !== null && !(top && noted.has(name)));
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, one]) => [name, sorted(one, false)]));
  };
  return JSON.stringify(sorted(descriptor, true), null, 2);
}

export function Differences({ from, to, names }: { from: unknown; to: unknown; names: [string, string] }) {
  const [lines, setLines] = useState<Line[] | undefined>(undefined);
  const [older, newer] = [canonical(from ?? {}), canonical(to ?? {})];
  useEffect(() => {
    let over = false;
    void import("diff").then(({ diffLines }) => {
      if (over) return;
      const parts = diffLines(`${older}\n`, `${newer}\n`);
      setLines(parts.flatMap(({ value, added, removed }) => value.replace(/\n$/, "").split("\n").map((text): Line => ({ sign: added ? "+" : removed ? "-" : " ", text }))));
    });
    return () => void (over = true);
  }, [older, newer]);
  if (!lines) return null;
  const changed = lines.map(({ sign }) => sign !== " ");
  if (!changed.includes(true)) return <p class="quiet">The descriptors are the same.</p>;
  const near = (index: number): boolean => changed.slice(Math.max(0, index - AROUND), index + AROUND + 1).includes(true);
  return (
    <figure class="differences">
      <figcaption>
        <del>{names[0]}</del> <ins>{names[1]}</ins>
      </figcaption>
      <pre tabIndex={0} aria-label={`Differences between ${names[0]} and ${names[1]}`}>
        {lines.map((line, index) =>
          near(index) ? (
            line.sign === " " ? (
              <span key={index}>{`  ${line.text}\n`}</span>
            ) : line.sign === "+" ? (
              <ins key={index}>{`+ ${line.text}\n`}</ins>
            ) : (
              <del key={index}>{`- ${line.text}\n`}</del>
            )
          ) : near(index - 1) ? (
            <span key={index} class="quiet">{"  …\n"}</span>
          ) : null,
        )}
      </pre>
    </figure>
  );
}
