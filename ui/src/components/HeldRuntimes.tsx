/** The runtimes from central that a worker has reported. */

import { Button, Text } from "@chakra-ui/react";
import type { HeldRuntime } from "../types";
import { useAddress } from "../useAddress";
import { words } from "../words";
import { PhaseBadge } from "./Badges";
import { Grid, type Column } from "./Grid";

export function HeldRuntimes({ runtimes }: { runtimes: readonly HeldRuntime[] }) {
  const { go } = useAddress();
  const { fields, runtimeOf, workerRuntimes } = words();
  const columns: Column<HeldRuntime>[] = [
    {
      name: "name",
      title: fields.name,
      cell: ({ name }) => (
        <Button onClick={() => go({ tab: "runtimes", runtime: name })} px="0" size="xs" variant="plain">
          {name}
        </Button>
      ),
    },
    { name: "serial", title: fields.serial, cell: ({ serial }) => serial },
    { name: "phase", title: fields.phase, cell: ({ phase }) => <PhaseBadge phase={phase} /> },
    { name: "versions", title: fields.versions, from: "sm", cell: ({ airflow, task_sdk, python }) => runtimeOf({ airflow, task_sdk, python }) },
    { name: "detail", title: fields.detail, cell: ({ detail }) => <Text fontSize="xs">{detail}</Text> },
  ];
  return <Grid columns={columns} keyOf={({ name, serial }) => `${name} ${serial}`} label={workerRuntimes} rows={runtimes} />;
}
