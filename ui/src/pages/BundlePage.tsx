/** One Dag bundle: its publisher, its last trees and wanted versions, and the workers that hold it. */

import { Badge, Box, Button, Heading, HStack, Text, VStack } from "@chakra-ui/react";
import { path, read } from "../api";
import { PublishCommand, TreeName, VersionName } from "../components/Code";
import { Facts, type Fact } from "../components/Facts";
import { Grid, type Column } from "../components/Grid";
import { ErrorNotice, EmptyNotice, Loading } from "../components/Notices";
import { PublishNow } from "../components/PublishNow";
import { Section } from "../components/Section";
import { Signed } from "../components/Signed";
import { RelativeTime } from "../components/Time";
import { relative } from "../format";
import type { Bundle, BundleDetails, BundleHolder, Edition, Me } from "../types";
import { useAddress, type Address } from "../useAddress";
import { useLive } from "../useLive";
import { useNow } from "../useNow";
import { words } from "../words";
import { filesOf, Publisher } from "./Bundles";
import { ERROR_TEXT } from "../colors";

export function BundlePage({ name, me }: { name: string; me: Me | undefined }) {
  const address = useAddress();
  const found = useLive(`bundle ${name}`, (signal) => read<BundleDetails>(path("bundles", name), {}, signal), { subjects: ["bundles"] });
  const details = found.value;
  return (
    <VStack align="stretch" gap="4">
      <HStack>
        <Button onClick={() => address.set({ bundle: null })} size="xs" variant="outline">
          {words().actions.allBundles}
        </Button>
        <Heading size="md">{name}</Heading>
        {details ? <PublishNow bundle={details.about} mayManage={me?.may_manage === true} onDone={found.refresh} /> : null}
      </HStack>
      <ErrorNotice problem={found.problem} />
      {details ? <Details details={details} go={address.go} /> : found.problem ? null : <Loading />}
    </VStack>
  );
}

function Details({ details: { about, editions, holders, statements }, go }: { details: BundleDetails; go: Address["go"] }) {
  const { bundleEditions, bundleHolders, notes } = words();
  return (
    <>
      <BundleFacts bundle={about} />
      {about.is_publishing ? null : (
        <Text fontSize="sm">
          {notes.publishCommand} <PublishCommand bundle={about.name} />
        </Text>
      )}
      <Section title={bundleEditions}>
        {editions.length ? (
          <Grid columns={editionColumns(about.tree)} keyOf={editionKey} label={bundleEditions} rows={editions} />
        ) : (
          <EmptyNotice>{notes.noEditions}</EmptyNotice>
        )}
      </Section>
      <Section title={bundleHolders}>
        {holders.length ? (
          <Grid columns={holderColumns(go)} keyOf={(holder) => holder.worker} label={bundleHolders} rows={holders} />
        ) : (
          <EmptyNotice>{notes.noHolders}</EmptyNotice>
        )}
      </Section>
      <Signed statements={statements} />
    </>
  );
}

function BundleFacts({ bundle }: { bundle: Bundle }) {
  const { fields, notes, workersOf } = words();
  const facts: Fact[] = [
    { label: fields.publisher, value: <Publisher bundle={bundle} /> },
    { label: fields.trouble, value: bundle.trouble ? <Text color={ERROR_TEXT}>{bundle.trouble}</Text> : null },
    { label: fields.version, value: bundle.version },
    { label: fields.tree, value: bundle.tree === null ? notes.unpublished : <TreeName digest={bundle.tree} /> },
    { label: fields.size, value: filesOf(bundle) },
    { label: fields.published, value: bundle.published_at ? <RelativeTime time={bundle.published_at} /> : null },
    { label: fields.scanned, value: <RelativeTime time={bundle.scanned_at} /> },
    { label: fields.holders, value: workersOf(bundle.workers) },
    { label: fields.codeWaits, value: bundle.waiting ? String(bundle.waiting) : null },
  ];
  return <Facts facts={facts} />;
}

function editionColumns(newest: string | null): Column<Edition>[] {
  const { fields, workersOf } = words();
  return [
    { name: "version", title: fields.version, cell: (edition) => <VersionName version={edition.version} /> },
    { name: "tree", title: fields.tree, cell: (edition) => <EditionTree edition={edition} newest={newest} /> },
    { name: "size", title: fields.size, from: "md", cell: filesOf },
    { name: "published", title: fields.published, from: "sm", cell: (edition) => (edition.published_at ? <RelativeTime time={edition.published_at} /> : "") },
    { name: "holders", title: fields.holders, from: "sm", cell: (edition) => workersOf(edition.workers) },
    { name: "jobs", title: fields.openJobs, from: "md", cell: (edition) => edition.jobs || "" },
    { name: "trouble", title: fields.trouble, cell: (edition) => <EditionTrouble edition={edition} /> },
  ];
}

function EditionTree({ edition: { tree }, newest }: { edition: Edition; newest: string | null }) {
  const { notes } = words();
  if (tree === null) return <Badge colorPalette="up_for_retry">{notes.unpublished}</Badge>;
  return (
    <HStack gap="2">
      <TreeName digest={tree} />
      {tree === newest ? <Badge colorPalette="success">{notes.newest}</Badge> : null}
    </HStack>
  );
}

/** Why a version is not published, and since when jobs need it. */
function EditionTrouble({ edition }: { edition: Edition }) {
  const now = useNow();
  return (
    <Box fontSize="xs">
      {edition.wanted_at === null ? null : <Text>{words().wanted(relative(edition.wanted_at, now))}</Text>}
      <Text color={ERROR_TEXT}>{edition.trouble}</Text>
    </Box>
  );
}

/** Return a key that no two editions share: a bundle may return to an older tree. */
function editionKey(edition: Edition): string {
  return [edition.version, edition.tree, edition.published_at].join(" ");
}

function holderColumns(go: Address["go"]): Column<BundleHolder>[] {
  const { fields, notes } = words();
  return [
    {
      name: "worker",
      title: fields.worker,
      cell: ({ worker }) => (
        <Button onClick={() => go({ tab: "fleet", worker })} px="0" size="xs" variant="plain">
          {worker}
        </Button>
      ),
    },
    { name: "tree", title: fields.tree, cell: ({ tree }) => <TreeName digest={tree} /> },
    {
      name: "newest",
      title: "",
      cell: ({ is_newest }) => <Badge colorPalette={is_newest ? "success" : "removed"}>{is_newest ? notes.newest : notes.older}</Badge>,
    },
  ];
}
