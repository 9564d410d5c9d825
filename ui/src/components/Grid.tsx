/** A table with sortable columns and selectable rows. The API sorts and pages. */

import { Box, Button, Checkbox, Table, Text } from "@chakra-ui/react";
import { memo, useCallback, type ReactNode } from "react";
import { useAddress } from "../useAddress";
import { useRowsInView, type LongList } from "../useRowsInView";
import { words } from "../words";

export interface Column<T> {
  name: string;
  title: string;
  /** The API's name of this sort order; absent: not sortable. */
  order?: string;
  /** The narrowest page on which the column is shown; absent: any. */
  from?: "sm" | "md" | "lg" | "xl";
  cell: (row: T) => ReactNode;
}

interface GridProps<T> {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
  selected?: ReadonlySet<string>;
  onSelect?: (keys: ReadonlySet<string>) => void;
  /** For lists of any length: only rows in view are rendered, and scrolling loads more. */
  long?: LongList;
}

export function Grid<T>({ label, columns, rows, keyOf, selected, onSelect, long }: GridProps<T>) {
  const view = useRowsInView(rows, keyOf, long);
  const all = selected !== undefined && rows.length > 0 && rows.every((row) => selected.has(keyOf(row)));

  const choose = useCallback(
    (some: readonly string[], isSelected: boolean) => {
      const next = new Set(selected);
      for (const key of some) if (isSelected) next.add(key);
      else next.delete(key);
      onSelect?.(next);
    },
    [selected, onSelect],
  );
  const toggle = selected && onSelect ? choose : undefined;

  return (
    <Box {...view.scroller} {...(long ? { "aria-label": label, role: "region" } : {})} overflowX="auto">
      <Table.Root aria-label={label} size="sm" stickyHeader={long !== undefined} {...view.table}>
        <Table.Header>
          <Table.Row {...(long ? { "aria-rowindex": 1 } : {})}>
            {toggle ? (
              <Table.ColumnHeader w="2rem">
                <RowCheckbox checked={all} label={label} onChange={(is) => toggle(rows.map(keyOf), is)} />
              </Table.ColumnHeader>
            ) : null}
            {columns.map((column) => (
              <HeaderCell column={column} key={column.name} />
            ))}
          </Table.Row>
        </Table.Header>
        <Table.Body {...view.body}>
          {view.pieces.map((piece) => {
            if ("gapPx" in piece) return <Gap columns={columns.length + (toggle ? 1 : 0)} key={`before ${piece.before}`} px={piece.gapPx} />;
            const row = rows[piece.row] as T;
            const key = keyOf(row);
            return (
              <Row
                columns={columns as readonly Column<unknown>[]}
                isSelected={selected?.has(key)}
                key={key}
                name={key}
                onToggle={toggle}
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

function HeaderCell<T>({ column }: { column: Column<T> }) {
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
  isSelected: boolean | undefined;
  onToggle: ((names: readonly string[], isSelected: boolean) => void) | undefined;
  /** Its `aria-rowindex`; the table has `aria-rowcount`. Most rows of a long list are not in the document. */
  place: number | undefined;
}

/** Memoized: scrolling renders only the rows that come into view. */
const Row = memo(function Row({ row, name, columns, isSelected, onToggle, place }: RowProps) {
  return (
    <Table.Row aria-rowindex={place} data-row={name}>
      {onToggle ? (
        <Table.Cell>
          <RowCheckbox checked={isSelected === true} label={name} onChange={(is) => onToggle([name], is)} />
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

/** Takes the height of the rows that are not rendered. */
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

function RowCheckbox({ checked, label, onChange }: { checked: boolean; label: string; onChange: (is: boolean) => void }) {
  return (
    <Checkbox.Root checked={checked} onCheckedChange={({ checked: is }) => onChange(is === true)} size="sm">
      <Checkbox.HiddenInput aria-label={label} />
      <Checkbox.Control />
    </Checkbox.Root>
  );
}

/** How many rows of a long list are loaded. */
export function RowCount({ loaded, total }: { loaded: number; total: number | undefined }) {
  return (
    <Text color="fg.muted" fontSize="xs" mt="1">
      {total === undefined ? words().loadedSoFar(loaded) : words().loadedOf(loaded, total)}
    </Text>
  );
}
