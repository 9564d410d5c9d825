/** Dag bundles: who publishes each, how fresh it is, which workers hold it, and what is wrong. */

import { Badge, Box, Button, Text } from "@chakra-ui/react";
import { read } from "../api";
import { PublishCommand, TreeName, VersionName } from "../components/Code";
import { Grid, type Column } from "../components/Grid";
import { ListOrEmpty } from "../components/ListOrEmpty";
import { PublishNow } from "../components/PublishNow";
import { RelativeTime } from "../components/Time";
import { size } from "../format";
import type { Bundle, Listed, Me } from "../types";
import { useAddress, type Address } from "../useAddress";
import { useLive } from "../useLive";
import { words } from "../words";
import { ERROR_TEXT } from "../colors";

export function Bundles({ me }: { me: Me | undefined }) {
  const address = useAddress();
  const live = useLive("bundles", (signal) => read<Listed<Bundle>>("bundles", {}, signal), { subjects: ["bundles"] });
  const { notes } = words();
  const columns = columnsOf(address.set, me?.may_manage === true, live.refresh);
  const empty = (
    <>
      {notes.noBundles} <PublishCommand bundle="NAME" />
    </>
  );
  return (
    <ListOrEmpty empty={empty} problem={live.problem} rows={live.value?.items}>
      {(rows) => <Grid columns={columns} keyOf={(bundle) => bundle.name} label={words().tabs.bundles} rows={rows} />}
    </ListOrEmpty>
  );
}

function columnsOf(set: Address["set"], mayManage: boolean, onDone: () => void): Column<Bundle>[] {
  const { fields, notes, workersOf } = words();
  return [
    {
      name: "name",
      title: fields.name,
      cell: (bundle) => (
        <Button onClick={() => set({ bundle: bundle.name })} px="0" size="xs" variant="plain">
          {bundle.name}
        </Button>
      ),
    },
    { name: "publisher", title: fields.publisher, from: "md", cell: (bundle) => <Publisher bundle={bundle} /> },
    { name: "version", title: fields.version, from: "lg", cell: (bundle) => <VersionName version={bundle.version} /> },
    {
      name: "tree",
      title: fields.tree,
      cell: (bundle) => (bundle.tree === null ? <Badge colorPalette="up_for_retry">{notes.unpublished}</Badge> : <TreeName digest={bundle.tree} />),
    },
    { name: "scanned", title: fields.scanned, from: "sm", cell: (bundle) => <RelativeTime time={bundle.scanned_at} /> },
    { name: "size", title: fields.size, from: "lg", cell: filesOf },
    { name: "holders", title: fields.holders, from: "sm", cell: (bundle) => workersOf(bundle.workers) },
    { name: "waiting", title: fields.codeWaits, from: "lg", cell: (bundle) => (bundle.waiting ? <Badge colorPalette="queued">{bundle.waiting}</Badge> : "") },
    {
      name: "trouble",
      title: fields.trouble,
      cell: (bundle) => (
        <Text color={ERROR_TEXT} fontSize="xs">
          {bundle.trouble}
        </Text>
      ),
    },
    { name: "publish", title: "", cell: (bundle) => <PublishNow bundle={bundle} mayManage={mayManage} onDone={onDone} /> },
  ];
}

/** The process that publishes a bundle. One that has stopped is no fault: a bundle may be published by hand. */
export function Publisher({ bundle }: { bundle: Bundle }) {
  const { notes } = words();
  if (!bundle.publisher && !bundle.is_publishing) return <Badge colorPalette="failed">{notes.noPublisher}</Badge>;
  return (
    <Box>
      <Text as="span">{bundle.publisher}</Text>
      {bundle.is_publishing ? null : (
        <Text color="fg.muted" fontSize="xs">
          {notes.publisherStopped}
        </Text>
      )}
    </Box>
  );
}

/** Return the number of files of a tree, and their size. */
export function filesOf({ files, bytes }: Pick<Bundle, "files" | "bytes">): string {
  return files === null || bytes === null ? "" : words().files(files, size(bytes));
}
