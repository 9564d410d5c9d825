/** The fleet: each worker's presence, intent, slots and running jobs. */

import { Box, Button, HStack, Text } from "@chakra-ui/react";
import { useMemo, useState } from "react";
import { read } from "../api";
import { Actions } from "../components/Actions";
import { PresenceBadge } from "../components/Badges";
import { ChoiceFilter, ClearFilters, FilterBar, TextFilter } from "../components/Filters";
import { Grid, RowCount, type Column } from "../components/Grid";
import { HistoryChart, useHistory } from "../components/HistoryChart";
import { IntentStatus } from "../components/IntentStatus";
import { RunningJobs } from "../components/JobLinks";
import { EmptyNotice, ErrorNotice, Loading } from "../components/Notices";
import { OpenIncidents } from "../components/OpenIncidents";
import { SlotsBar, usableSlots } from "../components/SlotsBar";
import { Tags } from "../components/Tags";
import { RelativeTime } from "../components/Time";
import { pairs } from "../format";
import type { FleetCount, Me, Worker } from "../types";
import { useAddress, type Address } from "../useAddress";
import { usePagedList } from "../usePagedList";
import { useLive } from "../useLive";
import { words } from "../words";
import { Join } from "./Join";
import { ERROR_TEXT } from "../colors";

const FILTERS = ["text", "presence", "intent", "queue", "label", "version", "flagged"] as const;

export function Fleet({ me }: { me: Me | undefined }) {
  const address = useAddress();
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [isJoining, setJoining] = useState(false);
  const filter = Object.fromEntries(FILTERS.map((name) => [name, address.all(name)]));
  const list = usePagedList<Worker>("workers", { ...filter, order: address.get("order") }, nameOf, ["workers", "jobs"]);
  const count = useLive(`fleet ${JSON.stringify(filter)}`, (signal) => read<FleetCount>("fleet", filter, signal), { subjects: ["workers"] });
  const history = useHistory("fleet").get("");
  const { fields, actions, notes, presence, intent } = words();
  const columns = useMemo(() => columnsOf(address.set), [address.set]);
  const rows = list.rows ?? [];
  const isFiltered = FILTERS.some((name) => address.get(name));
  return (
    <Box>
      <OpenIncidents me={me} />
      <FilterBar>
        <TextFilter label={fields.search} name="text" />
        <ChoiceFilter choices={presence} label={fields.presence} name="presence" />
        <ChoiceFilter choices={intent} label={fields.intent} name="intent" />
        <TextFilter label={fields.queue} name="queue" />
        <TextFilter label={fields.label} name="label" pattern={/^[^=]+=.+$/} />
        <TextFilter label={fields.version} name="version" />
        <ChoiceFilter choices={{ true: notes.flagged }} label={fields.flagged} name="flagged" />
        <ClearFilters names={FILTERS} />
        <Text fontSize="sm">{count.value ? words().fleet(count.value.workers, count.value.online, count.value.silent) : ""}</Text>
        <HistoryChart history={history} label={fields.online} value="online" />
        {me?.may_manage ? (
          <Button colorPalette="brand" ml="auto" onClick={() => setJoining(true)} size="xs">
            {actions.join}
          </Button>
        ) : null}
      </FilterBar>
      <ErrorNotice problem={list.problem} />
      {selected.size ? (
        <HStack mb="2">
          <Text fontSize="sm">{words().selected(selected.size)}</Text>
          <Actions
            onDone={(refused) => {
              setSelected(new Set(refused)); // what was refused stays selected, with the causes beside it
              list.refresh();
            }}
            workers={rows.filter((worker) => selected.has(worker.name))}
          />
        </HStack>
      ) : null}
      {list.rows === undefined ? (
        list.problem ? null : <Loading />
      ) : rows.length ? (
        <>
          <Grid
            columns={columns}
            keyOf={nameOf}
            label={words().tabs.fleet}
            long={{ ...list, total: count.value?.workers }}
            rows={rows}
            {...(me?.may_manage ? { selected, onSelect: setSelected } : {})}
          />
          <RowCount loaded={rows.length} total={list.isComplete ? rows.length : count.value?.workers} />
        </>
      ) : (
        <EmptyNotice>{isFiltered ? notes.noWorkers : notes.noFleet}</EmptyNotice>
      )}
      {isJoining ? <Join onClose={() => setJoining(false)} /> : null}
    </Box>
  );
}

function columnsOf(set: Address["set"]): Column<Worker>[] {
  const { fields } = words();
  return [
    {
      name: "name",
      title: fields.name,
      order: "name",
      cell: (worker) => (
        <Button onClick={() => set({ worker: worker.name })} px="0" size="xs" variant="plain">
          {worker.name}
        </Button>
      ),
    },
    { name: "presence", title: fields.presence, order: "presence", cell: (worker) => <PresenceBadge presence={worker.presence} /> },
    { name: "intent", title: fields.intent, order: "intent", from: "sm", cell: (worker) => <IntentStatus worker={worker} /> },
    { name: "slots", title: fields.slots, order: "used_slots", from: "md", cell: (worker) => <SlotsBar all={usableSlots(worker)} used={worker.used_slots} /> },
    { name: "running", title: fields.running, from: "lg", cell: (worker) => <RunningJobs worker={worker} /> },
    { name: "queues", title: fields.queues, from: "lg", cell: (worker) => <Tags names={worker.queues} /> },
    { name: "labels", title: fields.labels, from: "xl", cell: (worker) => <Tags names={pairs(worker.labels)} /> },
    { name: "version", title: fields.version, from: "xl", cell: (worker) => worker.facts["version"] ?? "" },
    { name: "seen", title: fields.lastSeen, order: "last_seen_at", from: "sm", cell: (worker) => <RelativeTime time={worker.last_seen_at} /> },
    { name: "clock", title: fields.clock, from: "lg", cell: (worker) => (worker.clock_off_s === null ? "" : words().ahead(worker.clock_off_s)) },
    { name: "alarm", title: fields.alarm, cell: (worker) => <Text color={ERROR_TEXT} fontSize="xs">{[worker.unfit, worker.alarm].filter(Boolean).join(" · ")}</Text> },
  ];
}

function nameOf(worker: Worker): string {
  return worker.name;
}
