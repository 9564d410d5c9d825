/** One worker: its facts, runtimes, usage, jobs, log and audit, and the actions on it. */

import { Box, Button, Heading, HStack, Text, VStack } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { path, read } from "../api";
import { AccessTable, AuditTable } from "../components/AuditTables";
import { Actions } from "../components/Actions";
import { phaseName, PresenceBadge } from "../components/Badges";
import { Facts, type Fact } from "../components/Facts";
import { HeldRuntimes } from "../components/HeldRuntimes";
import { HistoryChart, useHistory } from "../components/HistoryChart";
import { IntentStatus } from "../components/IntentStatus";
import { JobTable } from "../components/JobTable";
import { EmptyNotice, ErrorNotice, Loading } from "../components/Notices";
import { Section } from "../components/Section";
import { Settings } from "../components/Settings";
import { SlotsBar, usableSlots } from "../components/SlotsBar";
import { Tags } from "../components/Tags";
import { RelativeTime } from "../components/Time";
import { WorkerLog } from "../components/WorkerLog";
import { pairs, size } from "../format";
import type { Access, AuditEntry, HeldRelease, Job, Listed, Me, Worker } from "../types";
import { useAddress } from "../useAddress";
import { useLive } from "../useLive";
import { words } from "../words";
import { ERROR_TEXT } from "../colors";

export function WorkerPage({ name, me }: { name: string; me: Me | undefined }) {
  const address = useAddress();
  const found = useLive(`worker ${name}`, (signal) => read<Worker>(path("workers", name), {}, signal), { subjects: ["workers", "jobs"] });
  const jobs = useLive(`jobs of ${name}`, (signal) => read<Listed<Job>>("jobs", { worker: name, limit: 50 }, signal), { subjects: ["jobs"] });
  const accesses = useLive(`accesses of ${name}`, (signal) => read<Listed<Access>>("accesses", { worker: name, limit: 50 }, signal), { subjects: ["accesses"] });
  const { actions, notes } = words();
  const worker = found.value;
  return (
    <VStack align="stretch" gap="4">
      <HStack>
        <Button onClick={() => address.set({ worker: null })} size="xs" variant="outline">
          {actions.back}
        </Button>
        <Heading size="md">{name}</Heading>
        {worker ? <PresenceBadge presence={worker.presence} /> : null}
      </HStack>
      <ErrorNotice problem={found.problem} />
      {worker ? (
        <>
          {me?.may_manage ? (
            <>
              <Actions onDone={found.refresh} workers={[worker]} />
              <Settings onDone={found.refresh} worker={worker} />
            </>
          ) : null}
          <WorkerFacts worker={worker} />
          {worker.runtimes.length ? (
            <Section title={words().workerRuntimes}>
              <HeldRuntimes runtimes={worker.runtimes} />
            </Section>
          ) : null}
          <Usage name={name} />
          <WorkerHistory worker={worker} />
        </>
      ) : found.problem ? null : (
        <Loading />
      )}
      <Section title={words().workerJobs}>
        {jobs.value?.items.length ? <JobTable jobs={jobs.value.items} onDone={jobs.refresh} /> : <EmptyNotice>{notes.noJobs}</EmptyNotice>}
      </Section>
      <Section title={words().workerAccesses}>
        {accesses.value?.items.length ? <AccessTable rows={accesses.value.items} /> : <EmptyNotice>{notes.noAccesses}</EmptyNotice>}
      </Section>
      {me?.may_manage ? (
        <>
          <Section title={words().log.title}>
            <WorkerLog name={name} />
          </Section>
          <WorkerAudit name={name} />
        </>
      ) : null}
    </VStack>
  );
}

function WorkerHistory({ worker }: { worker: Worker }) {
  const history = useHistory("worker", worker.name).get(worker.name);
  const { fields } = words();
  if (!history) return null;
  return (
    <Section title={words().workerHistory}>
      <HStack gap="6" wrap="wrap">
        <Measure title={fields.online}>
          <HistoryChart history={history} label={fields.online} max={1} value="online" />
        </Measure>
        <Measure title={fields.slots}>
          <HistoryChart history={history} label={fields.slots} max={Math.max(1, worker.slots)} value="used_slots" />
        </Measure>
      </HStack>
    </Section>
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

function WorkerAudit({ name }: { name: string }) {
  const audit = useLive(`audit of ${name}`, (signal) => read<Listed<AuditEntry>>("audit", { worker: name, limit: 50 }, signal), { subjects: ["audit"] });
  return (
    <Section title={words().workerAudit}>
      {audit.value?.items.length ? <AuditTable rows={audit.value.items} /> : <EmptyNotice>{words().notes.noAudit}</EmptyNotice>}
    </Section>
  );
}

function WorkerFacts({ worker }: { worker: Worker }) {
  const { fields } = words();
  const reported = worker.facts;
  const facts: Fact[] = [
    { label: fields.intent, value: <IntentStatus worker={worker} /> },
    { label: fields.slots, value: <SlotsBar all={usableSlots(worker)} used={worker.used_slots} /> },
    { label: fields.queues, value: <Tags names={worker.queues} /> },
    { label: fields.labels, value: pairs(worker.labels).length ? <Tags names={pairs(worker.labels)} /> : null },
    { label: fields.bundles, value: <Tags names={worker.bundles ?? ["*"]} /> },
    { label: fields.team, value: worker.team },
    { label: fields.lastSeen, value: <RelativeTime time={worker.last_seen_at} /> },
    { label: fields.clock, value: worker.clock_off_s === null ? null : words().ahead(worker.clock_off_s) },
    { label: fields.unfit, value: worker.unfit ? <Text color={ERROR_TEXT}>{worker.unfit}</Text> : null },
    { label: fields.alarm, value: worker.alarm },
    { label: fields.host, value: reported["hostname"] },
    { label: fields.system, value: [reported["os"], reported["arch"], reported["python"]].filter(Boolean).join(", ") },
    { label: fields.version, value: reported["version"] },
    { label: fields.release, value: worker.release ? <ReleaseFact release={worker.release} /> : null },
    { label: fields.runtime, value: words().runtimeOf(worker.runtime) },
    { label: fields.joined, value: <RelativeTime time={worker.created_at} /> },
    { label: fields.credential, value: worker.credential_expires_at ? <RelativeTime time={worker.credential_expires_at} /> : null },
    { label: fields.certificate, value: worker.certificate },
  ];
  return <Facts facts={facts} />;
}

/** The release from central that it is to run, and how far it is. */
function ReleaseFact({ release: { serial, phase, detail, is_installed } }: { release: HeldRelease }) {
  const { notes, releaseOf } = words();
  const texts = [...(serial ? [releaseOf(serial, phaseName(phase))] : []), ...(is_installed ? [notes.installed] : []), ...(detail ? [detail] : [])];
  return <Text color={phase === "failed" ? ERROR_TEXT : undefined}>{texts.join("; ")}</Text>;
}

/** What its machine uses. The worker reports it every few seconds while it has jobs. */
function Usage({ name }: { name: string }) {
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
