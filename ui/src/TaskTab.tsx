/** A tab on Airflow's page of a task instance: its worker, how long it waited, and why it waits. */

import { Box, Heading, HStack, Text, VStack } from "@chakra-ui/react";
import { path, read } from "./api";
import { CodeWaitsBadge, reasonOf, StateBadge } from "./components/Badges";
import { TreeName } from "./components/Code";
import { Facts, type Fact } from "./components/Facts";
import { FleetLink } from "./components/FleetLink";
import { EmptyNotice, ErrorNotice, Loading } from "./components/Notices";
import { Duration, RelativeTime } from "./components/Time";
import { size } from "./format";
import type { Job, JobRuntime, Listed, Waiting } from "./types";
import { useLive, type Pace } from "./useLive";
import { words } from "./words";
import { ERROR_TEXT } from "./colors";

/** What Airflow's page passes of the task instance that it shows. A task that is not mapped has no index, or -1. */
export interface TaskProps {
  dagId?: string | undefined;
  runId?: string | undefined;
  taskId?: string | undefined;
  mapIndex?: string | undefined;
}

const MAX_TRIES = 50;

export function TaskTab({ dagId, runId, taskId, mapIndex = "-1" }: TaskProps) {
  const query = { dag_id: dagId, run_id: runId, task_id: taskId, map_index: mapIndex, limit: MAX_TRIES };
  const tries = useLive(JSON.stringify(query), (signal) => read<Listed<Job>>("jobs", query, signal), { subjects: ["jobs"] });
  const [newest, ...earlier] = tries.value?.items ?? [];
  const { task, notes } = words();
  return (
    <VStack align="stretch" aria-label={task.title} as="section" gap="4" p="4">
      <ErrorNotice problem={tries.problem} />
      {newest ? <NewestTry job={newest} key={newest.id} /> : tries.value ? <EmptyNotice>{notes.notRemote}</EmptyNotice> : tries.problem ? null : <Loading />}
      {earlier.length ? (
        <Box>
          <Heading mb="2" size="sm">
            {task.earlier}
          </Heading>
          {earlier.map((job) => (
            <Text fontSize="sm" key={job.id}>
              {task.tryOf(job.try_number)} <StateBadge job={job} /> {job.worker ? <WorkerLink name={job.worker} /> : null} {reasonOf(job)}
            </Text>
          ))}
        </Box>
      ) : null}
    </VStack>
  );
}

function NewestTry({ job }: { job: Job }) {
  const { fields, task } = words();
  const facts: Fact[] = [
    {
      label: fields.state,
      value: (
        <HStack gap="2">
          <StateBadge job={job} />
          <CodeWaitsBadge job={job} />
        </HStack>
      ),
    },
    { label: task.details, value: job.ended_at === null ? <Explanation job={job} /> : reasonOf(job) },
    { label: fields.worker, value: job.worker ? <WorkerLink name={job.worker} /> : null },
    { label: fields.queue, value: <FleetLink query={{ tab: "jobs", queue: job.queue }}>{job.queue}</FleetLink> },
    { label: task.tryNumber, value: String(job.try_number) },
    { label: task.waited, value: <WaitTime job={job} /> },
    { label: task.offers, value: job.offers > 1 ? String(job.offers) : null },
    { label: task.ran, value: job.accepted_at && job.ended_at ? <Duration seconds={secondsBetween(job.accepted_at, job.ended_at)} /> : null },
    { label: fields.bundle, value: job.bundle ? <FleetLink query={{ tab: "bundles", bundle: job.bundle }}>{job.bundle}</FleetLink> : null },
    { label: fields.bundleVersion, value: job.bundle_version },
    { label: fields.tree, value: job.tree ? <TreeName digest={job.tree} /> : null },
    { label: fields.runtime, value: job.runtime ? <RuntimeName runtime={job.runtime} /> : null },
    { label: fields.release, value: job.release },
    { label: task.code, value: job.site_code ? <Text color={ERROR_TEXT}>{task.codeDiffers(job.worker ?? "", job.site_code.slice(0, 8))}</Text> : null },
    { label: fields.slots, value: job.slots === 1 ? null : String(job.slots) },
  ];
  return (
    <>
      <Facts facts={facts} />
      {job.state === "running" ? <Usage job={job} /> : null}
    </>
  );
}

/** What a running job uses. Its worker reports it every few seconds. */
function Usage({ job }: { job: Job }) {
  const usage = useLive(`usage of ${job.id}`, (signal) => read<Job>(path("jobs", job.id), {}, signal)).value?.usage;
  const { busy, fields } = words();
  if (!usage) return null;
  const facts: Fact[] = [
    { label: fields.cpus, value: busy(usage.cpus) },
    { label: fields.memory, value: size(usage.memory) },
  ];
  return <Facts facts={facts} />;
}

const WAITING: Pace = { subjects: ["jobs", "workers", "audit", "bundles"] };
/** The API sends no notification of the progress of a preparation, such as `code 43 %`. */
const PREPARING: Pace = { everyMs: 2_000 };

/** Why a job that has not ended waits, or what it does, in a sentence. */
function Explanation({ job }: { job: Job }) {
  const pace = job.state === "offered" ? PREPARING : WAITING;
  const answer = useLive(`why ${job.id}`, (signal) => read<Waiting>(path("jobs", job.id, "waiting"), {}, signal), pace);
  return answer.problem ? <ErrorNotice problem={answer.problem} /> : <Text>{answer.value?.why ?? ""}</Text>;
}

function WaitTime({ job }: { job: Job }) {
  if (job.accepted_at) return <Duration seconds={secondsBetween(job.queued_at, job.accepted_at)} />;
  return job.ended_at ? <Duration seconds={secondsBetween(job.queued_at, job.ended_at)} /> : <RelativeTime time={job.queued_at} />;
}

/** A runtime from central, as a link to its page; only its tree if central does not keep the edition any more. */
function RuntimeName({ runtime: { name, serial, tree } }: { runtime: JobRuntime }) {
  if (!name) return <TreeName digest={tree} />;
  return <FleetLink query={{ tab: "runtimes", runtime: name }}>{words().runtimeSerial(name, serial)}</FleetLink>;
}

function WorkerLink({ name }: { name: string }) {
  return <FleetLink query={{ worker: name }}>{name}</FleetLink>;
}

function secondsBetween(begin: string, end: string): number {
  return Math.max(0, (Date.parse(end) - Date.parse(begin)) / 1000);
}
