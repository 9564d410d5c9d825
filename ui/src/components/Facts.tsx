/** Facts about one thing, each with its label. */

import { DataList } from "@chakra-ui/react";
import type { ReactNode } from "react";

export interface Fact {
  label: string;
  /** null, undefined or an empty text: the fact is not shown. */
  value: ReactNode;
}

export function Facts({ facts }: { facts: readonly Fact[] }) {
  return (
    <DataList.Root orientation="horizontal" size="sm">
      {facts
        .filter(({ value }) => value !== null && value !== undefined && value !== "")
        .map(({ label, value }) => (
          <DataList.Item key={label}>
            <DataList.ItemLabel>{label}</DataList.ItemLabel>
            <DataList.ItemValue>{value}</DataList.ItemValue>
          </DataList.Item>
        ))}
    </DataList.Root>
  );
}
