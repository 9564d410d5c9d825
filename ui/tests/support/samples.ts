/** Complete answers of the REST API, each with what a test changes. */

import type { Access, AuditEntry, Bundle, BundleDetails, Edition, FleetCount, Job, Me, Policy, Queue, Runtime, RuntimeDetails, RuntimeEdition, RuntimeWorker, Summary, Token, Worker } from "../../src/types";

export const MANAGER: Me = { name: "op", may_manage: true };
export const VIEWER: Me = { name: "viewer", may_manage: false };

export function makeWorker(changes: Partial<Worker> = {}): Worker {
  return {
    id: `id of ${changes.name ?? "oven-1"}`,
    name: "oven-1",
    presence: "online",
    intent: "serve",
    intent_reason: "",
    intent_by: "",
    intent_at: null,
    intent_until: null,
    intent_heard: true,
    restart_asked_at: null,
    restart_asked_by: null,
    queues: ["default"],
    team: null,
    slots: 4,
    slots_limit: null,
    used_slots: 1,
    running: [],
    running_count: 0,
    last_seen_at: "2026-01-01T11:59:30Z",
    created_at: "2025-12-01T00:00:00Z",
    suspended_at: null,
    credential_expires_at: null,
    labels: {},
    bundles: null,
    certificate: null,
    alarm: "",
    unfit: "",
    runtime: {},
    runtimes: [],
    release: null,
    clock_off_s: null,
    facts: { version: "1.2.0", hostname: "kiel-7", os: "Linux", arch: "x86_64", python: "3.12" },
    usage: null,
    ...changes,
  };
}

export function makeJob(changes: Partial<Job> = {}): Job {
  return {
    id: "job-1",
    kind: "task",
    state: "running",
    queue: "default",
    dag_id: "bake",
    run_id: "manual__1",
    task_id: "heat",
    map_index: -1,
    try_number: 1,
    worker: "oven-1",
    offers: 1,
    slots: 1,
    bundle: null,
    bundle_version: null,
    tree: null,
    code_waits: false,
    detail: "",
    queued_at: "2026-01-01T11:00:00Z",
    accepted_at: "2026-01-01T11:01:00Z",
    ended_at: null,
    reason: "",
    runtime: null,
    release: "",
    site_code: null,
    usage: null,
    ...changes,
  };
}

export function makeQueue(changes: Partial<Queue> = {}): Queue {
  return {
    queue: "default",
    queued: 2,
    offered: 1,
    running: 3,
    oldest_queued_at: "2026-01-01T11:58:00Z",
    workers: 5,
    slots: 20,
    free_slots: 16,
    is_unserved: false,
    wait_p50_s: 1.5,
    wait_p95_s: 90,
    lost_after_s: null,
    bundles: null,
    runtime: null,
    ...changes,
  };
}

/** Digests of trees, the older and the newer one. */
export const TREES = ["0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4)] as const;

export function makeBundle(changes: Partial<Bundle> = {}): Bundle {
  return {
    name: "dags",
    tree: TREES[0],
    version: "",
    files: 12,
    bytes: 3_400_000,
    published_at: "2026-01-01T11:00:00Z",
    scanned_at: "2026-01-01T11:59:50Z",
    publisher: "API server kiel-1",
    is_publishing: true,
    trouble: "",
    wanted_at: null,
    workers: 2,
    waiting: 0,
    ...changes,
  };
}

export function makeEdition(changes: Partial<Edition> = {}): Edition {
  return {
    version: "",
    tree: TREES[0],
    files: 12,
    bytes: 3_400_000,
    published_at: "2026-01-01T11:00:00Z",
    wanted_at: null,
    trouble: "",
    workers: 2,
    jobs: 0,
    ...changes,
  };
}

export function makeBundleDetails(changes: Partial<BundleDetails> = {}): BundleDetails {
  return { about: makeBundle(), editions: [makeEdition()], holders: [{ worker: "oven-1", tree: TREES[0], is_newest: true }], statements: [], ...changes };
}

export function makeRuntime(changes: Partial<Runtime> = {}): Runtime {
  return {
    name: "default",
    serial: 2,
    previous: 1,
    built: 2,
    percent: 100,
    labels: {},
    halted: "",
    trouble: "",
    queues: [],
    workers: 3,
    ready: 3,
    preparing: 0,
    failed: 0,
    missing: 0,
    follow: true,
    built_with: { airflow: "3.3.2", task_sdk: "1.3.2", provider: "1.2.0" },
    updated_at: "2026-01-01T11:00:00Z",
    updated_by: "ann",
    ...changes,
  };
}

export function makeRuntimeEdition(changes: Partial<RuntimeEdition> = {}): RuntimeEdition {
  return {
    serial: 2,
    platform: "cp311-linux-gnu-x86_64",
    tree: TREES[0],
    files: 3555,
    bytes: 81_000_000,
    published_at: "2026-01-01T11:00:00Z",
    ready: 3,
    jobs: 0,
    ...changes,
  };
}

export function makeRuntimeWorker(changes: Partial<RuntimeWorker> = {}): RuntimeWorker {
  return {
    worker: "oven-1",
    platform: "cp311-linux-gnu-x86_64",
    serial: 2,
    phase: "ready",
    ready_serials: [1, 2],
    airflow: "3.3.2",
    task_sdk: "1.3.2",
    python: "3.11.9",
    detail: "",
    ...changes,
  };
}

export function makeRuntimeDetails(changes: Partial<RuntimeDetails> = {}): RuntimeDetails {
  return {
    about: makeRuntime(),
    requirements: "",
    env: {},
    wanted_platforms: [],
    build_sdists: false,
    editions: [makeRuntimeEdition(), makeRuntimeEdition({ serial: 1, tree: TREES[1], ready: 1, published_at: "2026-01-01T10:00:00Z" })],
    workers: [makeRuntimeWorker()],
    statements: [],
    ...changes,
  };
}

export function makePolicy(changes: Partial<Policy> = {}): Policy {
  return {
    queue: "default",
    mode: "enforce",
    changed_at: "2026-01-01T10:00:00Z",
    changed_by: "ann",
    connections: ["plant_*"],
    variables: [],
    writes: [],
    xcoms_of: [],
    dags: [],
    trigger_dags: [],
    assets: [],
    asset_writes: [],
    code_on_central: [],
    ...changes,
  };
}

export function makeToken(changes: Partial<Token> = {}): Token {
  return {
    id: "token-1",
    name_pattern: "edge-*",
    queues: ["default", "ovens"],
    labels: { site: "kiel" },
    uses_left: 3,
    created_at: "2026-01-01T12:00:00Z",
    created_by: "ann",
    expires_at: "2026-01-01T13:00:00Z",
    revoked_at: null,
    ...changes,
  };
}

export function makeEntry(changes: Partial<AuditEntry> = {}): AuditEntry {
  return { at: "2026-01-01T11:00:00Z", kind: "action", worker: "oven-1", job_id: null, actor: "ann", times: 1, detail: "paused", ...changes };
}

export function makeAccess(changes: Partial<Access> = {}): Access {
  return {
    at: "2026-01-01T11:00:00Z",
    answer: "denied",
    kind: "connections",
    name: "plant_db",
    worker: "oven-1",
    dag_id: "bake",
    task_id: "heat",
    job_id: "job-1",
    ...changes,
  };
}

export function makeCount(changes: Partial<FleetCount> = {}): FleetCount {
  return { workers: 2, online: 1, silent: 1, offline: 0, never_connected: 0, gone: 0, flagged: 0, slots: 8, used_slots: 1, ...changes };
}

export function makeSummary(changes: Partial<Summary> = {}): Summary {
  return { workers: 3, online: 2, silent: 0, flagged: 0, queued: 4, running: 5, unserved: [], unserved_count: 0, ...changes };
}

/** For callbacks that a test does not expect to be called. */
export function NEVER_CALLED(): void {
  throw new Error("called without need");
}
