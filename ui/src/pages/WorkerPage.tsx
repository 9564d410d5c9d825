/** One worker: what it is, what it does, what happened to it, and what may be done about it. */

import { Box, Button, Heading, HStack, Text, VStack } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { path, read } from "../api";
import { AccessTable, AuditTable } from "../components/AuditTables";
import { Actions } from "../components/Actions";
import { Empty, Facts, Loading, PresenceMark, SlotsBar, Tags, Trouble, When, Wish, type Fact } from "../components/Facts";
import { Drawn, useHistory } from "../components/History";
import { JobTable } from "../components/JobTable";
import { WorkerLog } from "../components/WorkerLog";
import { Settings } from "../components/Settings";
import { pairs, size } from "../format";
import type { Access, AuditEntry, Job, Listed, Me, Worker } from "../types";
import { useAddress } from "../useAddress";
import { useLive } from "../useLive";
import { words } from "../words";

export function WorkerPage({ name, me }: { name: string; me: Me | undefined }) {
  const address = useAddress();
  const found = useLive(`worker ${name}`, (signal) => read<Worker>(path("workers", name), {}, signal), { of: ["workers", "jobs"] });
  const jobs = useLive(`jobs of ${name}`, (signal) => read<Listed<Job>>("jobs", { worker: name, limit: 50 }, signal), { of: ["jobs"] });
  const accesses = useLive(`accesses of ${name}`, (signal) => read<Listed<Access>>("accesses", { worker: name, limit: 50 }, signal), { of: ["accesses"] });
  const { actions, state_of } = words();
  const worker = found.value;
  return (
    <VStack align="stretch" gap="4">
      <HStack>
        <Button onClick={() => address.set({ worker: null })} size="xs" variant="outline">
          {actions.back}
        </Button>
        <Heading size="md">{name}</Heading>
        {worker ? <PresenceMark presence={worker.presence} /> : null}
      </HStack>
      <Trouble problem={found.problem} />
      {worker ? (
        <>
          {me?.may_manage ? (
            <>
              <Actions onDone={found.again} workers={[worker]} />
              <Settings onDone={found.again} worker={worker} />
            </>
          ) : null}
          <About worker={worker} />
          <Uses name={name} />
          <LastDay worker={worker} />
        </>
      ) : found.problem ? null : (
        <Loading />
      )}
      <Part title={words().workerJobs}>
        {jobs.value?.items.length ? <JobTable jobs={jobs.value.items} onDone={jobs.again} /> : <Empty>{state_of.noJobs}</Empty>}
      </Part>
      <Part title={words().workerAccesses}>
        {accesses.value?.items.length ? <AccessTable rows={accesses.value.items} /> : <Empty>{state_of.noAccesses}</Empty>}
      </Part>
      {me?.may_manage ? (
        <>
          <Part title={words().log.title}>
            <WorkerLog name={name} />
          </Part>
          <WhatHappened name={name} />
        </>
      ) : null}
    </VStack>
  );
}

function LastDay({ worker }: { worker: Worker }) {
  const history = useHistory("worker", worker.name).get(worker.name);
  const { fields } = words();
  if (!history) return null;
  return (
    <Part title={words().workerHistory}>
      <HStack gap="6" wrap="wrap">
        <Measure title={fields.online}>
          <Drawn history={history} label={fields.online} most={1} value="online" />
        </Measure>
        <Measure title={fields.slots}>
          <Drawn history={history} label={fields.slots} most={Math.max(1, worker.slots)} value="used_slots" />
        </Measure>
      </HStack>
    </Part>
  );
}

function Measure({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Box>
      <Text color="fg.muted" fontSize="xs">
        {title}
      </Text>
      {children}
    </Box>
  );
}

function WhatHappened({ name }: { name: string }) {
  const audit = useLive(`audit of ${name}`, (signal) => read<Listed<AuditEntry>>("audit", { worker: name, limit: 50 }, signal), { of: ["audit"] });
  return (
    <Part title={words().workerAudit}>
      {audit.value?.items.length ? <AuditTable rows={audit.value.items} /> : <Empty>{words().state_of.noAudit}</Empty>}
    </Part>
  );
}

function About({ worker }: { worker: Worker }) {
  const { fields } = words();
  const told = worker.facts;
  const all = worker.slots_limit === null ? worker.slots : Math.min(worker.slots, worker.slots_limit);
  const facts: Fact[] = [
    { label: fields.intent, value: <Wish worker={worker} /> },
    { label: fields.slots, value: <SlotsBar all={all} used={worker.used_slots} /> },
    { label: fields.queues, value: <Tags names={worker.queues} /> },
    { label: fields.labels, value: pairs(worker.labels).length ? <Tags names={pairs(worker.labels)} /> : null },
    { label: fields.bundles, value: <Tags names={worker.bundles ?? ["*"]} /> },
    { label: fields.team, value: worker.team },
    { label: fields.lastSeen, value: <When time={worker.last_seen_at} /> },
    { label: fields.clock, value: worker.clock_off_s === null ? null : words().ahead(worker.clock_off_s) },
    { label: fields.unfit, value: worker.unfit ? <Text color="fg.error">{worker.unfit}</Text> : null },
    { label: fields.alarm, value: worker.alarm },
    { label: fields.host, value: told["hostname"] },
    { label: fields.system, value: [told["os"], told["arch"], told["python"]].filter(Boolean).join(", ") },
    { label: fields.version, value: told["version"] },
    { label: fields.runtime, value: words().runtimeOf(worker.runtime) },
    { label: fields.joined, value: <When time={worker.created_at} /> },
    { label: fields.credential, value: worker.credential_expires_at ? <When time={worker.credential_expires_at} /> : null },
    { label: fields.certificate, value: worker.certificate },
  ];
  return <Facts facts={facts} />;
}

/** What its machine uses, as it says every few seconds while it has jobs. */
function Uses({ name }: { name: string }) {
  const usage = useLive(`usage of ${name}`, (signal) => read<Worker>(path("workers", name), {}, signal)).value?.usage;
  const { busy, fields, freeDisk, usedOf } = words();
  if (!usage) return null;
  const facts: Fact[] = [
    { label: fields.cpus, value: busy(usage.cpus, usage.cpu_count) },
    { label: fields.memory, value: usedOf(size(usage.memory), size(usage.memory_total)) },
    { label: fields.disk, value: freeDisk(size(usage.disk_free)) },
  ];
  return <Facts facts={facts} />;
}

function Part({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Box>
      <Heading mb="2" size="sm">
        {title}
      </Heading>
      {children}
    </Box>
  );
}
