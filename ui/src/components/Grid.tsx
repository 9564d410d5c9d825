/** A table: columns that may be sorted by, rows that may be chosen. The API sorts and pages; this shows. */

import { Box, Button, Checkbox, Table, Text } from "@chakra-ui/react";
import { memo, useCallback, type ReactNode } from "react";
import { useAddress } from "../useAddress";
import { useRowsInView, type LongList } from "../useRowsInView";
import { words } from "../words";

export interface Column<T> {
  name: string;
  title: string;
  /** What the API calls this order; absent: none. */
  order?: string;
  /** The narrowest page that it is shown on; absent: any. */
  from?: "sm" | "md" | "lg" | "xl";
  cell: (row: T) => ReactNode;
}

interface GridProps<T> {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
  chosen?: ReadonlySet<string>;
  onChoose?: (keys: ReadonlySet<string>) => void;
  /** Of a list without an end in sight: only what is in view is drawn, and more is read on the way. */
  long?: LongList;
}

export function Grid<T>({ label, columns, rows, keyOf, chosen, onChoose, long }: GridProps<T>) {
  const view = useRowsInView(rows, keyOf, long);
  const all = chosen !== undefined && rows.length > 0 && rows.every((row) => chosen.has(keyOf(row)));

  const choose = useCallback(
    (some: readonly string[], isChosen: boolean) => {
      const next = new Set(chosen);
      for (const key of some) if (isChosen) next.add(key);
      else next.delete(key);
      onChoose?.(next);
    },
    [chosen, onChoose],
  );
  const tick = chosen && onChoose ? choose : undefined;

  return (
    <Box {...view.scroller} {...(long ? { "aria-label": label, role: "region" } : {})} overflowX="auto">
      <Table.Root aria-label={label} size="sm" stickyHeader={long !== undefined} {...view.table}>
        <Table.Header>
          <Table.Row {...(long ? { "aria-rowindex": 1 } : {})}>
            {tick ? (
              <Table.ColumnHeader w="2rem">
                <Tick checked={all} label={label} onChange={(is) => tick(rows.map(keyOf), is)} />
              </Table.ColumnHeader>
            ) : null}
            {columns.map((column) => (
              <Head column={column} key={column.name} />
            ))}
          </Table.Row>
        </Table.Header>
        <Table.Body {...view.body}>
          {view.pieces.map((piece) => {
            if ("gapPx" in piece) return <Gap columns={columns.length + (tick ? 1 : 0)} key={`before ${piece.before}`} px={piece.gapPx} />;
            const row = rows[piece.row] as T;
            const key = keyOf(row);
            return (
              <Row
                columns={columns as readonly Column<unknown>[]}
                isChosen={chosen?.has(key)}
                key={key}
                name={key}
                onTick={tick}
                place={long ? piece.row + 2 : undefined}
                row={row}
              />
            );
          })}
        </Table.Body>
      </Table.Root>
    </Box>
  );
}

function Head<T>({ column }: { column: Column<T> }) {
  const address = useAddress();
  const order = address.get("order");
  return (
    <Table.ColumnHeader aria-sort={sorted(order, column.order)} {...shownFrom(column)}>
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
  );
}

interface RowProps {
  row: unknown;
  name: string;
  columns: readonly Column<unknown>[];
  isChosen: boolean | undefined;
  onTick: ((names: readonly string[], isChosen: boolean) => void) | undefined;
  /** Of how many, says the table: most rows of a long list are not in the page. */
  place: number | undefined;
}

/** Drawn anew only when what it shows is another: scrolling draws what comes into view, nothing else. */
const Row = memo(function Row({ row, name, columns, isChosen, onTick, place }: RowProps) {
  return (
    <Table.Row aria-rowindex={place} data-row={name}>
      {onTick ? (
        <Table.Cell>
          <Tick checked={isChosen === true} label={name} onChange={(is) => onTick([name], is)} />
        </Table.Cell>
      ) : null}
      {columns.map((column) => (
        <Table.Cell key={column.name} {...shownFrom(column)}>
          {column.cell(row)}
        </Table.Cell>
      ))}
    </Table.Row>
  );
});

/** As high as the rows that are not drawn. */
function Gap({ px, columns }: { px: number; columns: number }) {
  return (
    <tr aria-hidden="true">
      <td colSpan={columns} style={{ height: px, padding: 0 }} />
    </tr>
  );
}

function shownFrom<T>({ from }: Column<T>): { hideBelow?: string } {
  return from ? { hideBelow: from } : {};
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

/** Say how much of a long list has been read. */
export function Extent({ read, total }: { read: number; total: number | undefined }) {
  return (
    <Text color="fg.muted" fontSize="xs" mt="1">
      {total === undefined ? words().readSoFar(read) : words().readOf(read, total)}
    </Text>
  );
}
