/** Queues, jobs, enrolment tokens, the audit: one list each. */

import { Badge, Box, Button, Text } from "@chakra-ui/react";
import { act, path, read } from "../api";
import { AuditTable } from "../components/AuditTables";
import { Empty, Loading, Span, Tags, Trouble, When } from "../components/Facts";
import { Bar, Choice, TextFilter } from "../components/Filters";
import { Grid, Pager, type Column } from "../components/Grid";
import { Drawn, useHistory } from "../components/History";
import { JobTable } from "../components/JobTable";
import { pairs } from "../format";
import type { AuditEntry, Job, Listed, Queue, Token } from "../types";
import { useAddress } from "../useAddress";
import { useLive, type Live } from "../useLive";
import { words } from "../words";

/** The list, or what stands in its place. */
function Shown<T>({ live, empty, children }: { live: Live<Listed<T>>; empty: string; children: (rows: T[]) => React.ReactNode }) {
  return (
    <Box>
      <Trouble problem={live.problem} />
      {live.value ? live.value.items.length ? children(live.value.items) : <Empty>{empty}</Empty> : live.problem ? null : <Loading />}
      <Pager next={live.value?.next} />
    </Box>
  );
}

export function Queues() {
  const address = useAddress();
  const live = useLive("queues", (signal) => read<Listed<Queue>>("queues", {}, signal));
  const history = useHistory("queue");
  const { fields, state_of } = words();
  const columns: Column<Queue>[] = [
    {
      name: "queue",
      title: fields.queue,
      cell: (queue) => (
        <Button onClick={() => address.set({ tab: "jobs", queue: queue.queue })} px="0" size="xs" variant="plain">
          {queue.queue}
        </Button>
      ),
    },
    { name: "queued", title: fields.queued, cell: (queue) => queue.queued },
    { name: "running", title: fields.running, cell: (queue) => queue.running + queue.offered },
    {
      name: "depth",
      title: fields.depth,
      cell: (queue) => <Drawn history={history.get(queue.queue)} label={fields.queued} value="queued" />,
    },
    { name: "oldest", title: fields.oldest, cell: (queue) => (queue.oldest_queued_at ? <When time={queue.oldest_queued_at} /> : "–") },
    {
      name: "workers",
      title: fields.workers,
      cell: (queue) => (queue.is_unserved ? <Badge colorPalette="failed">{state_of.unserved}</Badge> : queue.workers),
    },
    { name: "free", title: fields.free, cell: (queue) => `${queue.free_slots}/${queue.slots}` },
    {
      name: "wait",
      title: fields.wait,
      cell: (queue) => (
        <Text>
          <Span seconds={queue.wait_p50_s} />
          {" / "}
          <Span seconds={queue.wait_p95_s} />
        </Text>
      ),
    },
    {
      name: "lost",
      title: fields.lostAfter,
      cell: (queue) => (queue.lost_after_s === null ? state_of.asSet : <Span seconds={queue.lost_after_s} />),
    },
  ];
  return (
    <Shown empty={state_of.noQueues} live={live}>
      {(rows) => <Grid columns={columns} keyOf={(queue) => queue.queue} label={words().tabs.queues} rows={rows} />}
    </Shown>
  );
}

export function Jobs() {
  const address = useAddress();
  const names = ["text", "state", "queue", "worker_of", "dag_id", "run_id", "task_id"] as const;
  const asked = Object.fromEntries(names.map((name) => [name === "worker_of" ? "worker" : name, address.get(name)]));
  const query = { ...asked, after: address.get("after") };
  const live = useLive(`jobs ${JSON.stringify(query)}`, (signal) => read<Listed<Job>>("jobs", query, signal));
  const { fields, state, state_of } = words();
  return (
    <Box>
      <Bar>
        <TextFilter label={fields.search} name="text" />
        <Choice choices={state} label={fields.state} name="state" />
        <TextFilter label={fields.queue} name="queue" />
        <TextFilter label={fields.worker} name="worker_of" />
      </Bar>
      <Shown empty={state_of.noJobs} live={live}>
        {(rows) => <JobTable jobs={rows} onDone={live.again} />}
      </Shown>
    </Box>
  );
}

export function Tokens() {
  const live = useLive("tokens", (signal) => read<Listed<Token>>("enrolment-tokens", {}, signal));
  const { fields, actions, state_of } = words();
  const columns: Column<Token>[] = [
    { name: "pattern", title: fields.pattern, cell: (token) => token.name_pattern },
    { name: "queues", title: fields.queues, cell: (token) => <Tags names={token.queues} /> },
    { name: "labels", title: fields.labels, cell: (token) => <Tags names={pairs(token.labels)} /> },
    { name: "uses", title: fields.uses, cell: (token) => token.uses_left },
    { name: "by", title: fields.actor, cell: (token) => token.created_by },
    { name: "expires", title: fields.expires, cell: (token) => <When time={token.revoked_at ?? token.expires_at} /> },
    {
      name: "revoke",
      title: "",
      cell: (token) =>
        token.revoked_at === null ? (
          <Button
            colorPalette="red"
            onClick={() => void act("DELETE", path("enrolment-tokens", token.id)).finally(live.again)}
            size="xs"
            variant="outline"
          >
            {actions.revokeToken}
          </Button>
        ) : null,
    },
  ];
  return (
    <Shown empty={state_of.noTokens} live={live}>
      {(rows) => <Grid columns={columns} keyOf={(token) => token.id} label={words().tabs.tokens} rows={rows} />}
    </Shown>
  );
}

export function Audit() {
  const address = useAddress();
  const query = { kind: address.get("kind"), worker: address.get("worker_of"), after: address.get("after") };
  const live = useLive(`audit ${JSON.stringify(query)}`, (signal) => read<Listed<AuditEntry>>("audit", query, signal));
  const { fields, state_of } = words();
  return (
    <Box>
      <Bar>
        <TextFilter label={fields.kind} name="kind" />
        <TextFilter label={fields.worker} name="worker_of" />
      </Bar>
      <Shown empty={state_of.noAudit} live={live}>
        {(rows) => <AuditTable rows={rows} />}
      </Shown>
    </Box>
  );
}
