/** The fleet in a line, on Airflow's home page. Says nothing where there is nothing, or where it may not or can't be known. */

import { Badge, HStack, Text } from "@chakra-ui/react";
import { read } from "./api";
import { To } from "./components/To";
import type { Summary } from "./types";
import { useLive } from "./useLive";
import { words } from "./words";

export function Strip() {
  const { value } = useLive("summary", (signal) => read<Summary>("summary", {}, signal), { of: ["workers", "jobs"], everyMs: 15_000 });
  if (!value || (value.workers === 0 && value.queued === 0 && value.running === 0)) return null;
  const { strip, title } = words();
  return (
    <HStack aria-label={title} as="section" borderRadius="md" borderWidth="1px" gap="3" my="2" px="3" py="2" wrap="wrap">
      <To fontWeight="bold" query={{}}>
        {title}
      </To>
      <To query={{ presence: "online" }}>
        <Badge colorPalette="success">{strip.online(value.online)}</Badge>
      </To>
      {value.silent ? (
        <To query={{ presence: "silent" }}>
          <Badge colorPalette="up_for_retry">{strip.silent(value.silent)}</Badge>
        </To>
      ) : null}
      {value.flagged ? (
        <To query={{ flagged: "true" }}>
          <Badge colorPalette="failed">{strip.flagged(value.flagged)}</Badge>
        </To>
      ) : null}
      <To query={{ tab: "jobs", state: "running" }}>
        <Text fontSize="sm">{strip.running(value.running)}</Text>
      </To>
      <To query={{ tab: "jobs", state: "queued" }}>
        <Text fontSize="sm">{strip.queued(value.queued)}</Text>
      </To>
      {value.unserved_count ? (
        <To query={{ tab: "queues" }}>
          <Badge colorPalette="failed">{strip.unserved(value.unserved, value.unserved_count)}</Badge>
        </To>
      ) : null}
    </HStack>
  );
}
