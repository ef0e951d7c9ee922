// How the page says things: times, states, phases.

import { sentence } from "./api";
import type { App, Replicas, Version } from "./types";

const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const ABSOLUTE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export function ago(time: string, now: number): string {
  const seconds = (Date.parse(time) - now) / 1000;
  const size = Math.abs(seconds);
  if (!Number.isFinite(size)) return "";
  if (size < 5) return "just now";
  if (size < 60) return RELATIVE.format(Math.round(seconds), "second");
  if (size < 3600) return RELATIVE.format(Math.round(seconds / 60), "minute");
  if (size < 86_400) return RELATIVE.format(Math.round(seconds / 3600), "hour");
  return RELATIVE.format(Math.round(seconds / 86_400), "day");
}

export function exact(time: string): string {
  const moment = new Date(time);
  return Number.isNaN(moment.getTime()) ? time : ABSOLUTE.format(moment);
}

export function span(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400).toLocaleString("en")} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

export interface State {
  word: string;
  tone: Tone;
  more: string;
}

const PHASES: Record<string, string> = {
  QUEUED: "Queued",
  DECIDE: "Preparing",
  START: "Starting",
  VERIFY: "Checking health",
  EXPOSE: "Switching traffic",
  GATE: "At a gate",
  CONFIRM: "Confirming the switch",
  RETIRE: "Being removed",
  UNDO: "Being undone",
  WATCH: "Live, and watched",
  DRAIN: "Kept warm",
};

/** A gate and the watch belong to a phase, but are no part of what the phase does. */
export function phaseOf(phase: string | undefined, step = ""): string {
  if (step.startsWith("gate:")) return PHASES["GATE"]!;
  if (step === "watch") return PHASES["WATCH"]!;
  return phase ? (PHASES[phase] ?? phase.toLowerCase()) : "";
}

const OUTCOMES: Record<string, { word: string; tone: Tone }> = {
  deployed: { word: "Went live", tone: "good" },
  upgraded: { word: "Went live", tone: "good" },
  rolledback: { word: "Live again", tone: "good" },
  rollbackfailed: { word: "Rollback failed", tone: "bad" },
  failed: { word: "Failed", tone: "bad" },
  cancelled: { word: "Cancelled", tone: "idle" },
  replaced: { word: "Replaced", tone: "idle" },
  removed: { word: "Removed", tone: "idle" },
};

export function outcomeOf(outcome: string | undefined): { word: string; tone: Tone } {
  return outcome ? (OUTCOMES[outcome] ?? { word: outcome, tone: "idle" }) : { word: "Under way", tone: "busy" };
}

const STATUSES: Record<string, { word: string; tone: Tone }> = {
  DEPLOYING: { word: "Deploying", tone: "busy" },
  DEPLOYED: { word: "Live", tone: "good" },
  FAILURE: { word: "Failed", tone: "bad" },
  UNDEPLOYING: { word: "Being removed", tone: "busy" },
  UNDEPLOYED: { word: "Removed", tone: "idle" },
};

export function statusOf(status: string): { word: string; tone: Tone } {
  return STATUSES[status] ?? { word: status, tone: "idle" };
}

/** How an app is doing, in a word or two. */
export function stateOf(app: App): State {
  const comes = app.upcoming;
  const held = app.live?.held ?? comes?.held ?? app.warm?.held;
  if (held) return { word: "Needs a person", tone: "bad", more: sentence(held) };
  if (comes?.waitsForApproval) return { word: "Waits for approval", tone: "warn", more: `Gate ${comes.waitsForApproval} of version ${comes.version}` };
  if (comes) return { word: "Deploying", tone: "busy", more: [phaseOf(comes.phase, comes.step), comes.waitingFor && `waits for ${comes.waitingFor}`].filter(Boolean).join(", ") };
  if (!app.live) return app.lastFailure ? { word: "Failed", tone: "bad", more: sentence(app.lastFailure.message) } : { word: "Not deployed", tone: "idle", more: "" };
  const { wanted, ready } = app.replicas ?? {};
  if (wanted !== undefined && ready !== undefined && ready < wanted) return { word: "Degraded", tone: "warn", more: `${ready} of ${wanted} pods are ready` };
  if (app.lastFailure && app.live.since && app.lastFailure.at > app.live.since) return { word: "Live, last deployment failed", tone: "warn", more: `Version ${app.lastFailure.version}: ${sentence(app.lastFailure.message)}` };
  return { word: "Live", tone: "good", more: "" };
}

/** What is newest about an app. */
export function changeOf(app: App): { time: string; by: string } {
  const newest = [app.upcoming, app.live].filter((one): one is Version => one?.since !== undefined)[0];
  return { time: newest?.since ?? app.lastFailure?.at ?? "", by: newest?.by ?? "" };
}

export function podsOf(replicas: Replicas | undefined): string {
  if (!replicas) return "";
  return replicas.unknown !== undefined ? "unknown" : `${replicas.ready ?? 0} of ${replicas.wanted ?? 0}`;
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function versionName(version: string | undefined): string {
  return version ? `version ${version}` : "a version that is not decided yet";
}
