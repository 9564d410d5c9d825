/**
 * A summary of the fleet on Airflow's home page. It shows nothing while there are no workers and jobs, and nothing if the user may
 * not see them or reading them fails: an error must not disturb the home page.
 */

import { Badge, HStack, Text } from "@chakra-ui/react";
import { read } from "./api";
import { FleetLink } from "./components/FleetLink";
import type { Summary } from "./types";
import { useLive } from "./useLive";
import { words } from "./words";

export function HomeSummary() {
  const { value } = useLive("summary", (signal) => read<Summary>("summary", {}, signal), { subjects: ["workers", "jobs"], everyMs: 15_000 });
  if (!value || (value.workers === 0 && value.queued === 0 && value.running === 0)) return null;
  const { homeSummary, title } = words();
  return (
    <HStack aria-label={title} as="section" borderRadius="md" borderWidth="1px" gap="3" my="2" px="3" py="2" wrap="wrap">
      <FleetLink fontWeight="bold" query={{}}>
        {title}
      </FleetLink>
      <FleetLink query={{ presence: "online" }}>
        <Badge colorPalette="success">{homeSummary.online(value.online)}</Badge>
      </FleetLink>
      {value.silent ? (
        <FleetLink query={{ presence: "silent" }}>
          <Badge colorPalette="up_for_retry">{homeSummary.silent(value.silent)}</Badge>
        </FleetLink>
      ) : null}
      {value.flagged ? (
        <FleetLink query={{ flagged: "true" }}>
          <Badge colorPalette="failed">{homeSummary.flagged(value.flagged)}</Badge>
        </FleetLink>
      ) : null}
      <FleetLink query={{ tab: "jobs", state: "running" }}>
        <Text fontSize="sm">{homeSummary.running(value.running)}</Text>
      </FleetLink>
      <FleetLink query={{ tab: "jobs", state: "queued" }}>
        <Text fontSize="sm">{homeSummary.queued(value.queued)}</Text>
      </FleetLink>
      {value.unserved_count ? (
        <FleetLink query={{ tab: "queues" }}>
          <Badge colorPalette="failed">{homeSummary.unserved(value.unserved, value.unserved_count)}</Badge>
        </FleetLink>
      ) : null}
    </HStack>
  );
}
