/** Jobs as a table, with links to Airflow's pages of each. */

import { Button, HStack, Link, Text } from "@chakra-ui/react";
import { useMemo, useState } from "react";
import { act, path, read } from "../api";
import type { Job, Waiting } from "../types";
import { useAddress, type Address } from "../useAddress";
import type { LongList } from "../useRowsInView";
import { words } from "../words";
import { CodeWaitsBadge, reasonOf, StateBadge } from "./Badges";
import { TreeName, VersionName } from "./Code";
import { Dialog } from "./Dialog";
import { Grid, type Column } from "./Grid";
import { runPage, taskName, taskPage } from "./JobLinks";
import { RelativeTime } from "./Time";

const OPEN = ["queued", "offered", "running"];

interface JobTableProps {
  jobs: readonly Job[];
  onDone: () => void;
  long?: LongList;
}

export function JobTable({ jobs, onDone, long }: JobTableProps) {
  const { go } = useAddress();
  const [stopping, setStopping] = useState<Job>();
  const columns = useMemo(() => columnsOf(go, setStopping), [go]);
  const { actions, explanations } = words();
  return (
    <>
      <Grid columns={columns} keyOf={idOf} label={words().tabs.jobs} rows={jobs} {...(long ? { long } : {})} />
      {stopping ? (
        <Dialog
          onConfirm={async ({ reason }) => {
            await act("POST", path("jobs", stopping.id, "stop"), { reason });
            onDone();
          }}
          explanation={explanations.stop}
          isDestructive
          onClose={() => setStopping(undefined)}
          title={actions.stop}
          fields={[{ name: "reason", label: words().prompts.stopReason }]}
        />
      ) : null}
    </>
  );
}

function columnsOf(go: Address["go"], onStop: (job: Job) => void): Column<Job>[] {
  const { fields, actions } = words();
  return [
    { name: "state", title: fields.state, cell: (job) => <StateBadge job={job} /> },
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
    { name: "code", title: fields.code, from: "xl", cell: (job) => <CodeName go={go} job={job} /> },
    { name: "since", title: fields.since, from: "md", cell: (job) => <RelativeTime time={job.ended_at ?? job.accepted_at ?? job.queued_at} /> },
    { name: "reason", title: fields.reason, cell: (job) => (job.state === "queued" ? <WaitingReason job={job} /> : job.detail || reasonOf(job)) },
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

/** Why a job waits. The API computes it for one job, so it is read only when the user asks. */
function WaitingReason({ job }: { job: Job }) {
  const [why, setWhy] = useState("");
  if (why) return <Text fontSize="sm">{why}</Text>;
  async function load(): Promise<void> {
    setWhy((await read<Waiting>(path("jobs", job.id, "waiting"))).why);
  }
  return (
    <HStack gap="2">
      <CodeWaitsBadge job={job} />
      <Button onClick={() => void load().catch((error: unknown) => setWhy(String(error)))} px="0" size="xs" variant="plain">
        {words().actions.why}
      </Button>
    </HStack>
  );
}

/** The bundle of a job, its version, and the tree that it runs. */
function CodeName({ job, go }: { job: Job; go: Address["go"] }) {
  if (!job.bundle) return null;
  return (
    <HStack fontSize="xs" gap="2">
      <Button onClick={() => go({ tab: "bundles", bundle: job.bundle })} px="0" size="xs" variant="plain">
        {job.bundle}
      </Button>
      {job.bundle_version ? <VersionName version={job.bundle_version} /> : null}
      {job.tree ? <TreeName digest={job.tree} /> : null}
    </HStack>
  );
}
