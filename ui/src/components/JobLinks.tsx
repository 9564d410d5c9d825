/** Links from a job to Airflow's pages of its Dag, run and task. */

import { Box, Button, Link, Text } from "@chakra-ui/react";
import { airflowPage } from "../host";
import type { RunningJob, Worker } from "../types";
import { useAddress } from "../useAddress";
import { words } from "../words";

/** The fields of a job that its links need. */
export type LinkedJob = Pick<RunningJob, "kind" | "dag_id" | "run_id" | "task_id" | "map_index">;

export function taskPage(job: LinkedJob): string {
  const place = ["dags", job.dag_id, "runs", job.run_id, "tasks", job.task_id];
  return airflowPage(...place, ...(job.map_index >= 0 ? ["mapped", String(job.map_index)] : []));
}

export function runPage(job: LinkedJob): string {
  return airflowPage("dags", job.dag_id, "runs", job.run_id);
}

/** Return the task's name as Airflow writes it: a mapped task with its index, a trigger marked as its task's trigger. */
export function taskName(job: LinkedJob): string {
  const name = job.map_index >= 0 ? `${job.task_id}[${job.map_index}]` : job.task_id;
  return job.kind === "trigger" ? words().triggerOf(name) : name;
}

/** A worker's oldest running jobs, and a link to the others. */
export function RunningJobs({ worker }: { worker: Worker }) {
  const address = useAddress();
  const more = worker.running_count - worker.running.length;
  return (
    <Box fontSize="xs">
      {worker.running.map((job) => (
        <Box key={job.id} whiteSpace="nowrap">
          {job.dag_id ? (
            <>
              <Link href={airflowPage("dags", job.dag_id)}>{job.dag_id}</Link>
              {" · "}
              <Link display="inline-block" href={runPage(job)} maxW="10rem" overflow="hidden" textOverflow="ellipsis" title={job.run_id} verticalAlign="bottom">
                {job.run_id}
              </Link>
              {" · "}
              <Link href={taskPage(job)}>{taskName(job)}</Link>
            </>
          ) : (
            <Text as="span">{job.kind}</Text>
          )}
        </Box>
      ))}
      {more > 0 ? (
        <Button
          onClick={() => address.go({ tab: "jobs", worker_of: worker.name, state: "running" })}
          px="0"
          size="2xs"
          variant="plain"
        >
          {words().moreJobs(more)}
        </Button>
      ) : null}
    </Box>
  );
}
