/** Queues, jobs, enrolment tokens, the audit: one list each. */

import { Badge, Box, Button, Text } from "@chakra-ui/react";
import { act, path, read, type Problem } from "../api";
import { AuditTable, entryKey } from "../components/AuditTables";
import { Empty, Loading, Span, Tags, Trouble, When } from "../components/Facts";
import { Bar, Choice, Clear, TextFilter } from "../components/Filters";
import { Extent, Grid, type Column } from "../components/Grid";
import { Drawn, useHistory } from "../components/History";
import { idOf, JobTable } from "../components/JobTable";
import { ALL_QUEUES, QueueSheet } from "../components/QueueSheet";
import { pairs } from "../format";
import type { AuditEntry, Job, Listed, Me, Policy, Queue, Token } from "../types";
import { useAddress } from "../useAddress";
import { useEndless } from "../useEndless";
import { useLive } from "../useLive";
import { words } from "../words";

interface ShownProps<T> {
  rows: readonly T[] | undefined;
  problem: Problem | undefined;
  empty: string;
  children: (rows: readonly T[]) => React.ReactNode;
}

/** The list, or what stands in its place. */
function Shown<T>({ rows, problem, empty, children }: ShownProps<T>) {
  return (
    <Box>
      <Trouble problem={problem} />
      {rows ? rows.length ? children(rows) : <Empty>{empty}</Empty> : problem ? null : <Loading />}
    </Box>
  );
}

export function Queues({ me }: { me: Me | undefined }) {
  const address = useAddress();
  const about = address.get("about");
  const live = useLive("queues", (signal) => read<Listed<Queue>>("queues", {}, signal), { of: ["jobs", "workers", "audit"] });
  const history = useHistory("queue");
  const policies = useLive("policies", (signal) => read<Listed<Policy>>("policies", {}, signal), { of: ["audit"] });
  const listed = new Set(live.value?.items.map(({ queue }) => queue));
  /** The list has the queues that have jobs, workers or rules; there are policies of others. */
  const unlisted = live.value && policies.value ? policies.value.items.filter(({ queue }) => queue !== ALL_QUEUES && !listed.has(queue)) : [];
  const { actions, fields, state_of } = words();
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
      cell: (queue) => <Drawn history={history.get(queue.queue)} label={fields.queued} value="queued" />,
    },
    { name: "oldest", from: "sm", title: fields.oldest, cell: (queue) => (queue.oldest_queued_at ? <When time={queue.oldest_queued_at} /> : "–") },
    {
      name: "workers",
      title: fields.workers,
      cell: (queue) => (queue.is_unserved ? <Badge colorPalette="failed">{state_of.unserved}</Badge> : queue.workers),
    },
    { name: "free", from: "sm", title: fields.free, cell: (queue) => `${queue.free_slots}/${queue.slots}` },
    {
      name: "wait",
      from: "lg",
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
      from: "lg",
      title: fields.lostAfter,
      cell: (queue) => (queue.lost_after_s === null ? state_of.asSet : <Span seconds={queue.lost_after_s} />),
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
      <Bar>
        <Button onClick={() => address.set({ about: ALL_QUEUES })} size="xs" variant="outline">
          {actions.allQueues}
        </Button>
        {unlisted.map(({ queue }) => (
          <Button key={queue} onClick={() => address.set({ about: queue })} size="xs" variant="outline">
            {words().policyOf(queue)}
          </Button>
        ))}
      </Bar>
      <Shown empty={state_of.noQueues} problem={live.problem} rows={live.value?.items}>
        {(rows) => <Grid columns={columns} keyOf={(queue) => queue.queue} label={words().tabs.queues} rows={rows} />}
      </Shown>
      {about ? (
        <QueueSheet
          key={about}
          mayManage={me?.may_manage === true}
          name={about}
          onClose={() => address.set({ about: null })}
          onDone={live.again}
          queue={live.value?.items.find((queue) => queue.queue === about)}
        />
      ) : null}
    </Box>
  );
}

const JOB_FILTERS = ["text", "state", "queue", "worker_of", "dag_id", "run_id", "task_id", "older_than_s"] as const;

export function Jobs() {
  const address = useAddress();
  const asked = Object.fromEntries(JOB_FILTERS.map((name) => [name === "worker_of" ? "worker" : name, address.all(name)]));
  const list = useEndless<Job>("jobs", asked, idOf, ["jobs"]);
  const { ages, fields, state, state_of } = words();
  return (
    <Box>
      <Bar>
        <TextFilter label={fields.search} name="text" />
        <Choice choices={state} label={fields.state} name="state" />
        <TextFilter label={fields.queue} name="queue" />
        <TextFilter label={fields.worker} name="worker_of" />
        <TextFilter label={fields.dag} name="dag_id" />
        <TextFilter label={fields.run} name="run_id" />
        <TextFilter label={fields.task} name="task_id" />
        <Choice choices={ages} label={fields.age} name="older_than_s" />
        <Clear names={JOB_FILTERS} />
      </Bar>
      <Shown empty={state_of.noJobs} problem={list.problem} rows={list.rows}>
        {(rows) => (
          <>
            <JobTable jobs={rows} long={{ ...list, total: undefined }} onDone={list.again} />
            <Extent read={rows.length} total={list.isWhole ? rows.length : undefined} />
          </>
        )}
      </Shown>
    </Box>
  );
}

export function Tokens() {
  const live = useLive("tokens", (signal) => read<Listed<Token>>("enrolment-tokens", {}, signal), { of: ["audit"] });
  const { fields, actions, state_of } = words();
  const columns: Column<Token>[] = [
    { name: "pattern", title: fields.pattern, cell: (token) => token.name_pattern },
    { name: "queues", title: fields.queues, cell: (token) => <Tags names={token.queues} /> },
    { name: "labels", title: fields.labels, from: "lg", cell: (token) => <Tags names={pairs(token.labels)} /> },
    { name: "uses", title: fields.uses, cell: (token) => token.uses_left },
    { name: "by", title: fields.actor, from: "md", cell: (token) => token.created_by },
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
    <Shown empty={state_of.noTokens} problem={live.problem} rows={live.value?.items}>
      {(rows) => <Grid columns={columns} keyOf={(token) => token.id} label={words().tabs.tokens} rows={rows} />}
    </Shown>
  );
}

export function Audit() {
  const address = useAddress();
  const list = useEndless<AuditEntry>("audit", { kind: address.get("kind"), worker: address.get("worker_of") }, entryKey, ["audit"]);
  const { fields, state_of } = words();
  return (
    <Box>
      <Bar>
        <TextFilter label={fields.kind} name="kind" />
        <TextFilter label={fields.worker} name="worker_of" />
      </Bar>
      <Shown empty={state_of.noAudit} problem={list.problem} rows={list.rows}>
        {(rows) => <AuditTable long={{ ...list, total: undefined }} rows={rows} />}
      </Shown>
    </Box>
  );
}
