// Gates: what each asked, what it measured against its threshold, and who decided.

import { useEffect, useRef } from "preact/hooks";
import { sentence } from "./api";
import { askDecision } from "./actions";
import { Ago, Badge, Columns, Decision } from "./parts";
import { Left } from "./app";
import { may } from "./state";
import { exact, type Tone } from "./words";
import type { Deployment, Gate, Measurement } from "./types";

const POINTS: Record<string, string> = { beforeStart: "before the start", beforeSwitch: "before the switch", afterSwitch: "after the switch" };

function verdictOf(gate: Gate): { tone: Tone; word: string } {
  if (gate.verdict === "passed") return { tone: "good", word: "Passed" };
  if (gate.verdict === "failed") return { tone: gate.dryRun ? "warn" : "bad", word: gate.dryRun ? "Would have failed" : "Failed" };
  if (gate.waitsForApproval) return { tone: "warn", word: "Waits for a person" };
  if (gate.verdict === "inconclusive") return { tone: "warn", word: "Inconclusive" };
  return gate.began ? { tone: "busy", word: "Under way" } : { tone: "idle", word: "Not reached yet" };
}

export function Gates({ deployment, namespace, app }: { deployment: Deployment; namespace: string; app: string }) {
  const gates = deployment.gates ?? [];
  if (!gates.length) return null;
  return (
    <section aria-labelledby="gates">
      <h2 id="gates">Gates</h2>
      {gates.map((gate) => (
        <GateView key={`${gate.point} ${gate.name} ${gate.forced}`} gate={gate} deployment={deployment} namespace={namespace} app={app} />
      ))}
    </section>
  );
}

function GateView({ gate, deployment, namespace, app }: { gate: Gate; deployment: Deployment; namespace: string; app: string }) {
  const { tone, word } = verdictOf(gate);
  const { decision } = gate;
  const decide = (approve: boolean) => () => askDecision(namespace, app, deployment.id, deployment.version, gate, approve);
  return (
    <article class="card gate">
      <h3>
        {gate.name} <Badge tone={tone}>{word}</Badge>
      </h3>
      <p class="quiet">
        {gate.type}, {POINTS[gate.point] ?? gate.point}
        {gate.forced && ", required by the settings"}
        {gate.dryRun && ", dry run: it never stops the deployment"}
      </p>
      {gate.reason && <p>{sentence(gate.reason)}</p>}
      {gate.hint && <p>{sentence(gate.hint)}</p>}
      {gate.began && !gate.ended && gate.deadline && <Left until={gate.deadline} />}
      {decision && (
        <p>
          {decision.approve ? "Approved" : "Rejected"}
          {decision.by ? ` by ${decision.by}` : ""} <Ago time={decision.at} />
          {decision.comment ? `: ${decision.comment}` : ""}
        </p>
      )}
      {gate.waitsForApproval && may(namespace, "deployments", "approve") && (
        <Decision ask={decide} />
      )}
      {gate.measurements.length > 0 && <Measured gate={gate} />}
    </article>
  );
}

function Measured({ gate }: { gate: Gate }) {
  const numbers = gate.measurements.filter(({ value }) => number(value) !== undefined);
  return (
    <>
      {numbers.length > 1 && <Chart measurements={numbers} name={gate.name} />}
      <details>
        <summary>
          {gate.measured === gate.measurements.length ? `${gate.measured} measurements` : `${gate.measurements.length} of ${gate.measured} measurements`}
        </summary>
        <table>
          <Columns labels={["When", "What", "Value", "Threshold", "Verdict"]} />
          <tbody>
            {gate.measurements.map((one, index) => (
              <tr key={index}>
                <td data-label="When">
                  <time dateTime={one.time}>{exact(one.time)}</time>
                </td>
                <td data-label="What">{one.name || "–"}</td>
                <td data-label="Value">{one.value ?? "nothing"}</td>
                <td data-label="Threshold">{one.threshold}</td>
                <td data-label="Verdict">{one.verdict}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </>
  );
}

function number(value: Measurement["value"]): number | undefined {
  const found = typeof value === "number" ? value : typeof value === "string" && value.trim() !== "" ? Number(value) : Number.NaN;
  return Number.isFinite(found) ? found : undefined;
}

/** The bounds of a threshold such as ">= 1 and <= 5". */
function bounds(threshold: string): number[] {
  return [...threshold.matchAll(/[<>]=?\s*(-?[\d.]+(?:e[+-]?\d+)?)/gi)].map(([, bound]) => Number(bound)).filter(Number.isFinite);
}

/** Values over time, and the threshold as dashed lines. The table below has the same for those who cannot see it. */
function Chart({ measurements, name }: { measurements: Measurement[]; name: string }) {
  const box = useRef<HTMLDivElement>(null);
  const key = measurements.map(({ time, value }) => `${time} ${value}`).join();
  useEffect(() => {
    let over = false;
    let close = (): void => {};
    void import("uplot").then(({ default: Plot }) => {
      const place = box.current;
      if (over || !place) return;
      // A canvas knows neither variables nor light-dark(): an element resolves them.
      const colour = (of: string): string => {
        place.style.color = `var(${of})`;
        return getComputedStyle(place).color;
      };
      const times = measurements.map(({ time }) => Date.parse(time) / 1000);
      const limits = [...new Set(measurements.flatMap(({ threshold }) => bounds(threshold)))];
      const line = { stroke: colour("--line"), width: 1 };
      const axis = { stroke: colour("--quiet"), grid: line, ticks: line };
      const clock = (_: unknown, ticks: number[]): string[] => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString("en-GB"));
      const plot = new Plot(
        {
          width: place.clientWidth || 300,
          height: 160,
          legend: { show: false },
          cursor: { show: false },
          axes: [{ ...axis, values: clock, space: 80, incrs: [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400] }, { ...axis, size: 60 }],
          series: [
            {},
            { stroke: colour("--accent"), width: 2, points: { size: 6 } },
            ...limits.map(() => ({ stroke: colour("--bad"), width: 1, dash: [6, 4], points: { show: false } })),
          ],
          scales: { y: { range: (_: unknown, low: number, high: number): [number, number] => [Math.min(low, 0), high === low ? high + 1 : high * 1.1] } },
        },
        [times, measurements.map(({ value }) => number(value)!), ...limits.map((limit) => times.map(() => limit))],
        place,
      );
      const resize = new ResizeObserver(() => plot.setSize({ width: place.clientWidth || 300, height: 160 }));
      resize.observe(place);
      close = () => {
        resize.disconnect();
        plot.destroy();
      };
    });
    return () => {
      over = true;
      close();
    };
  }, [key]);
  return <div ref={box} class="chart" role="img" aria-label={`Values of gate ${name} over time, with the threshold ${measurements[0]!.threshold}`} />;
}
