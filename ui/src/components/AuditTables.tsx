/** Tables of audit entries, and of the access that jobs requested. */

import { useMemo } from "react";
import type { Access, AuditEntry } from "../types";
import type { LongList } from "../useRowsInView";
import { words } from "../words";
import { Grid, type Column } from "./Grid";
import { RelativeTime } from "./Time";

export function AuditTable({ rows, long }: { rows: readonly AuditEntry[]; long?: LongList }) {
  const columns = useMemo(() => auditColumns(), []);
  return <Grid columns={columns} keyOf={entryKey} label={words().tabs.audit} rows={rows} {...(long ? { long } : {})} />;
}

/** Return a key that no two entries share. */
export function entryKey(entry: AuditEntry): string {
  return [entry.at, entry.kind, entry.worker, entry.job_id, entry.actor, entry.detail].join(" ");
}

function auditColumns(): Column<AuditEntry>[] {
  const { fields } = words();
  return [
    { name: "at", title: fields.at, cell: (entry) => <RelativeTime time={entry.at} /> },
    { name: "kind", title: fields.kind, cell: (entry) => entry.kind },
    { name: "worker", title: fields.worker, cell: (entry) => entry.worker },
    { name: "actor", title: fields.actor, from: "md", cell: (entry) => entry.actor },
    { name: "times", title: fields.times, from: "lg", cell: (entry) => (entry.times > 1 ? entry.times : "") },
    { name: "detail", title: fields.detail, cell: (entry) => entry.detail },
  ];
}

export function AccessTable({ rows }: { rows: readonly Access[] }) {
  const { fields } = words();
  const columns: Column<Access>[] = [
    { name: "at", title: fields.at, cell: (access) => <RelativeTime time={access.at} /> },
    { name: "answer", title: fields.answer, cell: (access) => access.answer },
    { name: "requested", title: fields.requested, cell: (access) => `${access.kind} ${access.name}` },
    { name: "task", title: fields.task, cell: (access) => `${access.dag_id}.${access.task_id}` },
  ];
  return (
    <Grid
      columns={columns}
      keyOf={(access) => `${access.job_id} ${access.kind} ${access.name} ${access.answer}`}
      label={words().workerAccesses}
      rows={rows}
    />
  );
}
