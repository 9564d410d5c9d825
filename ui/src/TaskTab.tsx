/** A tab on Airflow's page of a task: where it ran or runs, how long it waited, and why it waits. */

import { Box, Heading, Text, VStack } from "@chakra-ui/react";
import { path, read } from "./api";
import { Empty, Facts, Loading, reasonOf, Span, StateMark, Trouble, When, type Fact } from "./components/Facts";
import { To } from "./components/To";
import { size } from "./format";
import type { Job, Listed } from "./types";
import { useLive } from "./useLive";
import { words } from "./words";

/** What Airflow's page says of the task that it shows; of a task that is not mapped no index, or -1. */
export interface TaskProps {
  dagId?: string | undefined;
  runId?: string | undefined;
  taskId?: string | undefined;
  mapIndex?: string | undefined;
}

const MOST_TRIES = 50;

export function TaskTab({ dagId, runId, taskId, mapIndex = "-1" }: TaskProps) {
  const query = { dag_id: dagId, run_id: runId, task_id: taskId, map_index: mapIndex, limit: MOST_TRIES };
  const tries = useLive(JSON.stringify(query), (signal) => read<Listed<Job>>("jobs", query, signal), { of: ["jobs"] });
  const [newest, ...earlier] = tries.value?.items ?? [];
  const { task, state_of } = words();
  return (
    <VStack align="stretch" aria-label={task.title} as="section" gap="4" p="4">
      <Trouble problem={tries.problem} />
      {newest ? <Newest job={newest} key={newest.id} /> : tries.value ? <Empty>{state_of.notRemote}</Empty> : tries.problem ? null : <Loading />}
      {earlier.length ? (
        <Box>
          <Heading mb="2" size="sm">
            {task.earlier}
          </Heading>
          {earlier.map((job) => (
            <Text fontSize="sm" key={job.id}>
              {task.tried(job.try_number)} <StateMark job={job} /> {job.worker ? <ToWorker name={job.worker} /> : null} {reasonOf(job)}
            </Text>
          ))}
        </Box>
      ) : null}
    </VStack>
  );
}

function Newest({ job }: { job: Job }) {
  const { fields, task } = words();
  const facts: Fact[] = [
    { label: fields.state, value: <StateMark job={job} /> },
    { label: task.told, value: job.ended_at === null ? <Why job={job} /> : reasonOf(job) },
    { label: fields.worker, value: job.worker ? <ToWorker name={job.worker} /> : null },
    { label: fields.queue, value: <To query={{ tab: "jobs", queue: job.queue }}>{job.queue}</To> },
    { label: task.tryNumber, value: String(job.try_number) },
    { label: task.waited, value: <Waited job={job} /> },
    { label: task.offers, value: job.offers > 1 ? String(job.offers) : null },
    { label: task.ran, value: job.accepted_at && job.ended_at ? <Span seconds={secondsBetween(job.accepted_at, job.ended_at)} /> : null },
    { label: task.code, value: job.site_code ? <Text color="fg.error">{task.codeDiffers(job.worker ?? "", job.site_code.slice(0, 8))}</Text> : null },
    { label: fields.slots, value: job.slots === 1 ? null : String(job.slots) },
  ];
  return (
    <>
      <Facts facts={facts} />
      {job.state === "running" ? <Uses job={job} /> : null}
    </>
  );
}

/** What a running job uses, as its worker says every few seconds. */
function Uses({ job }: { job: Job }) {
  const usage = useLive(`usage of ${job.id}`, (signal) => read<Job>(path("jobs", job.id), {}, signal)).value?.usage;
  const { busy, fields } = words();
  if (!usage) return null;
  const facts: Fact[] = [
    { label: fields.cpus, value: busy(usage.cpus) },
    { label: fields.memory, value: size(usage.memory) },
  ];
  return <Facts facts={facts} />;
}

/** What is the matter with a job that has not ended, in a sentence. */
function Why({ job }: { job: Job }) {
  const told = useLive(`why ${job.id}`, (signal) => read<{ why: string }>(path("jobs", job.id, "waiting"), {}, signal), {
    of: ["jobs", "workers", "audit"],
  });
  return told.problem ? <Trouble problem={told.problem} /> : <Text>{told.value?.why ?? ""}</Text>;
}

function Waited({ job }: { job: Job }) {
  if (job.accepted_at) return <Span seconds={secondsBetween(job.queued_at, job.accepted_at)} />;
  return job.ended_at ? <Span seconds={secondsBetween(job.queued_at, job.ended_at)} /> : <When time={job.queued_at} />;
}

function ToWorker({ name }: { name: string }) {
  return <To query={{ worker: name }}>{name}</To>;
}

function secondsBetween(begin: string, end: string): number {
  return Math.max(0, (Date.parse(end) - Date.parse(begin)) / 1000);
}
