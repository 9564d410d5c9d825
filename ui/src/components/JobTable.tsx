/** Jobs as a table, with links to what Airflow shows of them. */

import { Button, Link, Text } from "@chakra-ui/react";
import { useMemo, useState } from "react";
import { act, path, read } from "../api";
import type { Job } from "../types";
import { useAddress, type Address } from "../useAddress";
import type { LongList } from "../useRowsInView";
import { words } from "../words";
import { Ask } from "./Ask";
import { reasonOf, StateMark, When } from "./Facts";
import { Grid, type Column } from "./Grid";
import { runPage, taskName, taskPage } from "./JobLinks";

const OPEN = ["queued", "offered", "running"];

interface JobTableProps {
  jobs: readonly Job[];
  onDone: () => void;
  long?: LongList;
}

export function JobTable({ jobs, onDone, long }: JobTableProps) {
  const { go } = useAddress();
  const [stopped, setStopped] = useState<Job>();
  const columns = useMemo(() => columnsOf(go, setStopped), [go]);
  const { actions, explained } = words();
  return (
    <>
      <Grid columns={columns} keyOf={idOf} label={words().tabs.jobs} rows={jobs} {...(long ? { long } : {})} />
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
          wants={[{ name: "reason", label: words().ask.reason }]}
        />
      ) : null}
    </>
  );
}

function columnsOf(go: Address["go"], onStop: (job: Job) => void): Column<Job>[] {
  const { fields, actions } = words();
  return [
    { name: "state", title: fields.state, cell: (job) => <StateMark job={job} /> },
    {
      name: "task",
      title: fields.task,
      cell: (job) => (job.dag_id ? <Link href={taskPage(job)}>{`${job.dag_id}.${taskName(job)}`}</Link> : job.kind),
    },
    {
      name: "run",
      title: fields.run,
      from: "lg",
      cell: (job) => (job.run_id ? <Link href={runPage(job)}>{job.run_id}</Link> : null),
    },
    { name: "queue", title: fields.queue, from: "md", cell: (job) => job.queue },
    {
      name: "worker",
      title: fields.worker,
      from: "sm",
      cell: (job) =>
        job.worker ? (
          <Button onClick={() => go({ tab: "fleet", worker: job.worker })} px="0" size="xs" variant="plain">
            {job.worker}
          </Button>
        ) : null,
    },
    { name: "since", title: fields.since, from: "md", cell: (job) => <When time={job.ended_at ?? job.accepted_at ?? job.queued_at} /> },
    { name: "reason", title: fields.reason, cell: (job) => (job.state === "queued" ? <Why job={job} /> : reasonOf(job)) },
    {
      name: "stop",
      title: "",
      cell: (job) =>
        OPEN.includes(job.state) ? (
          <Button colorPalette="red" onClick={() => onStop(job)} size="xs" variant="outline">
            {actions.stop}
          </Button>
        ) : null,
    },
  ];
}

export function idOf(job: Job): string {
  return job.id;
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
