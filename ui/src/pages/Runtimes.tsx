/** Runtimes that central sends to workers: what is rolled out to whom, and how many workers have it. */

import { Badge, Button, HStack, Text, VStack } from "@chakra-ui/react";
import { read } from "../api";
import { PhaseBadge } from "../components/Badges";
import { BuildCommand } from "../components/Code";
import { Grid, type Column } from "../components/Grid";
import { ListOrEmpty } from "../components/ListOrEmpty";
import { Tags } from "../components/Tags";
import { ERROR_TEXT } from "../colors";
import { pairs } from "../format";
import type { Listed, Runtime } from "../types";
import { useAddress, type Address } from "../useAddress";
import { useLive } from "../useLive";
import { words } from "../words";

/** The runtime of queues that name none. */
const DEFAULT = "default";

export function Runtimes() {
  const address = useAddress();
  const live = useLive("runtimes", (signal) => read<Listed<Runtime>>("runtimes", {}, signal), { subjects: ["runtimes", "workers"] });
  const empty = (
    <>
      {words().notes.noRuntimes} <BuildCommand runtime={DEFAULT} />
    </>
  );
  return (
    <ListOrEmpty empty={empty} problem={live.problem} rows={live.value?.items}>
      {(rows) => <Grid columns={columnsOf(address.set)} keyOf={(runtime) => runtime.name} label={words().tabs.runtimes} rows={rows} />}
    </ListOrEmpty>
  );
}

function columnsOf(set: Address["set"]): Column<Runtime>[] {
  const { fields, notes, runtimeOf } = words();
  return [
    {
      name: "name",
      title: fields.name,
      cell: (runtime) => (
        <Button onClick={() => set({ runtime: runtime.name })} px="0" size="xs" variant="plain">
          {runtime.name}
        </Button>
      ),
    },
    { name: "serial", title: fields.serial, cell: (runtime) => runtime.serial || <Badge colorPalette="up_for_retry">{notes.notRolledOut}</Badge> },
    { name: "newest", title: fields.newestSerial, from: "md", cell: (runtime) => <NewestSerial runtime={runtime} /> },
    { name: "share", title: fields.share, from: "sm", cell: shareOf },
    { name: "workers", title: fields.workers, cell: (runtime) => <WorkersByPhase runtime={runtime} /> },
    { name: "queues", title: fields.queues, from: "lg", cell: (runtime) => <QueuesOf runtime={runtime} /> },
    { name: "built", title: fields.builtWith, from: "lg", cell: (runtime) => runtimeOf(runtime.built_with) },
    { name: "trouble", title: fields.trouble, cell: (runtime) => <RuntimeTrouble runtime={runtime} /> },
  ];
}

/** Return which workers are to have the rolled serial; empty: nothing is rolled out. */
export function shareOf({ serial, percent, labels }: Pick<Runtime, "serial" | "percent" | "labels">): string {
  return serial ? words().share(percent, pairs(labels)) : "";
}

/** The newest serial, marked while it is not rolled out. */
export function NewestSerial({ runtime: { serial, built } }: { runtime: Pick<Runtime, "serial" | "built"> }) {
  return (
    <HStack gap="2">
      <Text as="span">{built || ""}</Text>
      {built > serial ? <Badge colorPalette="up_for_retry">{words().notes.notRolledOut}</Badge> : null}
    </HStack>
  );
}

/** How many of the workers that are to have a runtime are in each phase. */
export function WorkersByPhase({ runtime }: { runtime: Runtime }) {
  const phases = (["ready", "preparing", "failed", "missing"] as const).filter((phase) => runtime[phase] > 0);
  if (!phases.length) return words().workersOf(runtime.workers);
  return (
    <HStack gap="1" wrap="wrap">
      {phases.map((phase) => (
        <PhaseBadge count={runtime[phase]} key={phase} phase={phase} />
      ))}
    </HStack>
  );
}

export function QueuesOf({ runtime: { name, queues } }: { runtime: Runtime }) {
  return <Tags names={name === DEFAULT ? [...queues, words().notes.otherQueues] : queues} />;
}

/** Why the rollout is halted, and why the last build failed. */
function RuntimeTrouble({ runtime: { halted, trouble } }: { runtime: Runtime }) {
  return (
    <VStack align="start" color={ERROR_TEXT} fontSize="xs" gap="1">
      {halted ? <Text>{words().haltedBecause(halted)}</Text> : null}
      {trouble ? <Text>{trouble}</Text> : null}
    </VStack>
  );
}
