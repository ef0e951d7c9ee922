// The rollout as a picture: what the new version went through, what became of the old one, and when the traffic moved.

import { now } from "./parts";
import { count, exact, phaseOf, span } from "./words";
import type { Deployment, Step } from "./types";

interface Bar {
  phase: string;
  from: number;
  to: number;
  state: Step["state"];
}

function time(text: string | undefined): number {
  return text ? Date.parse(text) : Number.NaN;
}

/** Steps of a phase that follow each other are one bar. */
function barsOf(steps: Step[], present: number): Bar[] {
  const bars: Bar[] = [];
  for (const step of steps) {
    const from = time(step.began);
    const to = step.ended ? time(step.ended) : present;
    if (Number.isNaN(from) || Number.isNaN(to)) continue;
    const phase = step.id.startsWith("gate:") ? "GATE" : step.phase;
    const bar: Bar = { phase, from, to: Math.max(from, to), state: step.state };
    const last = bars.at(-1);
    if (last && last.phase === bar.phase && last.state === bar.state) last.to = bar.to;
    else bars.push(bar);
  }
  return bars;
}

/**
 * When the traffic moved: at the end of the step that switches the route, or with the one that moves the Service; and
 * the step that counted what became of requests meanwhile, if one did. A switch that was taken back counts as well.
 */
function switchOf(steps: Step[]): { at: number; until: number; back: boolean; counted: Step["requests"] } {
  const moves = (step: Step): boolean => step.id.startsWith("switch") || step.id === "move-service";
  const last = steps.findLastIndex((step) => step.requests || (moves(step) && step.state === "done" && step.ended));
  const first = steps.slice(0, last + 1).findLastIndex((step) => step.id.startsWith("switch"));
  const counting = steps.slice(Math.max(first, 0), last + 1).findLast(({ requests }) => requests);
  const step = counting?.id === "move-service" || first < 0 ? (counting ?? steps[last]) : steps[first];
  const at = time(step?.id === "move-service" && step.requests ? step.began : step?.ended);
  const counted = counting?.requests;
  const until = counted?.seconds ? at + counted.seconds * 1000 : time(counting?.ended);
  return { at, until, back: step?.state === "undone" || counting?.state === "failed", counted };
}

/** What became of requests while the traffic moved. */
function fared(counted: Step["requests"]): string {
  if (!counted) return "requests lost: not measured";
  const { asked, lost, addresses } = counted;
  return `${lost ? lost.toLocaleString("en") : "none"} of ${count(asked, "request")} to ${count(addresses, "address", "addresses")} lost`;
}

const WIDTH = 1000;
const LEAST = 12; // of a bar: hours at a gate must not hide the seconds of the switch

/** Where a moment is drawn. Bars are as wide as they took long, beside what each of them has in any case. */
function scaleOf(bars: Bar[], from: number, to: number): (moment: number) => number {
  const knots = [...new Set([from, ...bars.flatMap((bar) => [bar.from, bar.to]), to])].sort((a, b) => a - b);
  const least = Math.min(LEAST, WIDTH / 2 / bars.length);
  const lengths = knots.slice(1).map((knot, index) => {
    const drawn = bars.some((bar) => bar.from <= knots[index]! && knot <= bar.to);
    return { time: knot - knots[index]!, width: drawn ? least : 0 };
  });
  const given = lengths.reduce((sum, { width }) => sum + width, 0);
  return (moment) =>
    lengths.reduce((sum, { time, width }, index) => {
      const part = Math.min(1, Math.max(0, (moment - knots[index]!) / time));
      return sum + part * (width + (time / (to - from)) * (WIDTH - given));
    }, 0);
}

export function Timeline({ deployment, before }: { deployment: Deployment; before?: { version: string; until?: number } | undefined }) {
  // The watch is long, and nothing moves in it.
  const steps = (deployment.steps ?? []).filter(({ id }) => id !== "watch");
  const running = steps.some(({ state, began, ended }) => state === "running" && began && !ended);
  const present = running ? now.value : 0;
  const bars = barsOf(steps, present);
  if (!bars.length) return null;
  const asked = Math.min(time(deployment.created) || bars[0]!.from, bars[0]!.from);
  const end = Math.max(...bars.map(({ to }) => to), asked + 1000);
  const x = scaleOf(bars, asked, end);
  const { at: switched, until, back, counted } = switchOf(steps);
  const moved = Number.isNaN(switched) ? "" : `traffic moved at ${exact(new Date(switched).toISOString())}${back ? ", and back" : ""}`;
  const told = bars.map(({ phase, from, to }) => `${phaseOf(phase)} ${span((to - from) / 1000)}`).join(", ");
  const lane = before ? 56 : 20;
  return (
    <figure class="timeline">
      <svg viewBox={`-4 0 ${WIDTH + 8} ${lane + 40}`} preserveAspectRatio="none" role="img" aria-label={`Timeline of version ${deployment.version}: ${told}${moved && `; ${moved}; ${fared(counted)}`}`}>
        {before && <rect class="before" x={0} y={20} width={x(Math.min(before.until ?? end, end))} height={24} />}
        {bars.map(({ phase, from, to, state }, index) => (
          <rect key={index} class={`bar ${phase.toLowerCase()} ${state}`} x={x(from)} y={lane} width={Math.max(2, x(to) - x(from))} height={24}>
            <title>{`${phaseOf(phase)}: ${span((to - from) / 1000)}`}</title>
          </rect>
        ))}
        {moved && counted && <rect class={`moving ${counted.lost ? "lost" : ""}`} x={x(switched)} y={4} width={Math.max(4, x(Math.min(until || switched, end)) - x(switched))} height={lane + 32} />}
        {moved && <line class="switch" x1={x(switched)} x2={x(switched)} y1={4} y2={lane + 36} />}
      </svg>
      <figcaption>
        {before && <span class="key before">version {before.version} (old)</span>}
        {[...new Map(bars.map((bar) => [bar.phase, bar])).values()].map(({ phase }) => {
          const of = bars.filter((bar) => bar.phase === phase);
          const total = of.reduce((sum, { from, to }) => sum + to - from, 0) / 1000;
          return (
            <span key={phase} class={`key ${phase.toLowerCase()} ${of.at(-1)!.state === "failed" ? "failed" : ""}`}>
              {phaseOf(phase)}, {span(total)}
              {of.at(-1)!.state === "failed" && " (failed)"}
            </span>
          );
        })}
        {moved && (
          <span class="key switch">
            {moved}; <span class={counted?.lost ? "lost" : ""}>{fared(counted)}</span>
          </span>
        )}
      </figcaption>
    </figure>
  );
}
