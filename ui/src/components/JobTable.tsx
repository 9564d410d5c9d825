/** Jobs as a table, with links to what Airflow shows of them. */

import { Button, Link, Text } from "@chakra-ui/react";
import { useState } from "react";
import { act, path, read } from "../api";
import { airflowPage } from "../host";
import type { Job } from "../types";
import { useAddress } from "../useAddress";
import { words } from "../words";
import { Ask } from "./Ask";
import { StateMark, When } from "./Facts";
import { Grid, type Column } from "./Grid";

const OPEN = ["queued", "offered", "running"];

export function JobTable({ jobs, onDone }: { jobs: readonly Job[]; onDone: () => void }) {
  const address = useAddress();
  const [stopped, setStopped] = useState<Job>();
  const { fields, actions, explained } = words();
  const columns: Column<Job>[] = [
    { name: "state", title: fields.state, cell: (job) => <StateMark state={job.state} /> },
    {
      name: "task",
      title: fields.task,
      cell: (job) =>
        job.dag_id ? (
          <Link href={taskPage(job)}>{`${job.dag_id}.${job.task_id}${job.map_index >= 0 ? `[${job.map_index}]` : ""}`}</Link>
        ) : (
          job.kind
        ),
    },
    {
      name: "run",
      title: fields.run,
      cell: (job) => (job.run_id ? <Link href={airflowPage("dags", job.dag_id, "runs", job.run_id)}>{job.run_id}</Link> : null),
    },
    { name: "queue", title: fields.queue, cell: (job) => job.queue },
    {
      name: "worker",
      title: fields.worker,
      cell: (job) =>
        job.worker ? (
          <Button onClick={() => address.set({ tab: "fleet", worker: job.worker })} px="0" size="xs" variant="plain">
            {job.worker}
          </Button>
        ) : null,
    },
    { name: "since", title: fields.since, cell: (job) => <When time={job.ended_at ?? job.accepted_at ?? job.queued_at} /> },
    { name: "reason", title: fields.reason, cell: (job) => (job.state === "queued" ? <Why job={job} /> : job.reason) },
    {
      name: "stop",
      title: "",
      cell: (job) =>
        OPEN.includes(job.state) ? (
          <Button colorPalette="red" onClick={() => setStopped(job)} size="xs" variant="outline">
            {actions.stop}
          </Button>
        ) : null,
    },
  ];
  return (
    <>
      <Grid columns={columns} keyOf={(job) => job.id} label={words().tabs.jobs} rows={jobs} />
      {stopped ? (
        <Ask
          doIt={async ({ reason }) => {
            await act("POST", path("jobs", stopped.id, "stop"), { reason });
            onDone();
          }}
          explained={explained.stop}
          isGrave
          onClose={() => setStopped(undefined)}
          title={actions.stop}
          wants={["reason"]}
        />
      ) : null}
    </>
  );
}

/** Why a job waits: asked for when somebody wants to know. */
function Why({ job }: { job: Job }) {
  const [why, setWhy] = useState("");
  if (why) return <Text fontSize="sm">{why}</Text>;
  async function ask(): Promise<void> {
    setWhy((await read<{ why: string }>(path("jobs", job.id, "waiting"))).why);
  }
  return (
    <Button onClick={() => void ask().catch((error: unknown) => setWhy(String(error)))} px="0" size="xs" variant="plain">
      {words().actions.why}
    </Button>
  );
}

function taskPage(job: Job): string {
  const place = ["dags", job.dag_id, "runs", job.run_id, "tasks", job.task_id];
  return airflowPage(...place, ...(job.map_index >= 0 ? ["mapped", String(job.map_index)] : []));
}
