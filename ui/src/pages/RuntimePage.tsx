/** One runtime: its rollout, what is built of it, and what each worker has of it. */

import { Badge, Box, Button, Heading, HStack, Text, VStack } from "@chakra-ui/react";
import { act, path, read } from "../api";
import { PhaseBadge } from "../components/Badges";
import { BuildCommand, TreeName } from "../components/Code";
import { Facts, type Fact } from "../components/Facts";
import { Grid, type Column } from "../components/Grid";
import { EmptyNotice, ErrorNotice, Loading } from "../components/Notices";
import { Rollout } from "../components/Rollout";
import { Section } from "../components/Section";
import { Signed } from "../components/Signed";
import { Tags } from "../components/Tags";
import { RelativeTime } from "../components/Time";
import { ERROR_TEXT } from "../colors";
import { pairs } from "../format";
import type { Me, Runtime, RuntimeDetails, RuntimeEdition, RuntimeWorker } from "../types";
import { useAddress, type Address } from "../useAddress";
import { useLive } from "../useLive";
import { words } from "../words";
import { filesOf } from "./Bundles";
import { NewestSerial, QueuesOf, shareOf, WorkersByPhase } from "./Runtimes";

export function RuntimePage({ name, me }: { name: string; me: Me | undefined }) {
  const address = useAddress();
  const found = useLive(`runtime ${name}`, (signal) => read<RuntimeDetails>(path("runtimes", name), {}, signal), { subjects: ["runtimes", "workers"] });
  const details = found.value;
  const send = (verb: string, body?: object) => act<Runtime>("POST", path("runtimes", name, verb), body);
  return (
    <VStack align="stretch" gap="4">
      <HStack>
        <Button onClick={() => address.set({ runtime: null })} size="xs" variant="outline">
          {words().actions.allRuntimes}
        </Button>
        <Heading size="md">{name}</Heading>
        {details && me?.may_manage ? <Rollout details={details} name={name} onDone={found.refresh} send={send} /> : null}
      </HStack>
      <ErrorNotice problem={found.problem} />
      {details ? <Details details={details} go={address.go} /> : found.problem ? null : <Loading />}
    </VStack>
  );
}

function Details({ details, go }: { details: RuntimeDetails; go: Address["go"] }) {
  const { about, editions, statements, workers } = details;
  const { firstWorkers, notes, runtimeEditions, runtimeWorkers } = words();
  return (
    <>
      <RuntimeFacts details={details} />
      <Section title={runtimeEditions}>
        {editions.length ? (
          <Grid columns={editionColumns(about)} keyOf={(edition) => `${edition.serial} ${edition.platform}`} label={runtimeEditions} rows={editions} />
        ) : (
          <EmptyNotice>
            {notes.nothingBuilt} <BuildCommand runtime={about.name} />
          </EmptyNotice>
        )}
      </Section>
      <Section title={runtimeWorkers}>
        {workers.length ? (
          <>
            <Grid columns={workerColumns(go)} keyOf={(row) => row.worker} label={runtimeWorkers} rows={workers} />
            {workers.length < about.workers ? <Text fontSize="xs">{firstWorkers(workers.length, about.workers)}</Text> : null}
          </>
        ) : (
          <EmptyNotice>{notes.noRuntimeWorkers}</EmptyNotice>
        )}
      </Section>
      <Signed statements={statements} />
    </>
  );
}

function RuntimeFacts({ details: { about, requirements, env, wanted_platforms, build_sdists } }: { details: RuntimeDetails }) {
  const { fields, notes, runtimeOf, serialTo, setBy } = words();
  const facts: Fact[] = [
    { label: fields.rolledOut, value: serialTo(about.serial, shareOf(about)) },
    { label: fields.halted, value: about.halted ? <Text color={ERROR_TEXT}>{about.halted}</Text> : null },
    { label: fields.previousSerial, value: about.previous ? String(about.previous) : null },
    { label: fields.newestSerial, value: about.built ? <NewestSerial runtime={about} /> : null },
    { label: fields.trouble, value: about.trouble ? <Text color={ERROR_TEXT}>{about.trouble}</Text> : null },
    { label: fields.workers, value: <WorkersByPhase runtime={about} /> },
    { label: fields.queues, value: <QueuesOf runtime={about} /> },
    { label: fields.builtWith, value: runtimeOf(about.built_with) },
    { label: fields.builds, value: [about.follow ? notes.followsCentral : notes.onCommand, ...(build_sdists ? [notes.buildsSdists] : [])].join("; ") },
    { label: fields.platforms, value: wanted_platforms.length ? <Tags names={wanted_platforms} /> : null },
    { label: fields.requirements, value: requirements.trim() ? <Requirements text={requirements.trim()} /> : null },
    { label: fields.variables, value: pairs(env).length ? <Tags names={pairs(env)} /> : null },
    { label: fields.changed, value: <LastChange about={about} by={setBy(about.updated_by, "")} /> },
  ];
  return <Facts facts={facts} />;
}

function Requirements({ text }: { text: string }) {
  return (
    <Box fontFamily="mono" fontSize="xs" whiteSpace="pre-wrap">
      {text}
    </Box>
  );
}

export function LastChange({ about, by }: { about: Pick<Runtime, "updated_at">; by: string }) {
  return (
    <Text>
      <RelativeTime time={about.updated_at} />
      {by ? ` (${by})` : ""}
    </Text>
  );
}

function editionColumns(about: Runtime): Column<RuntimeEdition>[] {
  const { fields, workersOf } = words();
  return [
    { name: "serial", title: fields.serial, cell: (edition) => <EditionSerial about={about} serial={edition.serial} /> },
    { name: "platform", title: fields.platform, cell: (edition) => edition.platform },
    { name: "tree", title: fields.tree, from: "md", cell: (edition) => <TreeName digest={edition.tree} /> },
    { name: "size", title: fields.size, from: "md", cell: filesOf },
    { name: "published", title: fields.published, from: "md", cell: (edition) => <RelativeTime time={edition.published_at} /> },
    { name: "ready", title: fields.readyAt, cell: (edition) => workersOf(edition.ready) },
    { name: "jobs", title: fields.openJobs, from: "md", cell: (edition) => edition.jobs || "" },
  ];
}

export function EditionSerial({ serial, about }: { serial: number; about: Pick<Runtime, "serial" | "previous"> }) {
  const { notes } = words();
  return (
    <HStack gap="2">
      <Text as="span">{serial}</Text>
      {serial === about.serial ? <Badge colorPalette="success">{notes.rolled}</Badge> : null}
      {serial === about.previous ? <Badge colorPalette="removed">{notes.previous}</Badge> : null}
    </HStack>
  );
}

/** The name of a worker, which opens its page. */
export function WorkerName({ worker, go }: { worker: string; go: Address["go"] }) {
  return (
    <Button onClick={() => go({ tab: "fleet", worker })} px="0" size="xs" variant="plain">
      {worker}
    </Button>
  );
}

function workerColumns(go: Address["go"]): Column<RuntimeWorker>[] {
  const { fields, runtimeOf } = words();
  return [
    { name: "worker", title: fields.worker, cell: ({ worker }) => <WorkerName go={go} worker={worker} /> },
    { name: "platform", title: fields.platform, from: "md", cell: ({ platform }) => platform },
    { name: "serial", title: fields.serial, cell: ({ serial }) => serial ?? "–" },
    { name: "phase", title: fields.phase, cell: ({ phase }) => <PhaseBadge phase={phase} /> },
    { name: "ready", title: fields.readySerials, from: "lg", cell: ({ ready_serials }) => ready_serials.join(", ") },
    { name: "versions", title: fields.versions, from: "lg", cell: ({ airflow, task_sdk, python }) => runtimeOf({ airflow, task_sdk, python }) },
    { name: "detail", title: fields.detail, cell: ({ detail }) => <Text fontSize="xs">{detail}</Text> },
  ];
}
