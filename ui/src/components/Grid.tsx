/** A table: columns that may be sorted by, rows that may be chosen. The API sorts and pages; this shows. */

import { Box, Button, Checkbox, HStack, Table, Text } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { useAddress } from "../useAddress";
import { words } from "../words";

export interface Column<T> {
  name: string;
  title: string;
  /** What the API calls this order; absent: none. */
  order?: string;
  cell: (row: T) => ReactNode;
}

interface GridProps<T> {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
  chosen?: ReadonlySet<string>;
  onChoose?: (keys: ReadonlySet<string>) => void;
}

export function Grid<T>({ label, columns, rows, keyOf, chosen, onChoose }: GridProps<T>) {
  const address = useAddress();
  const order = address.get("order");
  const keys = rows.map(keyOf);
  const all = chosen !== undefined && keys.length > 0 && keys.every((key) => chosen.has(key));

  function choose(some: readonly string[], isChosen: boolean): void {
    const next = new Set(chosen);
    for (const key of some) if (isChosen) next.add(key);
    else next.delete(key);
    onChoose?.(next);
  }

  return (
    <Box overflowX="auto">
      <Table.Root aria-label={label} size="sm">
        <Table.Header>
          <Table.Row>
            {chosen && onChoose ? (
              <Table.ColumnHeader w="2rem">
                <Tick checked={all} label={label} onChange={(is) => choose(keys, is)} />
              </Table.ColumnHeader>
            ) : null}
            {columns.map((column) => (
              <Table.ColumnHeader aria-sort={sorted(order, column.order)} key={column.name}>
                {column.order ? (
                  <Button
                    fontWeight="bold"
                    onClick={() => address.set({ order: order === column.order ? `-${column.order}` : (column.order ?? null) })}
                    px="0"
                    size="xs"
                    variant="plain"
                  >
                    {`${column.title}${order === column.order ? " ▲" : order === `-${column.order}` ? " ▼" : ""}`}
                  </Button>
                ) : (
                  <Text fontSize="xs" fontWeight="bold">
                    {column.title}
                  </Text>
                )}
              </Table.ColumnHeader>
            ))}
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {rows.map((row) => (
            <Table.Row key={keyOf(row)}>
              {chosen && onChoose ? (
                <Table.Cell>
                  <Tick checked={chosen.has(keyOf(row))} label={keyOf(row)} onChange={(is) => choose([keyOf(row)], is)} />
                </Table.Cell>
              ) : null}
              {columns.map((column) => (
                <Table.Cell key={column.name}>{column.cell(row)}</Table.Cell>
              ))}
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </Box>
  );
}

function sorted(order: string, ours: string | undefined): "ascending" | "descending" | "none" {
  if (!ours) return "none";
  return order === ours ? "ascending" : order === `-${ours}` ? "descending" : "none";
}

function Tick({ checked, label, onChange }: { checked: boolean; label: string; onChange: (is: boolean) => void }) {
  return (
    <Checkbox.Root checked={checked} onCheckedChange={({ checked: is }) => onChange(is === true)} size="sm">
      <Checkbox.HiddenInput aria-label={label} />
      <Checkbox.Control />
    </Checkbox.Root>
  );
}

/** Go on to the next page, or back to the first. */
export function Pager({ next }: { next: string | null | undefined }) {
  const address = useAddress();
  const isFirst = !address.get("after");
  if (isFirst && !next) return null;
  return (
    <HStack justify="flex-end" mt="2">
      <Button disabled={isFirst} onClick={() => address.set({ after: null })} size="xs" variant="outline">
        {words().actions.first}
      </Button>
      <Button disabled={!next} onClick={() => address.set({ after: next ?? null })} size="xs" variant="outline">
        {words().actions.more}
      </Button>
    </HStack>
  );
}
