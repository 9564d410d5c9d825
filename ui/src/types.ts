/**
 * The answers of the REST API (docs/reference/rest.md), as far as the dashboard uses them. Times are ISO 8601.
 * scripts/check_ui_types.py compares them with the API's OpenAPI document.
 */

export type Presence = "online" | "silent" | "offline" | "never_connected" | "gone";
export type Intent = "serve" | "pause" | "drain" | "leave";
export type JobState = "queued" | "offered" | "running" | "succeeded" | "failed" | "lost" | "revoked";

export interface Listed<T> {
  items: T[];
  next: string | null;
}

export interface Me {
  name: string;
  may_manage: boolean;
}

export interface Worker {
  id: string;
  name: string;
  presence: Presence;
  intent: Intent;
  intent_reason: string;
  intent_by: string;
  intent_at: string | null;
  intent_until: string | null;
  intent_heard: boolean;
  restart_asked_at: string | null;
  restart_asked_by: string | null;
  queues: string[];
  team: string | null;
  slots: number;
  slots_limit: number | null;
  used_slots: number;
  /** The oldest ones; `running_count` counts all. */
  running: RunningJob[];
  running_count: number;
  last_seen_at: string | null;
  created_at: string;
  suspended_at: string | null;
  credential_expires_at: string | null;
  labels: Record<string, string>;
  bundles: string[] | null;
  certificate: string | null;
  alarm: string;
  /** Why its runtime can't host tasks, so that it gets no jobs; empty: it can host them. */
  unfit: string;
  runtime: Record<string, string>;
  /** The runtimes from central that it reports; empty: it reports none, or its site has the runtime. */
  runtimes: HeldRuntime[];
  /** null: it takes no releases of its software from central, or has reported none. */
  release: HeldRelease | null;
  clock_off_s: number | null;
  facts: Record<string, string>;
  /** null in lists, and if the worker has not reported it recently. */
  usage: { cpus: number; cpu_count: number; memory: number; memory_total: number; disk_free: number } | null;
}

/** A runtime from central that a worker has reported. */
export interface HeldRuntime {
  name: string;
  serial: number;
  /** `preparing`, `ready` or `failed`. */
  phase: string;
  airflow: string;
  task_sdk: string;
  python: string;
  /** Progress, or why it is not usable. */
  detail: string;
}

/** The release of its own software that a worker has reported. */
export interface HeldRelease {
  /** The one that it is to run, or that failed; 0: none is named. */
  serial: number;
  phase: string;
  detail: string;
  /** Whether it runs the release that its site has installed. */
  is_installed: boolean;
}

export interface RunningJob {
  id: string;
  kind: string;
  dag_id: string;
  run_id: string;
  task_id: string;
  map_index: number;
}

export interface FleetCount {
  workers: number;
  online: number;
  silent: number;
  offline: number;
  never_connected: number;
  gone: number;
  flagged: number;
  slots: number;
  used_slots: number;
}

export interface Summary {
  workers: number;
  online: number;
  silent: number;
  flagged: number;
  queued: number;
  running: number;
  unserved: string[];
  unserved_count: number;
}

export interface Queue {
  queue: string;
  queued: number;
  offered: number;
  running: number;
  oldest_queued_at: string | null;
  workers: number;
  slots: number;
  free_slots: number;
  is_unserved: boolean;
  wait_p50_s: number | null;
  wait_p95_s: number | null;
  lost_after_s: number | null;
  /** Globs of the Dag bundles whose jobs it may have; null: any, or those that the rule of `*` allows. */
  bundles: string[] | null;
  /** The runtime from central in which its jobs run; null: `default`. */
  runtime: string | null;
}

export interface History {
  name: string;
  span_s: number;
  at: number[];
  values: Record<string, (number | null)[]>;
}

export interface LogLine {
  at: string;
  level: string;
  logger: string;
  text: string[];
}

export interface LogLines {
  items: LogLine[];
  next: number;
  more: boolean;
}

export const KINDS = [
  "connections",
  "variables",
  "writes",
  "xcoms_of",
  "dags",
  "trigger_dags",
  "assets",
  "asset_writes",
  "code_on_central",
] as const;
export type Kind = (typeof KINDS)[number];

/** The queue `*` means all queues. */
export interface Policy extends Record<Kind, string[]> {
  queue: string;
  mode: "enforce" | "audit" | null;
  changed_at: string;
  changed_by: string;
}

export interface Job {
  id: string;
  kind: string;
  state: JobState;
  queue: string;
  dag_id: string;
  run_id: string;
  task_id: string;
  map_index: number;
  try_number: number;
  worker: string | null;
  offers: number;
  slots: number;
  bundle: string | null;
  /** The version of its bundle that it must run; null: the bundle has no versions. */
  bundle_version: string | null;
  /** Digest of the tree that it runs; null: not offered yet, or its worker has the code. */
  tree: string | null;
  /** The runtime from central that it runs in; null: not offered yet, or its worker's site has the runtime. */
  runtime: JobRuntime | null;
  /** The version of its worker's software; empty: not offered yet. */
  release: string;
  /** Whether it waits for code to be published. */
  code_waits: boolean;
  /** What its worker does before the job starts, such as `code 43 %`. */
  detail: string;
  queued_at: string;
  accepted_at: string | null;
  ended_at: string | null;
  reason: string;
  /** The version of the Dag file that the worker ran, if it differs from the one that central parsed. */
  site_code: string | null;
  /** null in lists, and if the job is not running. */
  usage: { cpus: number; memory: number } | null;
}

export interface JobRuntime {
  tree: string;
  /** Empty: central does not keep the edition any more. */
  name: string;
  serial: number;
}

export interface Waiting {
  /** One sentence. */
  why: string;
}

export interface Bundle {
  name: string;
  /** Digest of the newest published tree; null: it was never published. */
  tree: string | null;
  /** Empty: it has no versions. */
  version: string;
  files: number | null;
  bytes: number | null;
  published_at: string | null;
  /** When the last complete scan began: the tree has every change before it. */
  scanned_at: string | null;
  /** The process that last published or tried to; empty: none did. */
  publisher: string;
  is_publishing: boolean;
  trouble: string;
  /** When a user asked to publish it now; null: nobody did, or it is done. */
  wanted_at: string | null;
  /** Workers that hold the newest tree. */
  workers: number;
  /** Queued jobs that wait for its code. */
  waiting: number;
}

/** A state of a bundle that was published, or a version that jobs need. */
export interface Edition {
  version: string;
  /** null: not published yet. */
  tree: string | null;
  files: number | null;
  bytes: number | null;
  published_at: string | null;
  wanted_at: string | null;
  trouble: string;
  workers: number;
  /** Open jobs that run it. */
  jobs: number;
}

export interface BundleHolder {
  worker: string;
  /** The newest one that it holds. */
  tree: string;
  is_newest: boolean;
}

export interface BundleDetails {
  about: Bundle;
  editions: Edition[];
  holders: BundleHolder[];
  statements: SignedStatement[];
}

/** What a key's owner says about a tree. Central does not verify it. */
export interface SignedStatement {
  tree: string;
  name: string;
  /** 0: bundles have none. */
  serial: number;
  key_ids: string[];
  signed_at: string;
  /** Null: it does not expire. */
  expires_at: string | null;
  has_expired: boolean;
}

/** A runtime that central sends to workers, and its rollout. */
export interface Runtime {
  name: string;
  /** The serial that is rolled out; 0: none yet. */
  serial: number;
  /** The serial of the workers that are not to have the rolled one; 0: none. */
  previous: number;
  /** The newest serial; 0: nothing was built yet. */
  built: number;
  /** Share of the workers with these labels that are to have the rolled serial. */
  percent: number;
  /** Empty: all workers. */
  labels: Record<string, string>;
  /** Why the rollout is halted; empty: it is not. */
  halted: string;
  /** Why the last build failed, for one platform or for all; empty: it did not fail. */
  trouble: string;
  /** Queues with a rule that names it. The runtime `default` is for all other queues, too. */
  queues: string[];
  /** Workers that are to have it. */
  workers: number;
  ready: number;
  preparing: number;
  failed: number;
  /** Workers for whose platform nothing is built. */
  missing: number;
  /** Whether it is built again when central's versions have changed. */
  follow: boolean;
  /** Central's versions at the newest build: `airflow`, `task_sdk`, `provider`. */
  built_with: Record<string, string>;
  updated_at: string;
  updated_by: string;
}

/** The tree of one serial for one platform. */
export interface RuntimeEdition {
  serial: number;
  platform: string;
  tree: string;
  files: number;
  bytes: number;
  published_at: string;
  /** Workers that have it ready. */
  ready: number;
  /** Open jobs that run in it. */
  jobs: number;
}

/** One worker and the runtime that it is to have. */
export interface RuntimeWorker {
  worker: string;
  platform: string;
  /** The serial that it is to have; null: no serial is for its platform. */
  serial: number | null;
  /** `ready`, `preparing`, `failed`; `waiting`: it has not begun; `missing`: nothing is built for its platform. */
  phase: string;
  /** All serials that it has ready. */
  ready_serials: number[];
  /** Empty until it is ready. */
  airflow: string;
  task_sdk: string;
  python: string;
  /** Progress, or why it is not usable and what to do. */
  detail: string;
}

export interface RuntimeDetails {
  about: Runtime;
  requirements: string;
  env: Record<string, string>;
  /** For which the recipe builds it. */
  wanted_platforms: string[];
  build_sdists: boolean;
  /** The newest serial first. */
  editions: RuntimeEdition[];
  /** Those that do not have it ready come first; not all of a large fleet. */
  workers: RuntimeWorker[];
  statements: SignedStatement[];
}

/** Which release of the worker's software is rolled out, and how far. */
export interface ReleasesSummary {
  /** The serial that is rolled out; 0: none yet. */
  serial: number;
  version: string;
  /** 0: the workers that are not to have the rolled one keep what they run. */
  previous: number;
  /** The newest serial. */
  built: number;
  percent: number;
  labels: Record<string, string>;
  halted: string;
  trouble: string;
  /** Workers that take releases from central. */
  workers: number;
  running: number;
  trying: number;
  preparing: number;
  failed: number;
  refused: number;
  /** Whether the release of a newer provider is added and rolled out without a command. */
  follow: boolean;
  updated_at: string;
  updated_by: string;
}

export interface ReleaseEdition {
  serial: number;
  version: string;
  platform: string;
  tree: string;
  files: number;
  bytes: number;
  published_at: string;
  /** Workers that run it. */
  running: number;
}

/** One worker, and the release that it is to run. */
export interface ReleaseWorker {
  worker: string;
  platform: string;
  /** 0: the one that it runs. */
  serial: number;
  version: string;
  /** The version that it runs. */
  runs: string;
  is_installed: boolean;
  /** `running`, `trying`, `preparing`, `failed`, `refused`; `waiting`: it has not begun; empty: none is named. */
  phase: string;
  detail: string;
}

export interface ReleasesDetails {
  about: ReleasesSummary;
  /** The newest serial first. */
  editions: ReleaseEdition[];
  /** Those that do not run what they are to run come first; not all of a large fleet. */
  workers: ReleaseWorker[];
  statements: SignedStatement[];
}

export interface AuditEntry {
  at: string;
  kind: string;
  worker: string | null;
  job_id: string | null;
  actor: string;
  times: number;
  detail: string;
}

export interface Access {
  at: string;
  answer: "granted" | "denied" | "audited";
  kind: string;
  name: string;
  worker: string | null;
  dag_id: string;
  task_id: string;
  job_id: string;
}

export interface Token {
  id: string;
  name_pattern: string;
  queues: string[];
  labels: Record<string, string>;
  uses_left: number;
  created_at: string;
  created_by: string;
  expires_at: string;
  revoked_at: string | null;
}

export interface MadeToken {
  token: string;
  central: string;
  about: Token;
}

export interface ActionResult {
  name: string;
  problem: { detail: string; code: string } | null;
}

export interface BulkResult {
  done: number;
  refused: number;
  workers: ActionResult[];
}

export interface Incident {
  id: string;
  subject: string;
  text: string;
  begun_at: string;
  acknowledged_by: string | null;
}
