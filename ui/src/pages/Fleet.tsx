/** The fleet: who is there, what is wanted of each, and what it is doing. */

import { Box, Button, HStack, Text } from "@chakra-ui/react";
import { useMemo, useState } from "react";
import { read } from "../api";
import { Actions } from "../components/Actions";
import { Empty, Loading, PresenceMark, SlotsBar, Tags, Trouble, When, Wish } from "../components/Facts";
import { Bar, Choice, Clear, TextFilter } from "../components/Filters";
import { Drawn, useHistory } from "../components/History";
import { Extent, Grid, type Column } from "../components/Grid";
import { Running } from "../components/JobLinks";
import { pairs } from "../format";
import type { Fleet as Count, Me, Worker } from "../types";
import { useAddress, type Address } from "../useAddress";
import { useEndless } from "../useEndless";
import { useLive } from "../useLive";
import { words } from "../words";
import { Join } from "./Join";

const FILTERS = ["text", "presence", "intent", "queue", "label", "version", "flagged"] as const;

export function Fleet({ me }: { me: Me | undefined }) {
  const address = useAddress();
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [isJoining, setJoining] = useState(false);
  const filter = Object.fromEntries(FILTERS.map((name) => [name, address.all(name)]));
  const list = useEndless<Worker>("workers", { ...filter, order: address.get("order") }, nameOf, ["workers", "jobs"]);
  const count = useLive(`fleet ${JSON.stringify(filter)}`, (signal) => read<Count>("fleet", filter, signal), { of: ["workers"] });
  const history = useHistory("fleet").get("");
  const { fields, actions, state_of, presence, intent } = words();
  const columns = useMemo(() => columnsOf(address.set), [address.set]);
  const rows = list.rows ?? [];
  const isFiltered = FILTERS.some((name) => address.get(name));
  return (
    <Box>
      <Bar>
        <TextFilter label={fields.search} name="text" />
        <Choice choices={presence} label={fields.presence} name="presence" />
        <Choice choices={intent} label={fields.intent} name="intent" />
        <TextFilter label={fields.queue} name="queue" />
        <TextFilter label={fields.label} name="label" pattern={/^[^=]+=.+$/} />
        <TextFilter label={fields.version} name="version" />
        <Choice choices={{ true: state_of.flagged }} label={fields.flagged} name="flagged" />
        <Clear names={FILTERS} />
        <Text fontSize="sm">{count.value ? words().fleet(count.value.workers, count.value.online, count.value.silent) : ""}</Text>
        <Drawn history={history} label={fields.online} value="online" />
        {me?.may_manage ? (
          <Button colorPalette="brand" ml="auto" onClick={() => setJoining(true)} size="xs">
            {actions.join}
          </Button>
        ) : null}
      </Bar>
      <Trouble problem={list.problem} />
      {chosen.size ? (
        <HStack mb="2">
          <Text fontSize="sm">{words().selected(chosen.size)}</Text>
          <Actions
            onDone={() => {
              setChosen(new Set());
              list.again();
            }}
            workers={rows.filter((worker) => chosen.has(worker.name))}
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
            {...(me?.may_manage ? { chosen, onChoose: setChosen } : {})}
          />
          <Extent read={rows.length} total={list.isWhole ? rows.length : count.value?.workers} />
        </>
      ) : (
        <Empty>{isFiltered ? state_of.noWorkers : state_of.noFleet}</Empty>
      )}
      {isJoining ? <Join onClose={() => setJoining(false)} /> : null}
    </Box>
  );
}

function bound(worker: Worker): number {
  return worker.slots_limit === null ? worker.slots : Math.min(worker.slots, worker.slots_limit);
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
    { name: "presence", title: fields.presence, order: "presence", cell: (worker) => <PresenceMark presence={worker.presence} /> },
    { name: "intent", title: fields.intent, order: "intent", from: "sm", cell: (worker) => <Wish worker={worker} /> },
    { name: "slots", title: fields.slots, order: "used_slots", from: "md", cell: (worker) => <SlotsBar all={bound(worker)} used={worker.used_slots} /> },
    { name: "running", title: fields.running, from: "lg", cell: (worker) => <Running worker={worker} /> },
    { name: "queues", title: fields.queues, from: "lg", cell: (worker) => <Tags names={worker.queues} /> },
    { name: "labels", title: fields.labels, from: "xl", cell: (worker) => <Tags names={pairs(worker.labels)} /> },
    { name: "version", title: fields.version, from: "xl", cell: (worker) => worker.facts["version"] ?? "" },
    { name: "seen", title: fields.lastSeen, order: "last_seen_at", from: "sm", cell: (worker) => <When time={worker.last_seen_at} /> },
    { name: "clock", title: fields.clock, from: "lg", cell: (worker) => (worker.clock_off_s === null ? "" : words().ahead(worker.clock_off_s)) },
    { name: "alarm", title: fields.alarm, cell: (worker) => <Text color="fg.error" fontSize="xs">{[worker.unfit, worker.alarm].filter(Boolean).join(" · ")}</Text> },
  ];
}

function nameOf(worker: Worker): string {
  return worker.name;
}
