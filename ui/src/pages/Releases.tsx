/** Releases of the worker's own software: the rollout, what was added, and what each worker runs. */

import { Heading, HStack, Text, VStack } from "@chakra-ui/react";
import { act, read } from "../api";
import { PhaseBadge } from "../components/Badges";
import { AddReleaseCommand, TreeName } from "../components/Code";
import { Facts, type Fact } from "../components/Facts";
import { Grid, type Column } from "../components/Grid";
import { EmptyNotice, ErrorNotice, Loading } from "../components/Notices";
import { Rollout } from "../components/Rollout";
import { Section } from "../components/Section";
import { Signed } from "../components/Signed";
import { RelativeTime } from "../components/Time";
import { ERROR_TEXT } from "../colors";
import type { Me, ReleaseEdition, ReleasesDetails, ReleasesSummary, ReleaseWorker } from "../types";
import { useAddress, type Address } from "../useAddress";
import { useLive } from "../useLive";
import { words } from "../words";
import { filesOf } from "./Bundles";
import { EditionSerial, LastChange, WorkerName } from "./RuntimePage";
import { NewestSerial, shareOf } from "./Runtimes";

export function Releases({ me }: { me: Me | undefined }) {
  const address = useAddress();
  const found = useLive("releases", (signal) => read<ReleasesDetails>("releases", {}, signal), { subjects: ["releases", "workers"] });
  const details = found.value;
  if (!details && found.problem?.status === 404) {
    return (
      <EmptyNotice>
        {words().notes.noReleases} <AddReleaseCommand />
      </EmptyNotice>
    );
  }
  return (
    <VStack align="stretch" gap="4">
      <HStack>
        <Heading size="md">{words().releases}</Heading>
        {details && me?.may_manage ? <Rollout canGoBack details={details} name={words().releases} onDone={found.refresh} send={send} /> : null}
      </HStack>
      <ErrorNotice problem={found.problem} />
      {details ? <Details details={details} go={address.go} /> : found.problem ? null : <Loading />}
    </VStack>
  );
}

function send(verb: string, body?: object): Promise<unknown> {
  return act<ReleasesSummary>("POST", `releases/${verb}`, body);
}

function Details({ details: { about, editions, statements, workers }, go }: { details: ReleasesDetails; go: Address["go"] }) {
  const { firstReleaseWorkers, notes, releaseWorkers, runtimeEditions } = words();
  return (
    <>
      <RolloutFacts about={about} />
      <Section title={runtimeEditions}>
        <Grid columns={editionColumns(about)} keyOf={(edition) => `${edition.serial} ${edition.platform}`} label={runtimeEditions} rows={editions} />
      </Section>
      <Section title={releaseWorkers}>
        {workers.length ? (
          <>
            <Grid columns={workerColumns(go)} keyOf={(row) => row.worker} label={releaseWorkers} rows={workers} />
            {workers.length < about.workers ? <Text fontSize="xs">{firstReleaseWorkers(workers.length, about.workers)}</Text> : null}
          </>
        ) : (
          <EmptyNotice>{notes.noReleaseWorkers}</EmptyNotice>
        )}
      </Section>
      <Signed statements={statements} />
    </>
  );
}

function RolloutFacts({ about }: { about: ReleasesSummary }) {
  const { fields, notes, serialTo, setBy } = words();
  const facts: Fact[] = [
    { label: fields.rolledOut, value: serialTo(about.serial, shareOf(about)) },
    { label: fields.version, value: about.version },
    { label: fields.halted, value: about.halted ? <Text color={ERROR_TEXT}>{about.halted}</Text> : null },
    { label: fields.previousSerial, value: about.previous ? String(about.previous) : null },
    { label: fields.newestSerial, value: <NewestSerial runtime={about} /> },
    { label: fields.trouble, value: about.trouble ? <Text color={ERROR_TEXT}>{about.trouble}</Text> : null },
    { label: fields.workers, value: <WorkersByPhase about={about} /> },
    { label: fields.builds, value: about.follow ? notes.followsCentral : notes.onCommand },
    { label: fields.changed, value: <LastChange about={about} by={setBy(about.updated_by, "")} /> },
  ];
  return <Facts facts={facts} />;
}

/** How many workers are in each phase. */
function WorkersByPhase({ about }: { about: ReleasesSummary }) {
  const phases = (["running", "trying", "preparing", "failed", "refused"] as const).filter((phase) => about[phase] > 0);
  if (!phases.length) return words().workersOf(about.workers);
  return (
    <HStack gap="1" wrap="wrap">
      {phases.map((phase) => (
        <PhaseBadge count={about[phase]} key={phase} phase={phase} />
      ))}
    </HStack>
  );
}

function editionColumns(about: ReleasesSummary): Column<ReleaseEdition>[] {
  const { fields, workersOf } = words();
  return [
    { name: "serial", title: fields.serial, cell: (edition) => <EditionSerial about={about} serial={edition.serial} /> },
    { name: "version", title: fields.version, cell: (edition) => edition.version },
    { name: "platform", title: fields.platform, cell: (edition) => edition.platform },
    { name: "tree", title: fields.tree, from: "md", cell: (edition) => <TreeName digest={edition.tree} /> },
    { name: "size", title: fields.size, from: "md", cell: filesOf },
    { name: "published", title: fields.published, from: "md", cell: (edition) => <RelativeTime time={edition.published_at} /> },
    { name: "running", title: fields.runningAt, cell: (edition) => workersOf(edition.running) },
  ];
}

function workerColumns(go: Address["go"]): Column<ReleaseWorker>[] {
  const { fields, notes } = words();
  return [
    { name: "worker", title: fields.worker, cell: ({ worker }) => <WorkerName go={go} worker={worker} /> },
    { name: "platform", title: fields.platform, from: "md", cell: ({ platform }) => <Text whiteSpace="nowrap">{platform}</Text> },
    { name: "runs", title: fields.runs, cell: ({ runs, is_installed }) => [runs, ...(is_installed ? [notes.installed] : [])].filter(Boolean).join(", ") },
    { name: "serial", title: fields.toRun, cell: ({ serial, version }) => (serial ? `${serial} (${version})` : "–") },
    { name: "phase", title: fields.phase, cell: ({ phase }) => (phase ? <PhaseBadge phase={phase} /> : null) },
    { name: "detail", title: fields.detail, cell: ({ detail }) => <Text fontSize="xs">{detail}</Text> },
  ];
}
