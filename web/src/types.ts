// What the REST API answers, as far as the page uses it; /openapi.json has everything.

export interface Problem {
  title: string;
  status: number;
  detail: string;
  errors?: { path: string; message: string }[];
  validation?: Validation;
}

export interface Validation {
  checked: string[];
  notChecked: { what: string; reason: string }[];
  warnings: string[];
  remarks?: { path: string; message: string }[];
}

export interface Issuer {
  name: string;
  issuer: string;
  audience: string;
  clientId?: string;
  scopes?: string;
}

export interface Start {
  version: string;
  authentication: { method: "none" | "jwt" | "kubernetes"; issuers?: Issuer[]; audiences?: string[] };
}

export interface Whoami {
  name?: string;
  expires?: string;
  namespaces: string[];
  namespace?: string;
  may?: Record<string, string[]>;
}

export interface Replicas {
  wanted?: number;
  ready?: number;
  unknown?: string;
}

export interface Version {
  deployment: string;
  version: string;
  since?: string;
  by?: string;
  phase?: string;
  step?: string;
  deadline?: string;
  waitingFor?: string;
  waitsForApproval?: string;
  held?: string;
  replicas?: Replicas;
}

export interface AddressAnswer {
  address: string;
  tls: boolean;
  milliseconds: number;
  status?: number;
  deployment?: string;
  version?: string;
  live?: boolean;
  unknown?: string;
}

export interface RouteAnswers {
  addresses: AddressAnswer[];
  leftOut?: number;
  askedAt?: string;
  provider?: string;
  host?: string;
  path?: string;
  unknown?: string;
}

export interface Freeze {
  namespace: string;
  reason: string;
  source: "request" | "window";
  until?: string;
  by?: string;
}

export interface App {
  namespace: string;
  appName: string;
  live?: Version;
  warm?: Version;
  upcoming?: Version;
  replicas?: Replicas;
  hosts?: string[];
  lastFailure?: { deployment: string; version: string; reason: string; message: string; at: string };
  freezes?: Freeze[];
  queue?: Version[];
  previewHosts?: string[];
  descriptors?: { id: string; lastModified: string }[];
}

export interface Failure {
  reason: string;
  message: string;
  pod?: string;
  hint?: string;
}

export interface HistoryEntry {
  what: "deployment" | "rollback" | "undeployment";
  deployment: string;
  version: string;
  by?: string;
  cause?: string;
  asked: string;
  ended?: string;
  seconds?: number;
  outcome?: string;
  failure?: Failure;
}

export interface Step {
  id: string;
  phase: string;
  state: "pending" | "running" | "done" | "failed" | "cancelled" | "undone";
  began?: string;
  ended?: string;
  requests?: { asked: number; lost: number; addresses: number; seconds: number | null };
}

export interface Measurement {
  time: string;
  name: string;
  value: string | number | null;
  threshold: string;
  verdict: string;
}

export interface Gate {
  point: string;
  type: string;
  name: string;
  forced: boolean;
  dryRun: boolean;
  verdict: string | null;
  reason: string;
  hint?: string;
  began: string | null;
  deadline: string | null;
  ended: string | null;
  waitsForApproval: boolean;
  decision?: { approve: boolean; by?: string; comment?: string; at: string };
  measured: number;
  measurements: Measurement[];
}

export interface Descriptor {
  id?: string;
  namespace: string;
  appName: string;
  newVersion?: string;
  lastModified?: string;
  podspec?: { containers?: { name?: string; image?: string; [field: string]: unknown }[]; [field: string]: unknown };
  [field: string]: unknown;
}

export interface Deployment {
  id: string;
  namespace?: string;
  appName?: string;
  created: string;
  lastModified: string;
  version: string;
  status: "DEPLOYING" | "DEPLOYED" | "FAILURE" | "UNDEPLOYING" | "UNDEPLOYED";
  descriptor?: Descriptor;
  failure?: Failure;
  createdBy?: string;
  undeployedBy?: string;
  rollbackOf?: string;
  freezeOverride?: { reason: string };
  phase?: string;
  step?: string;
  since?: string;
  deadline?: string;
  waitingFor?: string;
  held?: string;
  steps?: Step[];
  gates?: Gate[];
}

export interface HealthAnswer {
  podName: string;
  value: string;
  healthy?: boolean;
  message?: string;
  status?: number;
}
