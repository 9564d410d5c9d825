/** Queues: what waits and runs in each, who serves it, and its rules and policy. */

import { Badge, Box, Button, Text } from "@chakra-ui/react";
import { read } from "../api";
import { FilterBar } from "../components/Filters";
import { Grid, type Column } from "../components/Grid";
import { HistoryChart, useHistory } from "../components/HistoryChart";
import { ListOrEmpty } from "../components/ListOrEmpty";
import { QueueDialog } from "../components/QueueDialog";
import { ALL_QUEUES } from "../components/QueueRules";
import { Duration, RelativeTime } from "../components/Time";
import type { Listed, Me, Policy, Queue } from "../types";
import { useAddress } from "../useAddress";
import { useLive } from "../useLive";
import { words } from "../words";

export function Queues({ me }: { me: Me | undefined }) {
  const address = useAddress();
  const about = address.get("about");
  const live = useLive("queues", (signal) => read<Listed<Queue>>("queues", {}, signal), { subjects: ["jobs", "workers", "audit"] });
  const history = useHistory("queue");
  const policies = useLive("policies", (signal) => read<Listed<Policy>>("policies", {}, signal), { subjects: ["audit"] });
  const listed = new Set(live.value?.items.map(({ queue }) => queue));
  /** Queues that have a policy only: the list has those with jobs, workers or rules. */
  const unlisted = live.value && policies.value ? policies.value.items.filter(({ queue }) => queue !== ALL_QUEUES && !listed.has(queue)) : [];
  const { actions, fields, notes } = words();
  const columns: Column<Queue>[] = [
    {
      name: "queue",
      title: fields.queue,
      cell: (queue) => (
        <Button onClick={() => address.go({ tab: "jobs", queue: queue.queue })} px="0" size="xs" variant="plain">
          {queue.queue}
        </Button>
      ),
    },
    { name: "queued", title: fields.queued, cell: (queue) => queue.queued },
    { name: "running", title: fields.running, cell: (queue) => queue.running + queue.offered },
    {
      name: "depth",
      from: "lg",
      title: fields.depth,
      cell: (queue) => <HistoryChart history={history.get(queue.queue)} label={fields.queued} value="queued" />,
    },
    { name: "oldest", from: "sm", title: fields.oldest, cell: (queue) => (queue.oldest_queued_at ? <RelativeTime time={queue.oldest_queued_at} /> : "–") },
    {
      name: "workers",
      title: fields.workers,
      cell: (queue) => (queue.is_unserved ? <Badge colorPalette="failed">{notes.unserved}</Badge> : queue.workers),
    },
    { name: "free", from: "sm", title: fields.free, cell: (queue) => `${queue.free_slots}/${queue.slots}` },
    {
      name: "wait",
      from: "lg",
      title: fields.wait,
      cell: (queue) => (
        <Text>
          <Duration seconds={queue.wait_p50_s} />
          {" / "}
          <Duration seconds={queue.wait_p95_s} />
        </Text>
      ),
    },
    {
      name: "lost",
      from: "lg",
      title: fields.lostAfter,
      cell: (queue) => (queue.lost_after_s === null ? notes.configured : <Duration seconds={queue.lost_after_s} />),
    },
    {
      name: "policy",
      title: "",
      cell: (queue) => (
        <Button onClick={() => address.set({ about: queue.queue })} size="xs" variant="outline">
          {actions.policy}
        </Button>
      ),
    },
  ];
  return (
    <Box>
      <FilterBar>
        <Button onClick={() => address.set({ about: ALL_QUEUES })} size="xs" variant="outline">
          {actions.allQueues}
        </Button>
        {unlisted.map(({ queue }) => (
          <Button key={queue} onClick={() => address.set({ about: queue })} size="xs" variant="outline">
            {words().policyOf(queue)}
          </Button>
        ))}
      </FilterBar>
      <ListOrEmpty empty={notes.noQueues} problem={live.problem} rows={live.value?.items.filter(({ queue }) => queue !== ALL_QUEUES)}>
        {(rows) => <Grid columns={columns} keyOf={(queue) => queue.queue} label={words().tabs.queues} rows={rows} />}
      </ListOrEmpty>
      {about ? (
        <QueueDialog
          key={about}
          mayManage={me?.may_manage === true}
          name={about}
          onClose={() => address.set({ about: null })}
          onDone={live.refresh}
          queue={live.value?.items.find((queue) => queue.queue === about)}
        />
      ) : null}
    </Box>
  );
}
