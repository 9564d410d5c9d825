/** Used slots of all slots, as a bar. */

import { Box, HStack, Text } from "@chakra-ui/react";
import type { Worker } from "../types";
import { words } from "../words";

/** Return how many slots a worker may fill: what it offers, within the limit that administrators set. */
export function usableSlots(worker: Worker): number {
  return worker.slots_limit === null ? worker.slots : Math.min(worker.slots, worker.slots_limit);
}

export function SlotsBar({ used, all }: { used: number; all: number }) {
  const percent = all ? Math.min(100, (used / all) * 100) : 0;
  return (
    <HStack minW="8rem" title={words().used(used, all)}>
      <Box
        aria-label={words().used(used, all)}
        aria-valuemax={all}
        aria-valuemin={0}
        aria-valuenow={used}
        bg="bg.emphasized"
        borderRadius="sm"
        flex="1"
        h="0.5rem"
        role="meter"
      >
        <Box bg={percent >= 100 ? "fg.warning" : "info.fg"} borderRadius="sm" h="100%" w={`${percent}%`} />
      </Box>
      <Text fontSize="xs" fontVariantNumeric="tabular-nums">{`${used}/${all}`}</Text>
    </HStack>
  );
}
