/** The open incidents, above the fleet: what needs an operator, and who takes care of it. */

import { Box, Button, HStack, Text } from "@chakra-ui/react";
import { act, path, read } from "../api";
import type { Incident, Listed, Me } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";
import { RelativeTime } from "./Time";

export function OpenIncidents({ me }: { me: Me | undefined }) {
  const live = useLive("incidents", (signal) => read<Listed<Incident>>("incidents", {}, signal));
  const { actions, notes } = words();
  const incidents = live.value?.items ?? [];
  if (!incidents.length) return null;
  return (
    <Box aria-label={notes.incidents} as="ul" borderRadius="md" borderWidth="1px" mb="2" p="2">
      {incidents.map((incident) => (
        <HStack as="li" gap="2" key={incident.id} wrap="wrap">
          <Text fontSize="sm">{incident.text}</Text>
          <RelativeTime time={incident.begun_at} />
          {incident.acknowledged_by !== null ? (
            <Text color="fg.muted" fontSize="sm">
              {words().acknowledged(incident.acknowledged_by)}
            </Text>
          ) : me?.may_manage ? (
            <Button
              aria-label={`${actions.acknowledgeIncident}: ${incident.subject}`}
              onClick={() => void act("POST", path("incidents", incident.id, "acknowledge")).finally(live.refresh)}
              size="xs"
              variant="outline"
            >
              {actions.acknowledgeIncident}
            </Button>
          ) : null}
        </HStack>
      ))}
    </Box>
  );
}
