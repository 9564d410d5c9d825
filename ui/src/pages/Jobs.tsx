/** Jobs, of the Dags that the user may read. */

import { Box } from "@chakra-ui/react";
import { ChoiceFilter, ClearFilters, FilterBar, TextFilter } from "../components/Filters";
import { RowCount } from "../components/Grid";
import { idOf, JobTable } from "../components/JobTable";
import { ListOrEmpty } from "../components/ListOrEmpty";
import type { Job } from "../types";
import { useAddress } from "../useAddress";
import { usePagedList } from "../usePagedList";
import { words } from "../words";

/** Names in the query string. `worker` there is the worker whose page is open, so the filter is `worker_of`. */
const FILTERS = ["text", "state", "queue", "worker_of", "dag_id", "run_id", "task_id", "older_than_s"] as const;

export function Jobs() {
  const address = useAddress();
  const query = Object.fromEntries(FILTERS.map((name) => [name === "worker_of" ? "worker" : name, address.all(name)]));
  const list = usePagedList<Job>("jobs", query, idOf, ["jobs"]);
  const { ages, fields, state, notes } = words();
  return (
    <Box>
      <FilterBar>
        <TextFilter label={fields.search} name="text" />
        <ChoiceFilter choices={state} label={fields.state} name="state" />
        <TextFilter label={fields.queue} name="queue" />
        <TextFilter label={fields.worker} name="worker_of" />
        <TextFilter label={fields.dag} name="dag_id" />
        <TextFilter label={fields.run} name="run_id" />
        <TextFilter label={fields.task} name="task_id" />
        <ChoiceFilter choices={ages} label={fields.age} name="older_than_s" />
        <ClearFilters names={FILTERS} />
      </FilterBar>
      <ListOrEmpty empty={notes.noJobs} problem={list.problem} rows={list.rows}>
        {(rows) => (
          <>
            <JobTable jobs={rows} long={{ ...list, total: undefined }} onDone={list.refresh} />
            <RowCount loaded={rows.length} total={list.isComplete ? rows.length : undefined} />
          </>
        )}
      </ListOrEmpty>
    </Box>
  );
}
