/** Small things that pages are made of: marks, times, bars, and what stands where there is nothing. */

import { Badge, Box, DataList, HStack, Spinner, Text } from "@chakra-ui/react";
import type { ReactNode } from "react";
import type { Problem } from "../api";
import { duration, moment, relative } from "../format";
import type { Intent, Job, JobState, Presence, Worker } from "../types";
import { useNow } from "../useNow";
import { words, type TaskState } from "../words";

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

export function PresenceMark({ presence }: { presence: Presence }) {
  return (
    <Badge colorPalette={PRESENCES[presence]} whiteSpace="normal">
      {words().presence[presence]}
    </Badge>
  );
}

/** A job's state; of one that has delivered its task's own word, that word: a job may well succeed in bringing a failure. */
export function StateMark({ job }: { job: Pick<Job, "state" | "reason"> }) {
  const task = taskState(job);
  if (task) return <Badge colorPalette={task}>{words().taskState[task]}</Badge>;
  return <Badge colorPalette={STATES[job.state]}>{words().state[job.state]}</Badge>;
}

/** Return what there is to say of how it ended, besides its mark. */
export function reasonOf(job: Pick<Job, "state" | "reason">): string {
  return taskState(job) ? "" : job.reason;
}

/** Return the state that a task left its worker in, as Airflow calls it, if that was no success. */
function taskState({ state, reason }: Pick<Job, "state" | "reason">): TaskState | undefined {
  return state === "succeeded" && Object.hasOwn(words().taskState, reason) ? (reason as TaskState) : undefined;
}

/** What people want of a worker, who and why, and whether it has heard. */
export function Wish({ worker }: { worker: Worker }) {
  const said = worker.intent_by ? words().said(worker.intent_by, worker.intent_reason) : "";
  return (
    <Box>
      <Text as="span">{words().intent[worker.intent]}</Text>
      {worker.intent_until ? <Text as="span">{` ${words().until(moment(worker.intent_until))}`}</Text> : null}
      {worker.intent === "serve" ? null : (
        <Text color="fg.muted" fontSize="xs">
          {said}
        </Text>
      )}
      {worker.intent_heard || worker.presence === "gone" ? null : (
        <Text color="fg.warning" fontSize="xs">
          {words().state_of.unheard}
        </Text>
      )}
    </Box>
  );
}

export type { Intent };

export function When({ time }: { time: string | null }) {
  const now = useNow();
  if (time === null) return <Text as="span">{words().state_of.never}</Text>;
  return (
    <time dateTime={time} title={moment(time)}>
      {relative(time, now)}
    </time>
  );
}

export function Span({ seconds }: { seconds: number | null }) {
  return <Text as="span">{seconds === null ? "–" : duration(seconds)}</Text>;
}

/** Slots that are filled, of those that may be. */
export function SlotsBar({ used, all }: { used: number; all: number }) {
  const part = all ? Math.min(100, (used / all) * 100) : 0;
  return (
    <HStack minW="8rem" title={words().used(used, all)}>
      <Box
        aria-label={words().used(used, all)}
        aria-valuemax={all}
        aria-valuemin={0}
        aria-valuenow={used}
        bg="bg.emphasized"
        borderRadius="sm"
        flex="1"
        h="0.5rem"
        role="meter"
      >
        <Box bg={part >= 100 ? "fg.warning" : "info.fg"} borderRadius="sm" h="100%" w={`${part}%`} />
      </Box>
      <Text fontSize="xs" fontVariantNumeric="tabular-nums">{`${used}/${all}`}</Text>
    </HStack>
  );
}

export interface Fact {
  label: string;
  /** Nothing: it isn't shown. */
  value: ReactNode;
}

/** Facts about one thing, each with its label. */
export function Facts({ facts }: { facts: readonly Fact[] }) {
  return (
    <DataList.Root orientation="horizontal" size="sm">
      {facts
        .filter(({ value }) => value !== null && value !== undefined && value !== "")
        .map(({ label, value }) => (
          <DataList.Item key={label}>
            <DataList.ItemLabel>{label}</DataList.ItemLabel>
            <DataList.ItemValue>{value}</DataList.ItemValue>
          </DataList.Item>
        ))}
    </DataList.Root>
  );
}

export function Tags({ names }: { names: readonly string[] }) {
  return (
    <HStack gap="1" wrap="wrap">
      {names.map((name) => (
        <Badge key={name} variant="outline">
          {name}
        </Badge>
      ))}
    </HStack>
  );
}

/** Say that something could not be read, beside what was read before. */
export function Trouble({ problem }: { problem: Problem | undefined }) {
  if (!problem) return null;
  return (
    <Box bg="bg.error" borderColor="border.error" borderRadius="md" borderWidth="1px" p="2" role="alert">
      <Text color="fg.error">{problem.message}</Text>
    </Box>
  );
}

export function Loading() {
  return (
    <HStack p="4" role="status">
      <Spinner size="sm" />
      <Text>{words().state_of.loading}</Text>
    </HStack>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return (
    <Box borderRadius="md" borderStyle="dashed" borderWidth="1px" p="6" textAlign="center">
      <Text color="fg.muted">{children}</Text>
    </Box>
  );
}
