/** Coloured badges for a worker's presence, a job's state and a runtime's phase. */

import { Badge } from "@chakra-ui/react";
import type { Job, JobState, Presence } from "../types";
import { words, type TaskState, type Words } from "../words";

const PRESENCES: Record<Presence, string> = { online: "success", silent: "up_for_retry", offline: "removed", never_connected: "removed", gone: "removed" };
const STATES: Record<JobState, string> = {
  queued: "queued",
  offered: "scheduled",
  running: "running",
  succeeded: "success",
  failed: "failed",
  lost: "upstream_failed",
  revoked: "removed",
};

type Phase = keyof Words["phase"];
const PHASES: Record<Phase, string> = {
  ready: "success",
  running: "success",
  trying: "running",
  preparing: "running",
  waiting: "queued",
  failed: "failed",
  refused: "up_for_retry",
  missing: "up_for_retry",
};

export function PresenceBadge({ presence }: { presence: Presence }) {
  return (
    <Badge colorPalette={PRESENCES[presence]} whiteSpace="normal">
      {words().presence[presence]}
    </Badge>
  );
}

/** How far a worker is with a runtime or a release. Phases that this version of the dashboard does not know are shown as they are. */
export function PhaseBadge({ phase, count }: { phase: string; count?: number }) {
  const { phaseCount } = words();
  const name = phaseName(phase);
  return <Badge colorPalette={isPhase(phase) ? PHASES[phase] : "removed"}>{count === undefined ? name : phaseCount(count, name)}</Badge>;
}

export function phaseName(phase: string): string {
  return isPhase(phase) ? words().phase[phase] : phase;
}

function isPhase(phase: string): phase is Phase {
  return Object.hasOwn(PHASES, phase);
}

/** A job's state. A job succeeds even if it delivers a task's failure: then the badge shows the task's state. */
export function StateBadge({ job }: { job: Pick<Job, "state" | "reason"> }) {
  const task = taskState(job);
  if (task) return <Badge colorPalette={task}>{words().taskState[task]}</Badge>;
  return <Badge colorPalette={STATES[job.state]}>{words().state[job.state]}</Badge>;
}

/** Marks a queued job that waits for code to be published; nothing for other jobs. */
export function CodeWaitsBadge({ job }: { job: Pick<Job, "code_waits"> }) {
  return job.code_waits ? <Badge colorPalette="up_for_retry">{words().notes.waitsForCode}</Badge> : null;
}

/** Return the reason why the job ended; empty if the badge already shows it. */
export function reasonOf(job: Pick<Job, "state" | "reason">): string {
  return taskState(job) ? "" : job.reason;
}

/** Return the state that the task reported, as Airflow names it; undefined if the task succeeded or reported none. */
function taskState({ state, reason }: Pick<Job, "state" | "reason">): TaskState | undefined {
  return state === "succeeded" && Object.hasOwn(words().taskState, reason) ? (reason as TaskState) : undefined;
}
