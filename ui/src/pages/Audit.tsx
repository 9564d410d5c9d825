/** The audit: what users and workers did. */

import { Box } from "@chakra-ui/react";
import { AuditTable, entryKey } from "../components/AuditTables";
import { FilterBar, TextFilter } from "../components/Filters";
import { ListOrEmpty } from "../components/ListOrEmpty";
import type { AuditEntry } from "../types";
import { useAddress } from "../useAddress";
import { usePagedList } from "../usePagedList";
import { words } from "../words";

export function Audit() {
  const address = useAddress();
  const list = usePagedList<AuditEntry>("audit", { kind: address.get("kind"), worker: address.get("worker_of") }, entryKey, ["audit"]);
  const { fields, notes } = words();
  return (
    <Box>
      <FilterBar>
        <TextFilter label={fields.kind} name="kind" />
        <TextFilter label={fields.worker} name="worker_of" />
      </FilterBar>
      <ListOrEmpty empty={notes.noAudit} problem={list.problem} rows={list.rows}>
        {(rows) => <AuditTable long={{ ...list, total: undefined }} rows={rows} />}
      </ListOrEmpty>
    </Box>
  );
}
